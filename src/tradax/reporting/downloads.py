"""Tables as CSV, in the run's folder and behind a button of the page."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from tradax.reporting.frame import script_json

if TYPE_CHECKING:
    import polars as pl

MOST_EMBEDDED = 1_000_000
"""Characters of CSV that a page holds at most, a file; its own scripts take 4.8 million."""


def csv_text(frame: pl.DataFrame) -> str:
    """Numbers with nine significant digits, all of a float32; empty where there is none."""
    import polars as pl
    import polars.selectors as cs

    floats = cs.float()
    finite = pl.when(floats.is_finite()).then(floats).otherwise(None)
    return frame.with_columns(finite.round_sig_figs(9)).write_csv()


def download(label: str, file: str, text: str) -> str:
    """A button that saves `text`, which the page holds; where it is too long, where it is found.

    Args:
        file: name of the same file beside the page.
    """
    name = escape(file)
    if len(text) > MOST_EMBEDDED:
        return f"<p><code>{name}</code> in the folder of this page is too long to be in it.</p>"
    return f"""<p class="download">
<button type="button" data-download="{name}">{escape(label)}</button>
<small>The same as <code>{name}</code> in the folder of this page.</small>
</p>
<script type="application/json" data-file="{name}">{script_json(text)}</script>"""
