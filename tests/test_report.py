"""The page that a batch ends with."""

from html.parser import HTMLParser

from ddcore import figures
from ddcore.lab import batch, report, status


class Page(HTMLParser):
    """Its text, its tags that are open at the end, and what it would fetch."""

    def __init__(self, content: str):
        super().__init__()
        self.text, self.open, self.sources = "", [], []
        self.feed(content)
        self.close()

    def handle_data(self, data):
        self.text += data

    def handle_starttag(self, tag, attributes):
        self.sources += [value for name, value in attributes if name in ("src", "href")]
        if tag not in ("meta", "img"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def test_the_page_says_what_came_of_each_notebook_and_needs_nothing_else(tmp_path):
    outcomes = [batch.Outcome("10_a", "done", 12.4, ("lodc-spectra", "continual-5"), tmp_path / "10_a.ipynb"),
                batch.Outcome("11_b", "failed", 3.0, (), tmp_path / "11_b.ipynb", "ValueError: <b>&")]  # fmt: skip
    lines = [status.Line("10_a", 2, 1, 30, 4, 1.25, None, None)]
    path = report.write(tmp_path / "report.html", "laptop", outcomes, lines, [tmp_path, figures.FOLDER])
    assert [one.name for one in tmp_path.iterdir()] == ["report.html"]
    page = Page(path.read_text(encoding="utf-8"))
    assert page.open == []
    for words in (
        "preset laptop: 1 of 2 notebooks done",
        "10_a",
        "failed",
        "ValueError: <b>&",
        "1 of 2",
        "30",
        "1.2",
        figures.entry("lodc-spectra").caption,
    ):
        assert words in page.text
    assert len(page.sources) == 2
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)


def test_a_figure_that_is_not_there_is_left_out(tmp_path):
    outcomes = [batch.Outcome("10_a", "done", 1.0, ("lodc-spectra",), tmp_path)]
    page = Page(
        report.write(tmp_path / "report.html", "smoke", outcomes, [], [tmp_path]).read_text(encoding="utf-8")
    )
    assert page.sources == []
