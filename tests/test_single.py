"""`ddcore run`: an experiment from its record or from a file."""

import dataclasses
import json

import pytest

from ddcore import cli
from ddcore.files import records
from ddcore.lab import single
from ddcore.lab.experiment import Experiment
from ddcore.lab.experiment_json import of_record, to_json
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements.continual import Continual
from ddcore.lab.measurements.diversity import Diversity
from ddcore.lab.measurements.ratios import Ratios
from ddcore.lab.measurements.transfer import Transfer
from ddcore.lab.runner import Runner

DM = {"name": "dm", "width": 8, "batch_real": 8, "strategy": "none"}
QUICK = {"network": "mlp", "width": 8, "epochs": 1, "strategy": "none"}
DISTILLED = Experiment(
    "digits", 2, {"kind": "lowrank", "rank": 1}, DM, {"steps": 2}, QUICK, {"mutual_information": {"width": 8}}
)
TAUGHT = Experiment("digits", 2, {"kind": "pixels", "init": "noise"}, DM, {"steps": 1}, {
    "protocol": "relabel", "network": "convnet1-bn", "width": 8, "epochs": 1,
    "teacher": {"network": "convnet1-bn", "width": 8, "epochs": 1, "flip": False}})  # fmt: skip
SPECTRA = Measurement("spectra", "digits", {"ranks": (1, 2), "images": 20}, 1)


@pytest.fixture(scope="module")
def runner(tmp_path_factory, teachers):
    return Runner("smoke", tmp_path_factory.mktemp("records"), device="cpu")


@pytest.mark.parametrize(
    "kind",
    [
        "experiment",
        "undistilled",
        "measurement",
        "continual",
        "ratios",
        "transfer",
        "of undistilled",
        "diversity",
    ],
)
def test_a_record_names_its_experiment(runner, kind):
    undistilled = dataclasses.replace(TAUGHT, method={}, distill={})
    of = runner.run({"diversity": TAUGHT, "of undistilled": undistilled}.get(kind, DISTILLED))
    made = runner.synthetic(of) if of.experiment["method"] else undistilled.start(runner.data("digits"))
    experiment = {
        "experiment": lambda: DISTILLED, "undistilled": lambda: Experiment("digits", 1, evaluate=QUICK), "measurement": lambda: SPECTRA,
        "continual": lambda: Continual(dataclasses.replace(DISTILLED, plugins={}), 5), "ratios": lambda: Ratios(DISTILLED),
        "transfer": lambda: Transfer(of, made, {"width": 4}, "float16", True), "of undistilled": lambda: Transfer(of, made, {"epochs": 1}),
        "diversity": lambda: Diversity(of, made, 20, 3),
    }[kind]()  # fmt: skip
    record = runner.run(experiment)
    again = of_record(record, runner.folder)
    assert type(again) is type(experiment)
    assert runner.key(again) == record.hash


def run_main(monkeypatch, *arguments) -> int:
    monkeypatch.setattr("sys.argv", ["ddcore", *map(str, arguments)])
    with pytest.raises(SystemExit) as left:
        cli.main()
    return left.value.code or 0


def test_an_experiment_is_computed_again_and_compared(runner, tmp_path, monkeypatch, capsys):
    record = runner.run(SPECTRA)
    assert run_main(monkeypatch, "run", record.hash, "--records", runner.folder, "--out", tmp_path) == 0
    assert "the same result as recorded" in capsys.readouterr().out
    assert records.read(tmp_path / f"{record.hash}.json").result == record.result
    other = dataclasses.replace(record, result={"rows": []})
    assert single.compared(record, other) == "recorded was another result, in rows"
    assert "another hash" in single.compared(record, dataclasses.replace(record, hash="0" * 16))


def test_an_experiment_comes_from_a_file_too(runner, tmp_path, monkeypatch, capsys):
    file = tmp_path / "experiment.json"
    file.write_text(json.dumps(to_json(SPECTRA)), encoding="utf-8")
    assert run_main(monkeypatch, "run", file, "--out", tmp_path / "out", "--json") == 0
    assert json.loads(capsys.readouterr().out)["hash"] == runner.key(SPECTRA)


@pytest.mark.parametrize(
    ("what", "words"),
    [
        ("0123456789abcdef", ("0123456789abcdef", "--records")),
        ("absent.json", ("absent.json", "16 hexadecimal digits")),
        ("list.json", ("kind",)),
        ("broken.json", ("broken.json", "JSON")),
    ],
)
def test_what_names_no_experiment_is_refused(tmp_path, monkeypatch, refuses, what, words):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.json").write_text("[]", encoding="utf-8")
    (tmp_path / "broken.json").write_text("{", encoding="utf-8")
    with refuses(*words):
        single.find(what, tmp_path)
