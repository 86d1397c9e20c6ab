import json
import os
import subprocess
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore import compute
from ddcore.files import records
from ddcore.files.records import Record
from ddcore.lab.runner import Runner
from ddcore.settings import canonical, digest

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.floats(-9, 9) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)
SETTINGS = st.dictionaries(st.text(max_size=4), JSON, min_size=1, max_size=4)


def record_of(experiment: dict, **changed) -> Record:
    made = {"hash": digest(experiment), "preset": "smoke", "experiment": experiment, "result": {"accuracy": 50.0},
            "provenance": {"seconds": 1.0}}  # fmt: skip
    return Record(**made | changed)


def backwards(value):
    """The same value with every mapping in the opposite order."""
    if isinstance(value, dict):
        return {name: backwards(one) for name, one in reversed(value.items())}
    return [backwards(one) for one in value] if isinstance(value, list) else value


# the hash


@given(SETTINGS)
def test_digest_is_16_hexadecimal_digits_whatever_the_order_of_keys(settings):
    assert canonical(backwards(settings)) == canonical(settings)
    assert digest(backwards(settings)) == digest(settings)
    assert len(digest(settings)) == 16
    assert set(digest(settings)) <= set("0123456789abcdef")


@given(SETTINGS, st.data())
def test_any_changed_setting_changes_the_digest(settings, data):
    name = data.draw(st.sampled_from(sorted(settings)))
    value = data.draw(JSON.filter(lambda value: canonical(value) != canonical(settings[name])))
    assert digest(settings | {name: value}) != digest(settings)
    assert digest({key: one for key, one in settings.items() if key != name}) != digest(settings)


def test_digest_does_not_move():
    """Records are named by it: another canonical form would orphan them all."""
    assert digest({"seed": 0, "rate": 0.5, "names": ["a", None]}) == "36ea3bd3ef72cb84"


# written whole or not at all


def test_a_record_comes_back_as_it_was(tmp_path):
    record = record_of({"seed": 3, "dataset": "digits"})
    path = record.save(tmp_path / "new" / "folder")
    assert path.name == f"{record.hash}.json"
    assert records.read(path) == record
    assert [one.name for one in path.parent.iterdir()] == [path.name]


def test_the_same_record_is_the_same_bytes(tmp_path):
    one = record_of({"seed": 3, "dataset": "digits"}).save(tmp_path / "a").read_bytes()
    other = record_of({"dataset": "digits", "seed": 3}).save(tmp_path / "b").read_bytes()
    assert one == other


@pytest.mark.parametrize("function", ["write_text", "replace"])
@pytest.mark.parametrize("before", [False, True], ids=["new", "over an old one"])
def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch, function, before):
    record = record_of({"seed": 0})
    path = tmp_path / f"{record.hash}.json"
    if before:
        record.save(tmp_path)
    changed = record_of({"seed": 0}, result={"accuracy": 99.0})

    def fail(*arguments, **_):
        if function == "write_text":
            real(arguments[0], arguments[1][:20])  # the disk is full after 20 characters
        raise OSError(28, "No space left on device")

    owner = type(path) if function == "write_text" else os
    real = getattr(owner, function)
    with monkeypatch.context() as patch:
        patch.setattr(owner, function, fail)
        with pytest.raises(OSError, match="No space"):
            changed.save(tmp_path)
    assert path.is_file() == before
    assert records.read_all(tmp_path) == ([record] if before else [])


def test_a_process_killed_while_writing_leaves_no_record(tmp_path):
    program = (
        "import os, sys; from pathlib import Path; from ddcore.files import records; "
        "records.os.replace = lambda *paths: os._exit(9); "
        "records.Record('0' * 16, 'smoke', {}, {}, {}).save(Path(sys.argv[1]))"
    )
    assert subprocess.run([sys.executable, "-c", program, str(tmp_path)]).returncode == 9
    assert records.read_all(tmp_path) == []


# read


@pytest.mark.parametrize("keep", [0, 1, 40, 0.5, -3])
def test_a_record_cut_short_is_refused(tmp_path, refuses, keep):
    path = record_of({"seed": 0}).save(tmp_path)
    text = path.read_text(encoding="utf-8")
    path.write_text(text[: int(len(text) * keep) if isinstance(keep, float) else keep], encoding="utf-8")
    with refuses(path, "not a whole record", "remove it"):
        records.read(path)


@pytest.mark.parametrize(
    "content", ["[]", "null", "3", '"text"', "{}", '{"hash": "a"}', b"\xff\xfe{"], ids=str
)
def test_something_else_than_a_record_is_refused(tmp_path, refuses, content):
    path = tmp_path / "0123456789abcdef.json"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with refuses(path, "not a whole record"):
        records.read(path)


def test_a_record_with_more_in_it_is_refused(tmp_path, refuses):
    path = record_of({"seed": 0}).save(tmp_path)
    path.write_text(
        json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"note": "mine"}), encoding="utf-8"
    )
    with refuses(path, "note"):
        records.read(path)


def test_a_missing_record_is_refused(tmp_path, refuses):
    with refuses(tmp_path / "none.json"):
        records.read(tmp_path / "none.json")


def test_a_record_edited_by_hand_is_refused(tmp_path, refuses):
    path = record_of({"seed": 0, "steps": 10}).save(tmp_path)
    path.write_text(path.read_text(encoding="utf-8").replace('"steps": 10', '"steps": 20'), encoding="utf-8")
    with refuses(path, "changed by hand", "remove it"):
        records.read(path)


def test_a_record_under_another_name_is_refused(tmp_path, refuses):
    path = record_of({"seed": 0}).save(tmp_path)
    moved = path.rename(tmp_path / f"{digest({'seed': 1})}.json")
    with refuses(moved, digest({"seed": 0})):
        records.read(moved)


def test_read_all_is_in_the_order_of_names_and_of_records_only(tmp_path):
    for seed in range(8):
        record_of({"seed": seed}).save(tmp_path)
    (tmp_path / ".unfinished.part").write_text("{", encoding="utf-8")
    (tmp_path / ".0123456789abcdef.checkpoint.0.json").write_text("{}", encoding="utf-8")
    (tmp_path / "set.safetensors").write_text("", encoding="utf-8")
    found = [record.hash for record in records.read_all(tmp_path)]
    assert found == sorted(digest({"seed": seed}) for seed in range(8))
    assert records.read_all(tmp_path / "absent") == []


def test_a_setting_is_found_by_its_path_and_records_by_their_settings():
    one = record_of({"seed": 0, "distill": {"steps": 3}, "method": None})
    other = record_of({"seed": 1, "distill": {"steps": 4}, "method": {"name": "dm"}})
    assert (one.setting("distill.steps"), one.setting("method.name"), one.setting("seed.steps")) == (
        3,
        None,
        None,
    )
    cases = [
        ({}, [one, other]),
        ({"distill.steps": 3}, [one]),
        ({"method.name": None}, [one]),
        ({"method.name": "dm"}, [other]),
        ({"seed": [0, 1]}, [one, other]),
        ({"seed": [1, 2], "distill.steps": 3}, []),
        ({"absent": None}, [one, other]),
    ]
    for settings, expected in cases:
        assert records.matching(settings, [one, other]) == expected


# provenance


def test_provenance_says_on_what_and_with_what():
    found = records.provenance(1.23456, torch.device("cpu"))
    assert set(found) == {
        "hardware",
        "versions",
        "seconds",
        "peak_bytes",
        "commit",
        "dirty",
        "code_sha256",
        "cpu_capability",
        "chunk_bytes",
    }
    assert found["chunk_bytes"] == {kind: compute.BUDGET[kind] for kind in ("cpu", "cpu, compiled")}
    assert found["cpu_capability"] == torch.backends.cpu.get_cpu_capability()
    assert set(found["hardware"]) == {"cpu", "cores", "threads", "gpu"}
    assert set(found["versions"]) == {"torch", "torchvision", "numpy", "python"}
    assert all(found["versions"].values())
    assert found["seconds"] == 1.235
    assert 50e6 < found["peak_bytes"] < 1e12, "bytes of a process that has imported torch"
    assert found["hardware"]["cores"] >= 1
    assert found["commit"] is None or len(found["commit"]) == 40
    assert found["dirty"] in (None, True, False)
    assert (found["commit"] is None) == (found["dirty"] is None)
    assert json.loads(json.dumps(found)) == found


def test_provenance_counts_the_threads_of_its_own_run():
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            assert records.provenance(0, torch.device("cpu"))["hardware"]["threads"] == threads
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def unread():
    """What says which code runs, as it is before a process has asked."""
    records.code.cache_clear()
    yield
    records.code.cache_clear()


def test_provenance_without_git_is_unknown_and_not_an_error(monkeypatch, unread):
    monkeypatch.setenv("PATH", "")
    found = records.provenance(0.0, torch.device("cpu"))
    assert found["commit"] is found["dirty"] is None
    assert len(found["code_sha256"]) == 64


def test_the_code_of_a_run_is_what_it_began_with(tmp_path, monkeypatch, unread):
    monkeypatch.setattr(records, "TOP", tmp_path)
    monkeypatch.setattr(records, "PACKAGE", tmp_path / "ddcore")
    records.PACKAGE.mkdir()
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]

    def commit(source: str) -> None:
        (records.PACKAGE / "module.py").write_text(source, encoding="utf-8")
        for command in (["init", "-q"], ["add", "."], ["commit", "-qm", source]):
            subprocess.run([*git, *command], check=True)

    commit("a = 1")
    began = {
        "commit": records._git("rev-parse", "HEAD"),
        "dirty": False,
        "code_sha256": records.code_sha256(),
    }
    Runner("smoke")
    commit("a = 2")
    found = records.provenance(0.0, torch.device("cpu"))
    assert {name: found[name] for name in began} == began
    assert began["commit"] != records._git("rev-parse", "HEAD")
    assert began["code_sha256"] != records.code_sha256()


def test_provenance_takes_no_other_projects_commit(tmp_path, monkeypatch):
    """That of a repository in which a copy of this one, or an environment with it, lies."""
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    inside = ("rev-parse", "--is-inside-work-tree")
    monkeypatch.setattr(records, "TOP", tmp_path)
    assert records._git(*inside) == "true"
    monkeypatch.setattr(records, "TOP", tmp_path / "copy")
    records.TOP.mkdir()
    assert records._git(*inside) is None


def test_provenance_does_without_what_counts_memory(monkeypatch):
    monkeypatch.setattr(records, "resource", None)
    assert records.provenance(0.0, torch.device("cpu"))["peak_bytes"] is None


def test_code_sha256_follows_the_source(tmp_path, monkeypatch):
    (tmp_path / "module.py").write_text("a = 1\n", encoding="utf-8")
    monkeypatch.setattr(records, "PACKAGE", tmp_path)
    first = records.code_sha256()
    assert records.code_sha256() == first
    (tmp_path / "module.py").write_text("a = 2\n", encoding="utf-8")
    changed = records.code_sha256()
    (tmp_path / "module.py").rename(tmp_path / "renamed.py")
    assert len({first, changed, records.code_sha256()}) == 3
