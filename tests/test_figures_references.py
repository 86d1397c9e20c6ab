"""`ddcore cite`: every component says what to cite, from figures.bib alone, or that there is nothing."""

import re

import pytest

import ddcore
from ddcore import cli, figures
from ddcore.data import TORCHVISION
from ddcore.evaluation import coresets
from ddcore.figures import references
from ddcore.methods import METHODS
from ddcore.plugins import PLUGINS
from ddcore.synthetic import KINDS

COMPONENTS = (*METHODS, *KINDS, *PLUGINS, *coresets.NAMES, "digits", *TORCHVISION)
PAPERS = {"lowrank": "lodc", "mutual_information": "mim4dd", "weight_adjustment": "dwa"}


def keys(text: str) -> list[str]:
    return re.findall(r"^@\w+\{(\w+),", text, re.M)


def test_every_component_is_there_and_none_besides():
    assert set(references.REFERENCES) == set(COMPONENTS)


@pytest.mark.parametrize("name", COMPONENTS)
def test_a_component_has_its_entry_or_says_that_there_is_none(name):
    text = references.bibtex([name])
    own = [name] if name in METHODS else [PAPERS[name]] if name in PAPERS else []
    assert keys(text) == ["ddcore", *own]
    assert (f"% {name}: no reference available\n" in text) == (not own)
    for key in keys(text):
        assert figures.bibliography()[key] in text


@pytest.mark.parametrize("key", figures.bibliography())
def test_a_key_of_the_bibliography_is_its_entry(key):
    assert keys(references.bibtex([key])) == list(dict.fromkeys(["ddcore", key]))


def test_what_is_used_twice_is_cited_once():
    assert keys(references.bibtex(["dm", "lowrank", "lodc", "dm"])) == ["ddcore", "dm", "lodc"]


@pytest.mark.parametrize(("method", "plugins", "expected"), [
    (None, [], ["ddcore", "lodc"]), (ddcore.DM(width=8, batch_real=4), [], ["ddcore", "dm", "lodc"]),
    (ddcore.DM(width=8, batch_real=4), [ddcore.MutualInformation()], ["ddcore", "dm", "mim4dd", "lodc"])])  # fmt: skip
def test_a_set_says_what_made_it(digits, tmp_path, method, plugins, expected):
    synthetic = ddcore.LowRank(digits, 1, rank=1, seed=0)
    if method:
        ddcore.distill(digits, synthetic, method, plugins=plugins, steps=1, seed=0)
    synthetic.save(tmp_path / "set.safetensors")
    text = references.bibtex([str(tmp_path / "set.safetensors")])
    assert keys(text) == expected
    assert "% digits: no reference available" in text


def test_every_kept_set_names_components_that_are_known():
    for path in sorted((figures.FOLDER / "records").glob("*.safetensors"))[::25]:
        assert set(references.components(path)) <= set(references.REFERENCES)


def test_what_is_no_component_is_refused(refuses, tmp_path):
    with refuses("unknown component 'lowrnk'", "did you mean 'lowrank'"):
        references.bibtex(["dm", "lowrnk"])
    with refuses("none.safetensors", "no such file"):
        references.bibtex(["none.safetensors"])
    (tmp_path / "a.safetensors").write_bytes(b"x")
    with refuses("a.safetensors", "not a synthetic set"):
        references.bibtex([str(tmp_path / "a.safetensors")])


def test_the_command_prints_them_with_the_commit(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ddcore", "cite", "dm", "lowrank", "mim4dd"])
    monkeypatch.setattr("ddcore.figures.commits.here", lambda: {"commit": "c" * 40})
    with pytest.raises(SystemExit):
        cli.main()
    out = capsys.readouterr().out
    assert keys(out) == ["ddcore", "dm", "lodc", "mim4dd"]
    assert "commit " + "c" * 40 in out
