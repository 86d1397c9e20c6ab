"""The page to look at: every recorded figure with its words, numbers, data, provenance and citations, in one file that needs no network.

`write` makes figures/index.html by the templates beside this module, and beside it the executed notebooks as HTML.
"""

import base64
import dataclasses
import re
import urllib.parse
from collections.abc import Iterable
from pathlib import Path

import jinja2
import pandas as pd
from PIL import Image

import ddcore
from ddcore import figures
from ddcore.errors import BadInput
from ddcore.figures import commits, numbers
from ddcore.files import records, whole

TEMPLATES = Path(__file__).with_name("templates")
PAPERS = {"lodc": "LoDC", "mim4dd": "MIM4DD", "theory": "theory", "dwa": "DWA", "": "base methods, speed"}
MANY = "pixels"  # the column of a picture's CSV that no table shows


@dataclasses.dataclass(frozen=True)
class Card:
    """A figure as the page shows it. `image`: a data URI; `width`, `height`: of the drawing on a screen, in pixels; `content`: what the
    buttons copy and the tables show; `rows` of its CSV, numbers `reported` of it; `left_out`: the column that is in the CSV file alone, or
    ''."""

    entry: figures.Entry
    image: str
    width: int
    height: int
    sidecar: dict
    line: str
    remarks: list[str]
    content: dict[str, str]
    rows: int
    reported: int
    left_out: str


def data_uri(key: str, folder: Path) -> str:
    """The SVG of a figure without its metadata, or its PNG where that is smaller, as what an <img> takes."""
    svg = re.sub(
        r"<metadata>.*?</metadata>", "", (folder / f"{key}.svg").read_text(encoding="utf-8"), flags=re.DOTALL
    )
    svg = re.sub(r"\s*\n\s*", " ", svg).replace('"', "'")
    drawn = "data:image/svg+xml;charset=utf-8," + urllib.parse.quote(
        svg, safe=" !$&'()*+,-./:;<=>?@[]^_`{|}~"
    )
    pixels = "data:image/png;base64," + base64.b64encode((folder / f"{key}.png").read_bytes()).decode()
    return min(drawn, pixels, key=len)


def card(key: str, folder: Path, found: Iterable[numbers.Number], **known: str) -> Card:
    """What the page says of one recorded figure; `known`: as `figures.cite` takes it."""
    frame, sidecar, entry = figures.data(key, folder), figures.load(key, folder), figures.entry(key)
    with Image.open(folder / f"{key}.png") as image:
        size = [round(side / 300 * 96 * 1.45) for side in image.size]  # larger than in print, for a screen
    table = (folder / f"{key}.csv").read_text(encoding="utf-8")
    if MANY in frame:
        table = frame.drop(columns=MANY).to_csv(index=False, lineterminator="\n")
    ours = [one for one in found if one.figure == key]
    shown = pd.DataFrame([{"printed": " ± ".join(one.texts), "n": one.n, "key": one.key} for one in ours])
    content = {form: text.strip() + "\n" for form, text in figures.cite(key, **known).items()}
    content |= {
        "csv": table,
        "numbers": shown.to_csv(index=False, lineterminator="\n") if ours else "",
        "macro": f"\\ddFigure{{{key}}}",
    }
    return Card(
        entry,
        data_uri(key, folder),
        *size,
        sidecar,
        figures.provenance_line(sidecar),
        figures.remarks(key, folder),
        content,
        len(frame),
        len(ours),
        MANY if MANY in frame else "",
    )


def page(folder: Path = figures.FOLDER) -> str:
    """The whole page of the figures recorded in `folder`, with links from there."""
    known, found = commits.here(), numbers.numbers(folder)
    cards = [
        card(key, folder, found, **known) for key in figures.entries(folder) if figures.load(key, folder)
    ]
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        autoescape=jinja2.select_autoescape(["html"]),
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    used = [one.entry.paper for one in cards]
    return environment.get_template("page.html").render(
        cards=cards,
        papers={key: name for key, name in PAPERS.items() if key in used},
        counts={key: used.count(key) for key in PAPERS},
        version=ddcore.__version__,
        commit=known.get("commit", ""),
        reported=len(found),
        records=len({name for one in cards for name in one.sidecar["wasDerivedFrom"]}),
        files=figures.FILES,
    )


def notebook_html(path: Path) -> str:
    """An executed notebook, with its outputs, as HTML; its formulas are set by MathJax where there is a network, else shown as TeX."""
    import nbconvert

    exporter = nbconvert.HTMLExporter(template_name="lab", require_js_url="")
    return exporter.from_filename(str(path))[0]


def write(folder: Path = figures.FOLDER, notebooks: Path = records.SHIPPED / "notebooks") -> dict[Path, int]:
    """`folder`/index.html and `folder`/notebooks/<name>.html of the notebooks that it links; returns the bytes of each. Raises BadInput
    outside of a clone, which has the texts that the page links."""
    if not records.CHECKOUT:
        raise BadInput(
            "figures page is made among the files of a clone, and this ddcore is installed without one; run it in a clone"
        )
    content = {folder / "index.html": page(folder)}
    named = sorted(
        {one.notebook for key, one in figures.entries(folder).items() if figures.load(key, folder)}
    )
    content |= {
        folder / "notebooks" / f"{name}.html": notebook_html(notebooks / f"{name}.ipynb") for name in named
    }
    (folder / "notebooks").mkdir(exist_ok=True)
    for path, text in content.items():
        with whole(path) as part:
            part.write_text(text, encoding="utf-8")
    return {path: path.stat().st_size for path in content}
