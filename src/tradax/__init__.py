"""tradax learns trading and execution policies from market data, wholly on the device.

    import tradax

    result = tradax.train(algorithm="ppo", env="trading", data="sp500", total_timesteps=1_000_000)
    print(result.summary["verdict"]["headline"])

The names here are imported when they are first used, so that `import tradax` costs nothing.
"""

import importlib
import sys
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_HOMES = {
    "train": "tradax.experiment",
    "Result": "tradax.experiment",
    "sweep": "tradax.sweeps.experiment",
    "SweepResult": "tradax.sweeps.experiment",
    "collect": "tradax.offline",
    "export": "tradax.exporting",
    "Log": "tradax.logged",
    "read_log": "tradax.log_file",
    "write_log": "tradax.log_file",
    "off_policy_value": "tradax.evaluation.off_policy",
    "evaluate": "tradax.evaluation.scoring",
    "Trader": "tradax.serving.trader",
    "load_policy": "tradax.model_file",
    "save_policy": "tradax.model_file",
    "flatten_policy": "tradax.policies",
    "unflatten_policy": "tradax.policies",
    "TradaxError": "tradax.errors",
}

if TYPE_CHECKING:
    from tradax.errors import TradaxError as TradaxError
    from tradax.evaluation.off_policy import off_policy_value as off_policy_value
    from tradax.evaluation.scoring import evaluate as evaluate
    from tradax.experiment import Result as Result
    from tradax.experiment import train as train
    from tradax.exporting import export as export
    from tradax.log_file import read_log as read_log
    from tradax.log_file import write_log as write_log
    from tradax.logged import Log as Log
    from tradax.model_file import load_policy as load_policy
    from tradax.model_file import save_policy as save_policy
    from tradax.offline import collect as collect
    from tradax.policies import flatten_policy as flatten_policy
    from tradax.policies import unflatten_policy as unflatten_policy
    from tradax.serving.trader import Trader as Trader
    from tradax.sweeps.experiment import SweepResult as SweepResult
    from tradax.sweeps.experiment import sweep as sweep


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'tradax' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


if "gymnasium" in sys.modules:  # its names for our markets; costs 20 ms, and nothing without it
    importlib.import_module("tradax.envs")
