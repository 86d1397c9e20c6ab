"""The registry of figures: drawn from records only, saved with their data and provenance, checked, cited.

`figures/registry.yaml` is written by hand: an entry an id. `save` writes `<id>.{pdf,svg,png,csv,json}`: the plotted data as
CSV, the drawing three times with the provenance inside, and the provenance as a sidecar. Nothing in them depends on the time
of drawing or on anyone's settings of matplotlib, so that a figure redrawn from the same records has the same bytes.
"""

import contextlib
import dataclasses
import functools
import hashlib
import io
import json
import zlib
from collections.abc import Iterable
from pathlib import Path

import matplotlib
import pandas as pd
import PIL
import yaml
from matplotlib.figure import Figure

from ddcore.errors import BadInput
from ddcore.figures import citation, commits, style
from ddcore.files import records, whole
from ddcore.files.records import Record
from ddcore.settings import build, canonical, listed, unknown

FOLDER = records.SHIPPED / "figures"
FORMATS = ("pdf", "svg", "png")
FILES = {
    "pdf": "for print, its text in TrueType fonts that it holds",
    "svg": "its text as outlines, alike everywhere and not to be edited",
    "png": "300 pixels an inch",
    "csv": "what is plotted",
    "json": "what it was made from",
}
LINKED = ("[`{0}`]({0}.png)", "[{0}](../notebooks/{0}.ipynb)")


@dataclasses.dataclass(frozen=True)
class Entry:
    """One figure: `notebook` makes it, `status` is 'ours' or 'after the paper', `paper` a key of figures.bib or '', `hosts` those of the
    base methods that ran in it."""

    id: str
    title: str
    caption: str
    alt: str
    notebook: str
    paper: str = ""
    hosts: tuple[str, ...] = ()
    status: str = "ours"
    width: str = "column"
    seeds: int = 3


def entries(folder: Path = FOLDER) -> dict[str, Entry]:
    """Every entry by id. Raises BadInput where there is no registry."""
    if not (folder / "registry.yaml").is_file():
        raise BadInput(
            f"{folder}: no registry.yaml is there; install ddcore from a clone, or run this in one"
        )
    return {
        key: build(Entry, {"id": key, **value}, f"figure {key}")
        for key, value in _parsed((folder / "registry.yaml").read_text(encoding="utf-8")).items()
    }


_parsed = functools.lru_cache(maxsize=4)(yaml.safe_load)  # a fifth of a second


def entry(key: str) -> Entry:
    """The entry of one id. Raises BadInput for an unknown one."""
    known = entries()
    if key not in known:
        raise unknown("figure", key, known)
    return known[key]


def draw(key: str, frame: pd.DataFrame) -> Figure:
    """The figure `key` of `frame` (the columns of its CSV). It is no figure of pyplot, and nobody's backend changes."""
    from ddcore.figures.drawings import DRAWINGS  # seaborn is loaded when something is drawn

    with style.applied():
        return DRAWINGS[key](frame)


def mark(figure: Figure, presets: Iterable[str], datasets: Iterable[str]) -> Figure:
    """`figure`; one that runs of the smoke preset took part in says across itself that it shows no result."""
    if "smoke" in presets:
        named = ", ".join(sorted({*datasets} - {""})) or "simulated data"
        with style.applied():
            figure.text(
                0.5,
                0.5,
                f"smoke, {named}: not a result",
                ha="center",
                va="center",
                rotation=15,
                fontsize=14,
                color="firebrick",
                alpha=0.45,
                zorder=100,
            )
    return figure


def to_png(figure: Figure) -> bytes:
    """The drawing as PNG, for a screen."""
    buffer = io.BytesIO()
    with style.applied():
        figure.savefig(buffer, format="png", dpi=130)
    return buffer.getvalue()


def index(figure: str = "`{0}`", notebook: str = "{0}") -> str:
    """A Markdown table: figure, what it shows, its notebook, and what is recorded of it; `figure` and `notebook` say how their names
    are written (`LINKED`: as links from figures/README.md)."""
    lines = ["| figure | what it shows | notebook | recorded |", "|---|---|---|---|"]
    for key, shown in entries().items():
        sidecar = load(key)
        recorded = (
            f"{' + '.join(sidecar['preset'])}, {len(sidecar['seeds'])} seed{'s' * (len(sidecar['seeds']) != 1)}"
            if sidecar
            else "-"
        )
        name = (figure if sidecar else "`{0}`").format(key)
        lines.append(f"| {name} | {shown.title} | {notebook.format(shown.notebook)} | {recorded} |")
    return "\n".join(lines)


def _to_csv(frame: pd.DataFrame) -> bytes:
    return frame.to_csv(index=False, float_format="%.6g", lineterminator="\n").encode()


def _from_csv(content: bytes) -> pd.DataFrame:
    return pd.read_csv(io.BytesIO(content), keep_default_na=False, na_values=[""], dtype={"pixels": str})


def _drawn_with() -> str:
    """What the bytes of a drawing depend on besides its data: the PDF is packed by zlib, the PNG by Pillow."""
    return f"matplotlib {matplotlib.__version__}, Pillow {PIL.__version__}, zlib {zlib.ZLIB_RUNTIME_VERSION}"


def _render(key: str, frame: pd.DataFrame, embedded: str) -> dict[str, bytes]:
    provenance = json.loads(embedded)
    figure = mark(draw(key, frame), provenance["preset"], [dataset for dataset, _ in provenance["data"]])
    metadata = {
        "pdf": {"Keywords": embedded, "Title": key, "CreationDate": None, "Producer": None, "Creator": None},
        "svg": {"Description": embedded, "Identifier": key, "Date": None, "Creator": None},
        "png": {"Provenance": embedded, "Software": None},
    }
    files = {}
    with style.applied():
        for form in FORMATS:
            buffer = io.BytesIO()
            figure.savefig(buffer, format=form, metadata=metadata[form])
            files[form] = buffer.getvalue()
    return files


def _overrides(made_from: list[Record]) -> dict:
    """The numbers of these records that are not their preset's."""
    return {
        name: value for record in made_from for name, value in record.provenance.get("overrides", {}).items()
    }


def save(key: str, frame: pd.DataFrame, made_from: Iterable[Record], *, folder: Path = FOLDER) -> dict:
    """Draw figure `key` from `frame` and write it to `folder`; returns its provenance.

    Raises BadInput for a frame without a row, and when `folder` is figures/ for records of smoke runs, of numbers that are not a preset's,
    or of fewer seeds than the entry promises.
    """
    figure, made_from = entry(key), sorted(made_from, key=lambda record: record.hash)
    if frame.empty or not made_from:
        raise BadInput(
            f"figure {key}: there is no record to draw it from; run notebook {figure.notebook} at a larger preset first"
        )
    official = folder.resolve() == FOLDER.resolve()
    if official and any(record.preset == "smoke" for record in made_from):
        raise BadInput(
            f"figure {key}: made from smoke runs, which can't land in figures/; run preset laptop or paper"
        )
    overrides = _overrides(made_from)
    if official and overrides:
        raise BadInput(
            f"figure {key}: made with {listed(overrides)} in place of its preset's, which can't land in figures/; name another"
        )
    seeds = sorted({record.experiment["seed"] for record in made_from if "seed" in record.experiment})
    if official and len(seeds) < figure.seeds:
        raise BadInput(f"figure {key}: {len(seeds)} seeds, but its caption promises {figure.seeds}")
    return _write(key, _to_csv(frame), made_from, folder)


def _write(key: str, csv: bytes, made_from: list[Record], folder: Path) -> dict:
    """The five files of a figure, drawn from its CSV so that drawing before and after saving is one thing; returns its provenance."""
    seeds = sorted({record.experiment["seed"] for record in made_from if "seed" in record.experiment})
    overrides = _overrides(made_from)
    provenance = {
        "figure": key,
        "preset": sorted({record.preset for record in made_from}),
        "seeds": seeds,
        "data": sorted(
            {
                (record.experiment["dataset"], record.experiment["data_sha256"][:16])
                for record in made_from
                if record.experiment["dataset"]
            }
        ),
        "wasDerivedFrom": [record.hash for record in made_from],
        "csv_sha256": hashlib.sha256(csv).hexdigest(),
        "hardware": sorted({canonical(record.provenance["hardware"]) for record in made_from}),
        "commits": sorted({record.provenance["commit"] or "unknown" for record in made_from}),
        "dirty": any(record.provenance["dirty"] for record in made_from),
        "code_sha256": sorted({record.provenance["code_sha256"][:16] for record in made_from}),
        "torch": sorted({record.provenance["versions"]["torch"] for record in made_from}),
        "seconds": round(sum(record.provenance["seconds"] for record in made_from), 1),
        "drawn_with": _drawn_with(),
    }
    provenance |= {"overrides": overrides} if overrides else {}
    provenance = json.loads(canonical(provenance))
    files = _render(key, _from_csv(csv), canonical(provenance)) | {"csv": csv}
    sidecar = provenance | {
        "sha256": {form: hashlib.sha256(content).hexdigest() for form, content in sorted(files.items())}
    }
    files["json"] = (json.dumps(sidecar, indent=1, sort_keys=True) + "\n").encode()
    folder.mkdir(parents=True, exist_ok=True)
    for form, content in files.items():
        with whole(folder / f"{key}.{form}") as part:
            part.write_bytes(content)
    return sidecar


def load(key: str, folder: Path = FOLDER) -> dict | None:
    """The sidecar of a saved figure, or None. Raises BadInput for one that is cut short."""
    path = folder / f"{key}.json"
    if not path.is_file():
        return None
    try:
        sidecar = json.loads(path.read_text(encoding="utf-8"))
        if sidecar["figure"] != key or set(sidecar["sha256"]) != {*FORMATS, "csv"}:
            raise ValueError(f"it does not name the files of figure {key}")
    except (ValueError, TypeError, KeyError) as error:
        raise BadInput(f"{path}: not a whole sidecar ({error}); draw the figure again") from error
    return sidecar


def data(key: str, folder: Path = FOLDER) -> pd.DataFrame:
    """The plotted data of a saved figure. Raises BadInput if it is not saved."""
    path = folder / f"{entry(key).id}.csv"
    if not path.is_file():
        raise BadInput(
            f"figure {key}: not recorded yet; run notebook {entry(key).notebook} at preset laptop or paper"
        )
    return _from_csv(path.read_bytes())


def redraw(key: str, folder: Path = FOLDER) -> dict:
    """Draw a saved figure anew from its data and the records that it names; returns its provenance. Raises BadInput if it is not saved."""
    data(key, folder)
    sidecar = load(key, folder)
    if sidecar is None:
        raise BadInput(
            f"figure {key}: its sidecar {key}.json is missing; run notebook {entry(key).notebook} at preset laptop or paper"
        )
    made_from = [records.read(folder / "records" / f"{name}.json") for name in sidecar["wasDerivedFrom"]]
    return _write(key, (folder / f"{key}.csv").read_bytes(), made_from, folder)


def provenance_line(sidecar: dict) -> str:
    """One line that says what a figure was computed from."""
    machines = [json.loads(machine) for machine in sidecar["hardware"]]
    where = " and ".join(dict.fromkeys(machine["gpu"] or machine["cpu"] for machine in machines))
    threads = sorted({machine["threads"] for machine in machines if not machine["gpu"]})
    where += f", {' or '.join(map(str, threads))} thread{'s' * (threads != [1])}" if threads else ""
    data = ", ".join(name for name, _ in sidecar["data"]) or "simulated data"
    seeds, made_from = len(sidecar["seeds"]), len(sidecar["wasDerivedFrom"])
    preset = ", ".join(
        filter(None, (f"{' + '.join(sidecar['preset'])} preset", listed(sidecar.get("overrides", {}))))
    )
    return (
        f"{preset} · {data} · {seeds} seed{'s' * (seeds != 1)} · "
        f"{made_from} record{'s' * (made_from != 1)} · {sidecar['seconds']:.0f} s · {where}"
    )


def check(folder: Path = FOLDER) -> list[str]:
    """What is wrong with the saved figures: empty when every file is whole, its records are there and, where that can be looked up, their
    commits with their code, its provenance inside, and redrawing from the CSV with the same matplotlib, Pillow and zlib gives the same
    bytes."""
    known = entries()
    wrong = [
        f"{path.name}: no entry '{path.stem}' in registry.yaml"
        for path in sorted(folder.iterdir())
        if path.suffix[1:] in (*FORMATS, "csv", "json") and path.stem not in {*known, "published", "numbers"}
    ]
    ours = None if unchecked(folder) else commits.history()
    for key in known:
        try:
            wrong += _damages(key, folder, ours)
        except BadInput as error:
            wrong.append(f"{key}: {error}")
    return wrong


def unchecked(folder: Path = FOLDER) -> str:
    """Why `check` can't look up the commits that the records of figures name; '' if it can."""
    named = set()
    for key in entries():
        with contextlib.suppress(BadInput):
            named.update((load(key, folder) or {"commits": []})["commits"])
    try:
        here = not named or named & commits.history()
    except commits.NoHistory as why:
        return str(why)
    return "" if here else "this clone has another history, which holds none of them"


def remarks(key: str, folder: Path = FOLDER) -> list[str]:
    """What is known of the commits that records of a saved figure name and that do not hold their code, a line each place where it is."""
    paths = [
        folder / "records" / f"{name}.json"
        for name in (load(key, folder) or {"wasDerivedFrom": []})["wasDerivedFrom"]
    ]
    made = [records.read(path).provenance for path in paths if path.is_file()]
    return commits.remarks(made, commits.elsewhere(FOLDER / "commits.yaml"))


def _damages(key: str, folder: Path, ours: frozenset[str] | None) -> list[str]:
    """`ours`: the commits of this clone; None: not known."""
    sidecar = load(key, folder)
    if sidecar is None:
        return [
            f"{key}.{form}: its sidecar {key}.json is missing"
            for form in (*FORMATS, "csv")
            if (folder / f"{key}.{form}").exists()
        ]
    wrong, made = [], []
    for name in sidecar["wasDerivedFrom"]:
        path = folder / "records" / f"{name}.json"
        if path.is_file():
            made.append(records.read(path).provenance)
        else:
            wrong.append(f"{key}: its record {name} is not in records/")
    if ours is not None:
        wrong += [
            f"{key}: {doubt}"
            for doubt in commits.doubts(made, commits.elsewhere(FOLDER / "commits.yaml"), ours)
        ]
    changed = [
        form
        for form, expected in sidecar["sha256"].items()
        if not (path := folder / f"{key}.{form}").is_file()
        or hashlib.sha256(path.read_bytes()).hexdigest() != expected
    ]
    wrong += [f"{key}.{form}: missing or changed since it was drawn" for form in changed]
    if changed or sidecar["drawn_with"] != _drawn_with():
        return wrong
    embedded = canonical({name: value for name, value in sidecar.items() if name != "sha256"})
    try:
        redrawn = _render(key, _from_csv((folder / f"{key}.csv").read_bytes()), embedded)
    except Exception as error:  # whatever a drawing does with columns that are no longer those it reads
        return [
            *wrong,
            f"{key}: can't be redrawn from its CSV ({type(error).__name__}: {error}); draw it from its records",
        ]
    differ = [
        form
        for form, content in redrawn.items()
        if hashlib.sha256(content).hexdigest() != sidecar["sha256"][form]
    ]
    return wrong + [
        f"{key}.{form}: redrawn from its CSV with the provenance of its sidecar, it differs"
        for form in differ
    ]


def published(dataset: str, *, network: str, methods: tuple[str, ...], ipcs: tuple[int, ...]) -> pd.DataFrame:
    """The rows of figures/published.csv for these cells, with their sources; a cell that is not there is 'not available'."""
    known = pd.read_csv(FOLDER / "published.csv", dtype=str, keep_default_na=False)
    known = known[(known.dataset == dataset) & (known.network == network)]
    rows = []
    for method in methods:
        for ipc in ipcs:
            cell = {"method": method, "ipc": ipc}
            numbers = known[(known.method == method) & (known.ipc == str(ipc))].to_dict("records")
            rows += [cell | {"published": " ± ".join(filter(None, (number["mean"], number["sd"]))), "protocol": number["protocol"],
                             "source": number["source"]} for number in numbers]  # fmt: skip
            rows += [] if numbers else [cell | {"published": "not available", "protocol": "", "source": ""}]
    return pd.DataFrame(rows)


def cite(key: str, *others: str, commit: str = "", url: str = "") -> dict[str, str]:
    """{'latex': a figure block each, 'markdown': the same, 'bibtex': this companion, the papers and the hosts, once each}; `commit` and
    `url` of this companion as `commits.here` tells them."""
    blocks, names = {"latex": [], "markdown": []}, []
    for figure in map(entry, dict.fromkeys((key, *others))):
        sidecar = load(figure.id)
        aside = f" ({provenance_line(sidecar)})" if sidecar else ""
        blocks["latex"].append(citation.latex(figure, aside))
        blocks["markdown"].append(citation.markdown(figure, aside))
        names += citation.keys(figure)
    references = bibliography(commit=commit, url=url)
    blocks["bibtex"] = [references[name] for name in dict.fromkeys(names)]
    return {form: "\n".join(texts) for form, texts in blocks.items()}


def bibliography(**known: str) -> dict[str, str]:
    """BibTeX entries by key, from figures/figures.bib; `known`: `commit` and `url` of this companion."""
    return citation.bibliography(FOLDER / "figures.bib", **known)
