"""The sets of the repository: what is listed is what their records say, and what is got is the set."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from ddcore import cli
from ddcore.files import records
from ddcore.lab import sets
from ddcore.synthetic import load_synthetic

LISTED = sets.listed()
ONE = next(one for one in LISTED if one.kind == "lowrank" and one.dataset == "cifar10")


def test_every_set_is_listed_with_what_its_record_says():
    assert {one.id for one in LISTED} == {path.stem for path in sets.FOLDER.glob("*.safetensors")}
    for one in LISTED[::40]:
        record = records.read(sets.FOLDER / f"{one.id}.json")
        assert (one.dataset, one.ipc, one.method) == tuple(
            record.experiment[name] if name != "method" else record.experiment[name]["name"]
            for name in ("dataset", "budget_ipc", "method")
        )
        assert one.accuracy == record.result["accuracy"]
        found = load_synthetic(one.path)
        assert (found.kind, found.per_class, found.settings["dataset"]) == (
            one.kind,
            one.images_per_class,
            one.dataset,
        )


@pytest.mark.parametrize(
    "wanted",
    [{"dataset": "cifar10"}, {"ipc": 10, "method": "dm"}, {"kind": "lowrank", "dataset": None}],
    ids=str,
)
def test_only_what_is_wanted_is_listed(wanted):
    found = sets.listed(**wanted)
    named = {name: value for name, value in wanted.items() if value is not None}
    assert found == [
        one for one in LISTED if all(getattr(one, name) == value for name, value in named.items())
    ]
    assert 0 < len(found) < len(LISTED)


def test_what_is_not_there_is_refused(refuses, tmp_path, monkeypatch):
    with refuses("unknown dataset 'cifar1'", "cifar10"):
        sets.listed(dataset="cifar1")
    with refuses("set 'xyz'", "ddcore sets list"):
        sets.find("xyz")
    with refuses("set ''"):
        sets.find("")
    with refuses("unknown form of sets get 'jpg'", "npz"):
        sets.get(ONE.id, "jpg", tmp_path / "a")
    letter = max("0123456789abcdef", key=lambda one: sum(other.id.startswith(one) for other in LISTED))
    with refuses(f"set '{letter}'", "begin so"):
        sets.find(letter)
    monkeypatch.setattr(sets, "FOLDER", tmp_path)
    with refuses("no sets are there", "clone"):
        sets.listed()


def test_a_set_is_got_in_every_form(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    learned = load_synthetic(ONE.path)
    path, _ = sets.get(ONE.id[:10], "npz")
    assert path.name == f"{ONE.id}.npz"
    assert np.array_equal(np.load(path)["images"], learned.images().detach())
    path, _ = sets.get(ONE.id, "torch", tmp_path / "a.pt")
    assert torch.equal(torch.load(path, weights_only=True)["images"], learned.images())
    path, _ = sets.get(ONE.id, "png")
    pictures = sorted(path.rglob("*.png"))
    assert len(pictures) == len(learned.labels)
    with Image.open(pictures[0]) as image:
        assert image.size == (32, 32)


def test_nothing_is_written_over(refuses, tmp_path):
    (tmp_path / "a.npz").write_bytes(b"mine")
    with refuses("a.npz", "is there already"):
        sets.get(ONE.id, "npz", tmp_path / "a.npz")
    assert (tmp_path / "a.npz").read_bytes() == b"mine"
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "b").touch()
    with refuses("not an empty folder"):
        sets.get(ONE.id, "png", tmp_path / "a")


@pytest.mark.parametrize(("arguments", "code", "words"), [
    (["list", "--dataset", "cifar10", "--method", "sre2l"], 0, ["sre2l + weight_adjustment", "soft labels"]),
    (["get", ONE.id, "--as", "torch"], 0, [f"{ONE.id}.pt", "cifar10"]),
    (["get", ONE.id, "--out", "no/such/a.npz"], 2, ["--out no/such/a.npz", "does not exist"])])  # fmt: skip
def test_the_commands(monkeypatch, capsys, tmp_path, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.argv", ["ddcore", "sets", *arguments])
    monkeypatch.setattr("ddcore.cli.commands.console", Console(width=200, markup=False, highlight=False))
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert (left.value.code or 0) == code
    said = "".join(capsys.readouterr())
    assert all(word in said for word in words)


def test_the_list_is_json_too(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ddcore", "sets", "list", "--ipc", "10", "--json"])
    with pytest.raises(SystemExit):
        cli.main()
    assert [one["id"] for one in json.loads(capsys.readouterr().out)] == [
        one.id for one in LISTED if one.ipc == 10
    ]
