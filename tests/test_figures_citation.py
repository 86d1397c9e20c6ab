"""Credits and BibTeX: figure, method and hosts apart, entries of types and fields that plain styles know."""

import re

import pytest

from ddcore import figures
from ddcore.figures import citation
from ddcore.files import records

# What plain.bst knows, and must have, for the types in use.
FIELDS = {
    "misc": ({"title"}, {"author", "title", "howpublished", "month", "year", "note", "key"}),
    "inproceedings": ({"author", "title", "booktitle", "year"},
                      {"author", "title", "booktitle", "year", "editor", "volume", "number", "series", "pages", "address", "month",
                       "organization", "publisher", "note", "key"}),
}  # fmt: skip
BASE = ("dc", "dsa", "dm", "mtt", "sre2l")


def parsed(text: str) -> tuple[str, str, dict[str, str]]:
    """Type, key and fields of an entry whose fields stand on a line each."""
    kind, key = re.match(r"@(\w+)\{(\w+),\n", text).groups()
    fields = re.findall(r"^  (\w+) *= \{(.*)\},?$", text, re.M)
    assert len(fields) == len(text.strip().splitlines()) - 2, text
    assert len(dict(fields)) == len(fields), text
    assert all(line.endswith(",") for line in text.strip().splitlines()[:-2]), text
    return kind, key, dict(fields)


def entries(**known):
    return {key: parsed(text) for key, text in figures.bibliography(**known).items()}


@pytest.mark.parametrize("known", [{}, {"commit": "c" * 40}, {"url": "https://example.org/a_b"},
                                   {"commit": "c" * 40 + " with local changes", "url": "https://example.org/a"}], ids=str)  # fmt: skip
def test_plain_styles_know_every_entry_whole(known):
    for key, (kind, named, fields) in entries(**known).items():
        must, may = FIELDS[kind]
        assert named == key
        assert must <= set(fields) <= may
        assert re.fullmatch(r"20\d\d", fields["year"])
        assert all(value.count("{") == value.count("}") for value in fields.values())
    ours = entries(**known)["ddcore"][2]
    assert ours["note"] == "Version 0.1.0" + (f", commit {known['commit']}" if "commit" in known else "")
    assert ours.get("howpublished") == (f"\\url{{{known['url']}}}" if "url" in known else None)


def test_the_companion_the_papers_and_the_base_methods_have_entries():
    assert set(entries()) == {"ddcore", "lodc", "theory", "mim4dd", "dwa", *BASE}
    kinds = {key: kind for key, (kind, *_) in entries().items()}
    assert kinds.pop("ddcore") == "misc"
    assert set(kinds.values()) == {"inproceedings"}


def test_the_base_methods_are_what_the_code_says_they_are():
    """Titles as in the docstrings of the methods; nothing stands in an entry that is not known."""
    code = " ".join(
        (records.PACKAGE / path).read_text(encoding="utf-8")
        for path in (
            "methods/gradient.py",
            "methods/distribution.py",
            "methods/trajectory.py",
            "kernels/statistics.py",
        )
    )
    code = " ".join(code.split())
    for key in BASE:
        fields = entries()[key][2]
        assert f"*{fields['title'].replace('{', '').replace('}', '')}*" in code
        assert fields["author"].split(" and ")[0] in code
        assert set(fields) <= {"title", "author", "booktitle", "year", "note"}


@pytest.mark.parametrize(("changed", "latex", "markdown"), [
    ({}, r"Figure: \cite{ddcore}.", "Figure: [@ddcore]."),
    ({"paper": "lodc"}, r"Figure: \cite{ddcore}. Method: \cite{lodc}.", "Figure: [@ddcore]. Method: [@lodc]."),
    ({"paper": "lodc", "hosts": ("dm",)}, r"Figure: \cite{ddcore}. Method: \cite{lodc}. Host: \cite{dm}.",
     "Figure: [@ddcore]. Method: [@lodc]. Host: [@dm]."),
    ({"paper": "dwa", "hosts": ("dm", "dc")}, r"Figure: \cite{ddcore}. Method: \cite{dwa}. Hosts: \cite{dm,dc}.",
     "Figure: [@ddcore]. Method: [@dwa]. Hosts: [@dm; @dc]."),
    ({"paper": "dwa", "status": "after the paper"}, r"Figure: \cite{ddcore}, after one in \cite{dwa}. Method: \cite{dwa}.",
     "Figure: [@ddcore], after one in [@dwa]. Method: [@dwa]."),
    ({"paper": "theory", "hosts": ("dm",)}, r"Figure: \cite{ddcore}. Theory: \cite{theory}. Method: \cite{dm}.",
     "Figure: [@ddcore]. Theory: [@theory]. Method: [@dm]."),
    ({"hosts": ("dm", "dc")}, r"Figure: \cite{ddcore}. Methods: \cite{dm,dc}.", "Figure: [@ddcore]. Methods: [@dm; @dc]."),
], ids=str)  # fmt: skip
def test_figure_method_and_hosts_are_credited_apart(changed, latex, markdown):
    one = figures.Entry("a", "title", "Caption.", "alt", "00", **changed)
    assert f"\\caption{{Caption. (aside) {latex}}}\n" in citation.latex(one, " (aside)")
    assert citation.markdown(one, " (aside)").endswith(f"\n\n*Caption. (aside) {markdown}*\n")
    assert citation.keys(one) == ("ddcore", *filter(None, (one.paper,)), *one.hosts)
