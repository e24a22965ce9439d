"""The live page of a directory of runs: what it is made of, and what it asks for again and again.

Without JavaScript it is a table that the browser loads again every five seconds.
"""

import json
from html import escape
from pathlib import Path
from string import Template

from tradax.listing import Listed, Snapshot

_FOLDER = Path(__file__).parent
_RUNS = {
    "state": "State",
    "progress": "Steps",
    "algorithm": "Algorithm",
    "market": "Market",
    "seed": "Seed",
    "grade": "Verdict",
    "validation": "Validation",
    "return": "Return",
    "speed": "Steps/s",
    "links": "Open",
}
_SWEEPS = {
    "state": "State",
    "progress": "Members",
    "waves": "Waves",
    "algorithm": "Algorithm",
    "market": "Market",
    "links": "Open",
}
_TEXTS = ("state", "progress", "algorithm", "market", "grade", "links")
_BLANK = Listed("", "run", "", "stopped", None, "", {}, [])


def page(title: str, snapshot: Snapshot) -> str:
    """The whole page as HTML."""
    return Template(_file("dashboard.html")).substitute(
        title=escape(title),
        told=escape(_told(snapshot)),
        tables=_table("runs", "Runs", _RUNS, snapshot.runs)
        + _table("sweeps", "Sweeps", _SWEEPS, snapshot.sweeps),
    )


def state(snapshot: Snapshot) -> str:
    """The same for the page's script, as JSON."""
    return json.dumps(
        {
            "told": _told(snapshot),
            "runs": [one._asdict() for one in snapshot.runs],
            "sweeps": [one._asdict() for one in snapshot.sweeps],
        },
        allow_nan=False,
    )


def style() -> str:
    return _file("page.css") + _file("dashboard.css")


def script() -> str:
    return _file("dashboard.js")


def _file(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


def _told(snapshot: Snapshot) -> str:
    states = [one.state for one in (*snapshot.runs, *snapshot.sweeps)]
    if not states:
        return "No runs here yet: tradax train and tradax sweep make them."
    runs, sweeps = len(snapshot.runs), len(snapshot.sweeps)
    said = (
        f"{runs:,} {'run' if runs == 1 else 'runs'}, {sweeps:,} "
        f"{'sweep' if sweeps == 1 else 'sweeps'}, {states.count('running'):,} of them running"
    )
    return said + (f"; {snapshot.left_out}" if snapshot.left_out else "") + "."


def _table(kind: str, caption: str, columns: dict[str, str], listed: list[Listed]) -> str:
    head = "".join(f'<th scope="col"{_class(name)}>{label}</th>' for name, label in columns.items())
    rows = "\n".join(_row(one, columns) for one in listed)
    return f"""<section id="{kind}"{"" if listed else " hidden"} aria-labelledby="{kind}-heading">
<h2 id="{kind}-heading">{caption}</h2>
<div class="scroll" role="region" aria-label="Table of {kind}" tabindex="0">
<table class="numbers">
<thead><tr><th scope="col">Name</th>{head}</tr></thead>
<tbody>
{rows}
</tbody>
</table>
</div>
<template id="{kind}-row">{_row(_BLANK, columns)}</template>
</section>
"""


def _class(name: str) -> str:
    return ' class="text"' if name in _TEXTS else ""


def _row(one: Listed, columns: dict[str, str]) -> str:
    cells = "".join(
        f'<td data-cell="{name}"{_class(name)}>{_cell(one, name)}</td>' for name in columns
    )
    name = f'<th scope="row"><bdi>{escape(one.name)}</bdi></th>'
    return f'<tr data-key="{escape(one.key)}">{name}{cells}</tr>'


def _cell(one: Listed, name: str) -> str:
    if name == "state":
        note = f'<small class="note">{escape(one.note)}</small>'
        return f'<span class="state {one.state}">{one.state}</span>{note}'
    if name == "progress":
        shown = f'value="{one.progress:.4f}"' if one.progress is not None else 'value="0" hidden'
        done = one.cells.get("steps", one.cells.get("members", ""))
        bar = f'<progress max="1" {shown} aria-label="Progress"></progress>'
        return f"{bar}<small>{escape(done)}</small>"
    if name == "links":
        return " ".join(
            f'<a href="{escape(link.href)}" aria-label="{escape(f"{link.label} of {one.name}")}">'
            f"{escape(link.label)}</a>"
            for link in one.links
        )
    return escape(one.cells.get(name, "–"))
