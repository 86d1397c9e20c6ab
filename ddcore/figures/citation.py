"""How a figure is cited: blocks of LaTeX and Markdown that credit the figure, its method and the hosts apart, and entries of BibTeX."""

import re
from collections.abc import Callable
from pathlib import Path

LATEX = {
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "\\": r"\textbackslash{}",
    "±": r"$\pm$",
    "×": r"$\times$",
    "≥": r"$\geq$",
    "²": "$^2$",
}
MARKDOWN = {letter: f"\\{letter}" for letter in "\\`*_[]<>"}


def _escaped(text: str, letters: dict[str, str]) -> str:
    return "".join(letters.get(letter, letter) for letter in " ".join(text.split()))


def keys(figure) -> tuple[str, ...]:
    """The entries of figures.bib that the figure is credited to: this companion, the paper, the hosts."""
    return ("ddcore", *([figure.paper] if figure.paper else []), *figure.hosts)


def _credits(figure, cited: Callable[..., str]) -> str:
    """Who made what, in a sentence each: a paper holds its method, and not our figure."""
    after = f", after one in {cited(figure.paper)}" if figure.status == "after the paper" else ""
    said = [f"Figure: {cited('ddcore')}{after}"]
    plugin = figure.paper not in ("", "theory")
    if figure.paper:
        said.append(f"{'Method' if plugin else 'Theory'}: {cited(figure.paper)}")
    if figure.hosts:
        said.append(
            f"{'Host' if plugin else 'Method'}{'s' * (len(figure.hosts) > 1)}: {cited(*figure.hosts)}"
        )
    return ". ".join(said) + "."


def latex(figure, aside: str = "") -> str:
    """A figure environment, as wide as the entry says; `aside`: what follows the caption in brackets."""
    wide, across = ("*", "textwidth") if figure.width == "page" else ("", "columnwidth")
    caption = (
        _escaped(figure.caption + aside, LATEX)
        + " "
        + _credits(figure, lambda *names: f"\\cite{{{','.join(names)}}}")
    )
    return (
        f"\\begin{{figure{wide}}}\n  \\centering\n  \\includegraphics[width=\\{across}]{{figures/{figure.id}.pdf}}\n"
        f"  \\caption{{{caption}}}\n  \\label{{fig:{figure.id}}}\n\\end{{figure{wide}}}\n"
    )


def markdown(figure, aside: str = "") -> str:
    """The image with its description, and the caption; keys of BibTeX as pandoc and MyST cite them."""
    cited = _credits(figure, lambda *names: f"[{'; '.join(f'@{name}' for name in names)}]")
    caption = _escaped(figure.caption + aside, MARKDOWN) + " " + cited
    return f"![{_escaped(figure.alt, MARKDOWN)}](figures/{figure.id}.png)\n\n*{caption}*\n"


def bibliography(path: Path, *, commit: str = "", url: str = "") -> dict[str, str]:
    """The entries of figures.bib by key; this companion's with `commit` and `url`, in fields that plain styles print too."""
    blocks = re.findall(r"^@\w+\{.*?^\}\n", path.read_text(encoding="utf-8"), re.M | re.S)
    found = {block.split("{", 1)[1].split(",", 1)[0]: block for block in blocks}
    if commit:
        found["ddcore"] = re.sub(
            r"(note\s*= \{.*)\}", lambda note: f"{note[1]}, commit {commit}}}", found["ddcore"]
        )
    if url:
        found["ddcore"] = (
            found["ddcore"].removesuffix("\n}\n") + f",\n  howpublished = {{\\url{{{url}}}}}\n}}\n"
        )
    return found
