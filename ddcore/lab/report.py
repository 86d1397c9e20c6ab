"""What came of a batch, as one page of HTML that holds its figures."""

import base64
import html
from collections.abc import Iterable, Sequence
from pathlib import Path

from ddcore import figures
from ddcore.files import whole
from ddcore.lab.batch import Outcome
from ddcore.lab.status import Line

STYLE = (
    "body{font:15px/1.5 sans-serif;max-width:60em;margin:2em auto;padding:0 1em}table{border-collapse:collapse}"
    "td,th{padding:.2em .8em;border-bottom:1px solid #ccc;text-align:left;vertical-align:top}img{max-width:100%}"
    ".failed{color:#a00}.stopped{color:#850}"
)


def write(
    path: Path, preset: str, outcomes: Sequence[Outcome], lines: Iterable[Line], drawn: Sequence[Path]
) -> Path:
    """The page at `path`: a table of the notebooks, what is recorded and missing, and the figures that this batch saved, which are looked
    for in the folders `drawn`."""
    ended = _table(
        ("notebook", "status", "seconds", "figures", "what went wrong"),
        [
            (one.notebook, one.status, f"{one.seconds:.0f}", ", ".join(one.figures) or "-", one.error)
            for one in outcomes
        ],
        [one.status for one in outcomes],
    )
    known = _table(
        ("notebook", "figures", "recorded", "missing", "core hours", "core hours missing"),
        [
            (
                line.notebook,
                f"{line.drawn} of {line.figures}",
                line.recorded,
                line.missing,
                f"{line.core_hours:.1f}",
                "-" if line.hours_missing is None else f"{line.hours_missing:.1f}",
            )
            for line in lines
        ],
    )
    pictures = "".join(_picture(key, drawn) for one in outcomes for key in one.figures)
    title = f"ddcore, preset {html.escape(preset)}: {sum(one.status == 'done' for one in outcomes)} of {len(outcomes)} notebooks done"
    with whole(path) as part:
        part.write_text(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title><style>{STYLE}</style><h1>{title}</h1>'
            f"{ended}<h2>Records</h2>{known}<h2>Figures</h2>{pictures or '<p>none</p>'}</html>\n",
            encoding="utf-8",
        )
    return path


def _table(heads: Iterable[str], rows: Iterable[Iterable], classes: Sequence[str] = ()) -> str:
    made = []
    for number, row in enumerate(rows):
        kind = f' class="{classes[number]}"' if classes else ""
        made.append(f"<tr{kind}>" + "".join(f"<td>{html.escape(str(value))}</td>" for value in row) + "</tr>")
    return f"<table><tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>{''.join(made)}</table>"


def _picture(key: str, drawn: Iterable[Path]) -> str:
    """A figure with its caption; the first that is found."""
    one = figures.entry(key)
    file = next((path for folder in drawn if (path := folder / f"{key}.png").is_file()), None)
    if file is None:
        return ""
    content = base64.b64encode(file.read_bytes()).decode()
    return (
        f'<figure><img alt="{html.escape(one.alt)}" src="data:image/png;base64,{content}"><figcaption><b>{key}</b>: '
        f"{html.escape(one.caption)}</figcaption></figure>"
    )
