"""The page of figures: whole, without a network, and working in a browser."""

import dataclasses
import html
import html.parser
import itertools
import json
import re
from urllib.parse import unquote, urldefrag

import pandas as pd
import pytest
from browser import CHROMIUM, chromium

from ddcore import figures
from ddcore.figures import gallery, numbers
from ddcore.files import records

RECORDED = [key for key in figures.entries() if figures.load(key)]


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """index.html as it stands among links to the repository's files. Not to be changed."""
    top = tmp_path_factory.mktemp("page")
    for name in ("notebooks", "RESULTS.md"):
        (top / name).symlink_to(records.TOP / name)
    (top / "figures").mkdir()
    for path in figures.FOLDER.iterdir():
        if path.name not in ("index.html", "notebooks"):
            (top / "figures" / path.name).symlink_to(path)
    with (
        pytest.MonkeyPatch.context() as patch
    ):  # 1.5 seconds each, and test_an_executed_notebook_is_a_page makes one
        patch.setattr(gallery, "notebook_html", lambda path: f"<!doctype html><title>{path.stem}</title>")
        gallery.write(top / "figures")
    return top / "figures" / "index.html"


class Tags(html.parser.HTMLParser):
    def __init__(self, text: str):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


@pytest.fixture(scope="module")
def tags(page):
    return Tags(page.read_text(encoding="utf-8")).found


def test_every_recorded_figure_is_there_with_its_words(page, tags):
    assert [given["id"] for tag, given in tags if tag == "article"] == RECORDED
    images = [given for tag, given in tags if tag == "img"]
    assert [given["alt"] for given in images] == [figures.entry(key).alt for key in RECORDED]
    text = html.unescape(page.read_text(encoding="utf-8"))
    for key in RECORDED:
        for words in (
            figures.entry(key).title,
            figures.entry(key).caption,
            figures.provenance_line(figures.load(key)),
        ):
            assert words in text


def test_it_needs_no_network_and_no_link_is_dead(page, tags):
    ids = {given["id"] for _, given in tags if "id" in given}
    links = [given[name] for _, given in tags for name in ("href", "src") if name in given]
    assert len(links) > 1000
    for link in links:
        path, anchor = urldefrag(link) if not link.startswith("data:") else ("", "")
        assert not re.match(r"\w+:|//", path), link
        assert not path or (page.parent / unquote(path)).is_file(), link
        assert not anchor or anchor in ids, link
    assert page.stat().st_size < 15e6


def test_what_is_copied_is_what_is_cited(page):
    texts = re.findall(
        r'<script type="application/json" class="content">(.*?)</script>',
        page.read_text(encoding="utf-8"),
        re.DOTALL,
    )
    found = numbers.numbers()
    for key, text in zip(RECORDED, texts, strict=True):
        content = json.loads(text)
        cited = figures.cite(key)
        assert content["latex"].strip() == cited["latex"].strip()
        assert content["markdown"].strip() == cited["markdown"].strip()
        assert content["macro"] == f"\\ddFigure{{{key}}}"
        if key not in ("lodc-images", "lodc-host-images", "dwa-images"):
            assert content["csv"].encode() == (figures.FOLDER / f"{key}.csv").read_bytes()
        assert content["numbers"].count(f",{key}/") == sum(one.figure == key for one in found)


def test_words_of_the_registry_are_text_and_no_markup(monkeypatch):
    card = gallery.card("lodc-rank", figures.FOLDER, [])
    hostile = "</script><script>alert(1)</script> & \"quoted\" 'too'"
    changed = dict.fromkeys(("title", "caption", "alt"), hostile)
    card = dataclasses.replace(
        card,
        entry=dataclasses.replace(card.entry, **changed),
        line=hostile,
        content=card.content | {"csv": hostile},
    )
    monkeypatch.setattr(gallery, "card", lambda *_, **__: card)
    monkeypatch.setattr(figures, "entries", lambda *_: {"lodc-rank": card.entry})
    monkeypatch.setattr(numbers, "numbers", lambda *_: [])
    text = gallery.page()
    assert "alert(1)</script>" not in text
    assert [given["alt"] for tag, given in Tags(text).found if tag == "img"] == [hostile]


def test_an_executed_notebook_is_a_page():
    text = gallery.notebook_html(records.TOP / "notebooks" / "00_start_here.ipynb")
    assert "<html" in text
    assert "jp-OutputArea-output" in text
    assert "require.min.js" not in text


def test_it_is_made_in_a_clone_alone(refuses, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "CHECKOUT", False)
    with refuses("figures page", "clone"):
        gallery.write(tmp_path)
    assert list(tmp_path.iterdir()) == []


# in a browser


@pytest.fixture(scope="module")
def tab(tmp_path_factory):
    if CHROMIUM is None:
        pytest.skip("chromium is not installed (Debian: apt install chromium)")
    with chromium(tmp_path_factory.mktemp("profile")) as found:
        yield found


CLIPBOARD = "new Promise(done => setTimeout(done, 100)).then(() => navigator.clipboard.readText())"
SHOWN = "[...document.querySelectorAll('article:not([hidden])')].map(article => article.id)"


def test_it_opens_from_the_file_system_without_a_complaint(tab, page):
    tab.send("Network.enable")
    tab.open(page)
    assert tab.run("document.images.length") == len(RECORDED)
    assert (
        tab.run("Promise.all([...document.images].map(image => image.decode())).then(() => 'decoded')")
        == "decoded"
    )
    assert tab.wrong == []
    assert {address.split(":")[0] for address in tab.asked} == {"file", "data"}
    tab.send("Network.disable")


def test_the_buttons_copy(tab, page):
    tab.open(page)
    for form in ("latex", "markdown", "bibtex", "csv", "macro"):
        tab.run(f"document.querySelector('#lodc-hosts [data-copy={form}]').click()")
        copied = tab.run(CLIPBOARD).replace("\r\n", "\n")
        expected = {
            "csv": (figures.FOLDER / "lodc-hosts.csv").read_text(encoding="utf-8"),
            "macro": r"\ddFigure{lodc-hosts}",
        }
        assert copied.strip() == expected.get(form, copied).strip()
        assert (
            form == "bibtex" or form in expected or copied.strip() == figures.cite("lodc-hosts")[form].strip()
        )
        assert form != "bibtex" or re.findall(r"^@\w+\{(\w+),", copied, re.M) == [
            "ddcore",
            "lodc",
            "dc",
            "dsa",
            "dm",
            "mtt",
        ]
        assert tab.run("said.textContent").endswith(" copied")
    tab.run("document.querySelector('#lodc-rank details.table').open = true")
    tab.run(
        "new Promise(done => setTimeout(done, 100)).then(() => document.querySelector('#lodc-rank td button').click())"
    )
    first = next(one.key for one in numbers.numbers() if one.figure == "lodc-rank")
    assert tab.run(CLIPBOARD) == f"\\ddNumber{{{first}}}"
    tab.run(
        "navigator.clipboard.writeText = () => Promise.reject(); document.querySelector('#lodc-rank [data-copy=macro]').click()"
    )
    assert tab.run(CLIPBOARD) == r"\ddFigure{lodc-rank}"


def test_the_data_are_a_table_that_sorts(tab, page):
    tab.open(page)
    frame = pd.read_csv(figures.FOLDER / "mim-negatives.csv", dtype=str, keep_default_na=False)
    rows = (
        "[...document.querySelectorAll('#mim-negatives [data-table=csv] tbody tr')].map(row => "
        "[...row.cells].map(cell => cell.textContent))"
    )
    tab.run(
        "document.querySelector('#mim-negatives [data-table=csv]').open = true; new Promise(done => setTimeout(done, 100))"
    )
    assert tab.run(rows) == frame.to_numpy().tolist()
    head = "document.querySelectorAll('#mim-negatives [data-table=csv] th')[{}]"
    for column, key in (("accuracy", pd.to_numeric), ("arm", lambda names: names.str.lower())):
        place = head.format(list(frame).index(column))
        for way, ascending in (("ascending", True), ("descending", False)):
            tab.run(f"{place}.querySelector('button').click()")
            assert tab.run(f"{place}.ariaSort") == way
            assert [row[list(frame).index(column)] for row in tab.run(rows)] == list(
                frame.sort_values(column, key=key, ascending=ascending, kind="stable")[column]
            )


def test_papers_and_words_filter(tab, page):
    tab.open(page)
    for paper in gallery.PAPERS:
        tab.run(f"document.querySelector('button[data-paper=\"{paper}\"]').click()")
        assert tab.run(SHOWN) == [key for key in RECORDED if figures.entry(key).paper == paper]
    tab.run("search.focus()")
    tab.press("r")
    tab.run("search.value += 'ank'; search.dispatchEvent(new Event('input'))")
    assert tab.run(SHOWN) == []
    assert not tab.run("document.getElementById('none').hidden")
    tab.press("Escape")
    assert tab.run(SHOWN) == RECORDED
    tab.press("/")
    tab.press("8")
    assert tab.run("search.value") == "8"
    assert 0 < len(tab.run(SHOWN)) < len(RECORDED)
    tab.run("location.hash = 'lodc-rank'; new Promise(done => setTimeout(done, 100))")
    assert tab.run(SHOWN) == RECORDED


def test_keys_lead_from_figure_to_figure(tab, page):
    tab.open(page)
    seen = []
    for key in "jjk":
        tab.press(key)
        seen.append(tab.run("document.activeElement.id"))
    assert seen == [RECORDED[0], RECORDED[1], RECORDED[0]]


def luminance(colour: str) -> float:
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    return sum(
        weight * (part / 12.92 if part <= 0.03928 else ((part + 0.055) / 1.055) ** 2.4)
        for weight, part in zip((0.2126, 0.7152, 0.0722), parts, strict=True)
    )


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_text_can_be_read_as_the_system_wishes_and_as_chosen(tab, page, dark):
    """Contrasts of 4.5 and more, as WCAG 2 asks; the button turns the other way round, and the next visit remembers."""
    tab.open(page, dark=dark)
    colours = (
        "['h2', 'h2 a', '.line', 'figcaption', '.copy button', 'button[aria-pressed=true]', 'footer p', 'summary'].map(name => { "
        "const one = document.querySelector(name); let on = one; "
        "while (getComputedStyle(on).backgroundColor === 'rgba(0, 0, 0, 0)') on = on.parentElement; "
        "return [name, getComputedStyle(one).color, getComputedStyle(on).backgroundColor]; })"
    )
    grounds = []
    for turned in (False, True):
        for name, colour, ground in tab.run(colours):
            low, high = sorted((luminance(colour), luminance(ground)))
            assert (high + 0.05) / (low + 0.05) >= 4.5, (name, colour, ground)
        grounds.append(luminance(tab.run("getComputedStyle(document.body).backgroundColor")))
        assert (grounds[-1] < 0.1) == (dark != turned)
        if not turned:
            tab.press("d")
    tab.open(page, dark=dark)
    assert luminance(tab.run("getComputedStyle(document.body).backgroundColor")) == grounds[1]
    tab.run("localStorage.clear()")


@pytest.mark.parametrize(("width", "dark"), [*itertools.product((400, 1400), (False, True))])
def test_nothing_is_wider_than_the_window(tab, page, width, dark):
    tab.open(page, width=width, dark=dark)
    wide = (
        "[...document.querySelectorAll('body *')].filter(one => one.getBoundingClientRect().right > innerWidth + 1 && "
        "!one.closest('.scroll, .skip')).map(one => one.outerHTML.slice(0, 80))"
    )
    assert tab.run(wide) == []
    tab.run(
        "document.querySelectorAll('details').forEach(one => { one.open = true; }); new Promise(done => setTimeout(done, 500))"
    )
    assert tab.run("document.querySelectorAll('table').length") > len(RECORDED)
    assert tab.run(wide) == []
    assert tab.run("document.documentElement.scrollWidth <= innerWidth")
    assert tab.wrong == []


def test_the_command_says_what_it_wrote_and_how_large(monkeypatch, capsys, tmp_path):
    from ddcore import cli

    monkeypatch.setattr("sys.argv", ["ddcore", "figures", "page"])
    monkeypatch.setattr(gallery, "write", lambda: {tmp_path / "index.html": 3 << 20})
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == f"{tmp_path / 'index.html'}: 3.0 MiB\n"
