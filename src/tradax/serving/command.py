"""The command `tradax act`: its options, and what it prints."""

import dataclasses
import sys

import tyro

from tradax.errors import TradaxError


@dataclasses.dataclass(kw_only=True)
class ActOptions:
    """Orders of a run's policy as JSON: after the last bar of a file, or for a stream of bars.

    With --stream every line of standard input is a bar or a fill, and is answered by a line:
    {"timestamp": "2024-01-02", "open": 1, "high": 1, "low": 1, "close": 1, "volume": 1}
    {"fill": {"side": "buy", "quantity": 10, "price": 1, "commission": 0.1}}"""

    run: tyro.conf.Positional[str]
    """A run directory of trading, discrete_trading or portfolio."""
    data: tuple[str, ...] = ()
    """CSV or Parquet file(s) whose last bar the order follows; as the run's own data."""
    stream: bool = False
    """Answer bars from standard input as they come; a fill replaces what would be assumed."""
    symbol: str | None = None
    """Which one, of a run with several policies; all by default."""
    history: tuple[str, ...] = ()
    """File(s) with the bars before the first one; the run's own data by default."""
    cash: float | None = None
    """Cash of the account at the start; the environment's initial_cash by default."""
    position: tuple[str, ...] = ()
    """Shares at the start: a number, or SYMBOL=NUMBER for several symbols; none by default."""
    entry_price: float | None = None
    """Average price paid for them; the first bar's close by default."""
    debug: bool = False
    """Show tracebacks."""


def act(options: ActOptions) -> int:
    """Print orders as JSON. Returns: the exit code."""
    if options.stream == bool(options.data):
        raise TradaxError("give --data FILE for one order, or --stream for bars as they come")
    from tradax import device

    device.keep_compiled_programs()
    from tradax.serving import stream
    from tradax.serving.orders import order_json

    given = {
        "symbol": options.symbol,
        "history": list(options.history) or None,
        "cash": options.cash,
        "position": stream.positions(options.position),
        "entry_price": options.entry_price,
    }
    if not options.stream:
        for order in stream.latest_orders(options.run, list(options.data), **given):
            print(order_json(order))
        return 0
    answers = stream.Stream(stream.open_traders(options.run, **given))
    for line in sys.stdin:
        if line.strip():
            print(answers.answer(line), flush=True)
        else:
            answers.pass_over()
    return 0
