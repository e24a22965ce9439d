"""plotly.js as a page holds it: whole, but only what the pages draw is set up when it loads."""

import functools
import re

_KINDS = re.compile(r"([\w$.]+\.register)\(\[([\w$]+)\(\),((?:[\w$]+\(\),?){20,})\]\)")
"""Where all kinds of traces are set up, the first one captured. Lines are set up before that."""
_BARS = 'name:"bar",[^;]{{,400}};var {}='
"""The definition of bars, and after it that of the module which is to be the first one."""


@functools.cache
def plotly_script() -> str:
    """plotly.js with lines and bars; another version may come whole, and then loads slower.

    Maps, three dimensions and some forty more kinds would take two thirds of the CPU time that the
    library needs to load.
    """
    from plotly.offline import get_plotlyjs

    return lines_and_bars(get_plotlyjs())


def lines_and_bars(library: str) -> str:
    """Without all other kinds of traces; as it is where that does not look as expected."""
    near_the_end = library.rfind("register([")
    found = _KINDS.search(library, max(near_the_end - 100, 0))
    if found is None or not re.search(_BARS.format(re.escape(found[2])), library):
        return library
    return f"{library[: found.start()]}{found[1]}([{found[2]}()]){library[found.end() :]}"
