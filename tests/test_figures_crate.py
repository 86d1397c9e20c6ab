"""The RO-Crate: everything in it is described, and every reference leads somewhere; the validator's word where it is installed."""

import hashlib
import json
import os
import re
import subprocess

import pytest

import ddcore
from ddcore import cli, figures
from ddcore.figures import crate, gallery
from ddcore.files import records

VALIDATOR = os.environ.get("ROC_VALIDATOR")


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An export, but for the page, which test_gallery has. Not to be changed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            gallery,
            "write",
            lambda folder, notebooks: (folder / "index.html").write_text("page", encoding="utf-8"),
        )
        return crate.write(tmp_path_factory.mktemp("crate") / "new")


@pytest.fixture(scope="module")
def graph(exported):
    found = json.loads((exported / crate.METADATA).read_text(encoding="utf-8"))
    assert found["@context"][0] == "https://w3id.org/ro/crate/1.1/context"
    named = {one["@id"]: one for one in found["@graph"]}
    assert len(named) == len(found["@graph"])
    return named


def test_the_descriptor_and_the_root_are_as_the_specification_asks(graph):
    assert graph["ro-crate-metadata.json"]["about"] == {"@id": "./"}
    assert graph["ro-crate-metadata.json"]["conformsTo"] == {"@id": "https://w3id.org/ro/crate/1.1"}
    root = graph["./"]
    assert root["@type"] == "Dataset"
    assert re.fullmatch(r"\d{4}-\d\d-\d\d", root["datePublished"])
    assert root["version"] == ddcore.__version__
    assert {"name", "description", "license", "author", "hasPart"} <= set(root)


def test_every_file_is_described_with_its_sha256_and_no_other(exported, graph):
    described = {one["@id"]: one for one in graph.values() if one["@type"] == "File"}
    present = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()} - {
        crate.METADATA
    }
    assert set(described) == present
    assert {one["@id"] for one in graph["./"]["hasPart"]} == present
    for name in (*sorted(present)[::50], "figures/lodc-hosts.pdf", "CITATION.cff", "LICENSE"):
        content = (exported / name).read_bytes()
        assert described[name]["sha256"] == hashlib.sha256(content).hexdigest()
        assert described[name]["contentSize"] == str(len(content))
        assert "/" in described[name]["encodingFormat"]


def references(value):
    """Every {"@id": ...} in the values of an entity."""
    if isinstance(value, dict):
        yield from (
            [value["@id"]]
            if set(value) == {"@id"}
            else (one for part in value.values() for one in references(part))
        )
    elif isinstance(value, list):
        yield from (one for part in value for one in references(part))


def test_every_reference_leads_somewhere(graph):
    named = [
        one
        for entity in graph.values()
        for name, part in entity.items()
        if name != "conformsTo"
        for one in references(part)
    ]
    assert len(named) > 3000
    assert set(named) <= set(graph)


def test_each_figure_says_from_which_records_by_which_code(graph):
    recorded = [key for key in figures.entries() if figures.load(key)]
    assert {key for key in graph if key.startswith("#draw-")} == {f"#draw-{key}" for key in recorded}
    for key in recorded:
        sidecar, action = figures.load(key), graph[f"#draw-{key}"]
        assert action["@type"] == "CreateAction"
        assert [*references(action["result"])] == [f"figures/{key}.{form}" for form in figures.FILES]
        assert [*references(action["object"])] == [
            f"figures/records/{name}.json" for name in sidecar["wasDerivedFrom"]
        ]
        code = [graph[one] for one in references(action["instrument"])]
        assert [one["version"] for one in code] == sidecar["commits"]
        assert {one["@type"] for one in code} == {"SoftwareSourceCode"}


def test_the_four_papers_are_cited(graph):
    assert sorted(graph[one]["datePublished"] for one in references(graph["./"]["citation"])) == [
        "2023",
        "2023",
        "2024",
        "2026",
    ]


def test_a_folder_that_holds_something_is_left_alone(refuses, tmp_path):
    (tmp_path / "mine").touch()
    with refuses("not an empty folder"):
        crate.write(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_an_export_that_fails_leaves_nothing(monkeypatch, tmp_path):
    def failing(*_):
        raise OSError("no room")

    monkeypatch.setattr(gallery, "write", failing)
    with pytest.raises(OSError, match="no room"):
        crate.write(tmp_path / "new")
    assert list(tmp_path.iterdir()) == []


def test_it_is_made_in_a_clone_alone(refuses, monkeypatch, tmp_path):
    monkeypatch.setattr(records, "CHECKOUT", False)
    with refuses("figures export", "clone"):
        crate.write(tmp_path / "new")


def test_the_command_says_what_it_wrote(monkeypatch, capsys, tmp_path):
    monkeypatch.setattr("sys.argv", ["ddcore", "figures", "export", str(tmp_path / "new")])
    monkeypatch.setattr(crate, "write", lambda folder: folder.mkdir() or (folder / "a").touch() or folder)
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().out == f"{tmp_path / 'new'}: 1 files, described in ro-crate-metadata.json\n"


@pytest.mark.skipif(VALIDATOR is None, reason="roc-validator is not installed: make test-metadata does that")
def test_its_validator_finds_it_valid(exported):
    done = subprocess.run(
        [VALIDATOR, "-y", "--disable-color", "validate", "-p", "ro-crate-1.1", "--no-paging", str(exported)],
        capture_output=True,
        encoding="utf-8",
        timeout=600,
    )
    said = " ".join((done.stdout + done.stderr).split())
    if "URLError" in said or "ConnectionError" in said:
        pytest.skip("roc-validator reads the context of RO-Crate from w3id.org, which could not be reached")
    assert done.returncode == 0, said[-2000:]
