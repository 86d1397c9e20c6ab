import dataclasses
import functools
import io
import math
import signal
import statistics
import threading
import time
import warnings

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

import ddcore
from ddcore import augment, distillation, figures, networks
from ddcore.data.digits import read as read_digits
from ddcore.errors import Diverged
from ddcore.evaluation import coresets, protocol
from ddcore.files import records
from ddcore.lab import batch, measurement
from ddcore.lab import experiment as experiments
from ddcore.lab import study as studies
from ddcore.lab.experiment import BASELINES, Experiment, grid
from ddcore.lab.measurement import Measurement
from ddcore.lab.measurements import spectra as measurements
from ddcore.lab.measurements.gradient_ratios import gradient_ratios
from ddcore.lab.measurements.ratios import Ratios
from ddcore.lab.runner import Runner
from ddcore.lab.study import Study
from ddcore.lab.tables import method_name, table
from ddcore.lab.tables import rows as table_of_rows
from ddcore.methods import DM
from ddcore.settings import digest, merge, stated
from ddcore.synthetic import LowRank, Pixels

QUICK = {
    "dataset": "digits",
    "budget_ipc": 1,
    "evaluate": {"network": "mlp", "width": 8, "epochs": 2, "strategy": "none"},
}
DISTILLED = merge(QUICK, {"synthetic": {"kind": "lowrank", "rank": 1}, "distill": {"steps": 4, "lr_img": 10.0},
                          "method": {"name": "dm", "width": 8, "batch_real": 8, "strategy": "crop_scale"}})  # fmt: skip
SPECTRA = Measurement("spectra", "digits", {"ranks": [1, 2], "images": 20})


def made(*parts) -> Experiment:
    return grid(merge(QUICK, *parts), [{}], [0])[0]


@pytest.fixture
def runner(tmp_path) -> Runner:
    return Runner("smoke", tmp_path / "records", device="cpu")


@pytest.fixture
def no_computing(monkeypatch):
    """From now on, whatever trains or measures raises."""

    def forbid():
        def computed(*arguments, **keywords):
            raise AssertionError("computed again")

        monkeypatch.setattr(experiments, "distill", computed)
        monkeypatch.setattr(experiments, "evaluate", computed)
        monkeypatch.setitem(measurement.MEASUREMENTS, "spectra", keep_signature(computed))

    def keep_signature(function):
        function.__wrapped__, function.version = measurements.spectra, measurements.spectra.version
        return function

    return forbid


# an experiment is frozen and validated


def test_an_experiment_is_frozen_through_and_through():
    given_settings = {"kind": "lowrank", "rank": 1}
    inner = {"epochs": 3}
    experiment = Experiment("digits", 1, synthetic=given_settings)
    method = {"name": "mtt", "experts": inner, "max_start_epoch": 1, "expert_epochs": 1}
    nested = Experiment(
        "digits", 1, synthetic={"kind": "pixels", "step": 0.1}, method=method, distill={"steps": 1}
    )
    before, said = experiment.resolved(), nested.resolved()
    inner["epochs"] = 4
    assert nested.resolved() == said
    with pytest.raises(dataclasses.FrozenInstanceError):
        experiment.seed = 1
    with pytest.raises(TypeError):
        experiment.synthetic["rank"] = 2
    given_settings["rank"] = 2
    experiment.resolved()["synthetic"]["rank"] = 2
    assert experiment.resolved() == before
    measurement = Measurement("spectra", "digits", {"ranks": [1], "images": 20})
    with pytest.raises(TypeError):
        measurement.settings["images"] = 2
    assert dataclasses.replace(experiment, seed=1).seed == 1


@pytest.mark.parametrize(("changed", "words"), [
    ({"budget": 3}, ("budget", "budget_ipc")),
    ({"budget_ipc": 0}, ("budget_ipc=0", "above 0")),
    ({"budget_ipc": "1"}, ("budget_ipc='1'", "int")),
    ({"budget_ipc": True}, ("budget_ipc=True", "int")),
    ({"dataset": 3}, ("dataset=3", "str")),
    ({"seed": 0.5}, ("seed=0.5", "int")),
    ({"holdout": 1.5}, ("holdout=1.5",)),
    ({"holdout": -0.1}, ("holdout=-0.1",)),
    ({"synthetic": {"kind": "pixel"}}, ("'pixel'", "did you mean 'pixels'")),
    ({"synthetic": {}}, ("kind of synthetic set", "lowrank")),
    ({"synthetic": {"kind": "pixels", "rank": 2}}, ("pixels", "'rank'")),
    ({"synthetic": {"kind": "pixels", "init": "svd"}}, ("'svd'", "noise, real")),
    ({"synthetic": {"kind": "lowrank"}}, ("lowrank", "'rank' is missing")),
    ({"synthetic": {"kind": "lowrank", "rank": 1.0}}, ("rank=1.0", "int")),
    ({"synthetic": {"kind": "lowrank", "rank": 1, "seed": 3}}, ("'seed'",)),
    ({"synthetic": {"kind": "herding", "rank": 1}}, ("herding", "'rank'")),
    ({"synthetic": {"kind": "random"}}, ("'random'",)),
    ({"method": {"name": "dmm"}, "distill": {"steps": 1}}, ("'dmm'", "did you mean 'dm'")),
    ({"method": {"width": 8}, "distill": {"steps": 1}}, ("method",)),
    ({"method": {"name": "dm", "batch": 8}, "distill": {"steps": 1}}, ("method dm", "'batch'", "batch_real")),
    ({"method": {"name": "dm", "batch_real": 0}, "distill": {"steps": 1}}, ("batch_real=0",)),
    ({"method": {"name": "dm", "strategy": "crop_flop"}, "distill": {"steps": 1}}, ("'flop'", "flip")),
    ({"method": {"name": "dm", "precision": "float16"}, "distill": {"steps": 1}}, ("'float16'",)),
    ({"method": {"name": "dm"}}, ("distill", "'steps' is missing")),
    ({"synthetic": {"kind": "whole"}, "method": {"name": "dm"}, "distill": {"steps": 1}}, ("'whole'", "leave the method out")),
    ({"method": {"name": "dm"}, "distill": {"steps": 1, "momentum": 1.0}}, ("momentum=1.0",)),
    ({"method": {"name": "dm"}, "distill": {"steps": 0}}, ("steps=0",)),
    ({"method": {"name": "dm"}, "distill": {"steps": 1.0}}, ("steps=1.0", "int")),
    ({"method": {"name": "dm"}, "distill": {"steps": 1, "lr": 1.0}}, ("distill", "'lr'", "lr_img")),
    ({"method": {"name": "dm"}, "distill": {"steps": 1, "lr_img": "1"}}, ("lr_img='1'", "float")),
    ({"distill": {"steps": 1}}, ("without a method",)),
    ({"plugins": {"mutual_information": {}}}, ("without a method",)),
    ({"method": {"name": "dm"}, "distill": {"steps": 1}, "plugins": {"mutual_info": {}}}, ("'mutual_info'", "did you mean")),
    ({"method": {"name": "dm"}, "distill": {"steps": 1}, "plugins": {"mutual_information": 0.1}}, ("mutual_information=0.1", "Mapping")),
    ({"method": {"name": "dm"}, "distill": {"steps": 1}, "plugins": {"mutual_information": {"tau": 1}}}, ("'tau'", "temperature")),
    ({"evaluate": {"epoch": 3}}, ("evaluate", "'epoch'", "did you mean 'epochs'")),
    ({"evaluate": {"epochs": 0}}, ("epochs=0",)),
    ({"evaluate": {"networks": 0}}, ("networks=0",)),
    ({"evaluate": {"networks": "3"}}, ("networks='3'",)),
    ({"evaluate": {"lr": None}}, ("lr=None",)),
], ids=str)  # fmt: skip
def test_a_bad_setting_is_refused_when_the_experiment_is_made(refuses, changed, words):
    settings = {"dataset": "digits", "budget_ipc": 1} | changed
    with refuses(*words):
        grid({}, [settings], [settings.get("seed", 0)])
    if "budget" not in changed:
        with refuses(*words):
            Experiment(**settings)


@pytest.mark.parametrize(("arguments", "words"), [
    (("spectrum", "digits"), ("'spectrum'", "did you mean 'spectra'")),
    (("spectra", "digits", {"ranks": [1]}), ("spectra", "'images' is missing")),
    (("spectra", "digits", {"ranks": [1], "images": 2, "draws": 3}), ("spectra", "'draws'")),
    (("spectra", "digits", {"ranks": 1, "images": 2}), ("ranks=1",)),
    (("spectra", "digits", {"ranks": [1], "images": "2"}), ("images='2'", "int")),
    (("spectra", "digits", {"ranks": [1], "images": 2, "seed": 3}), ("'seed'",)),
    (("spectra", "digits", {"ranks": [1], "images": 2}, "0"), ("seed='0'",)),
], ids=str)  # fmt: skip
def test_a_bad_measurement_is_refused_when_it_is_made(refuses, arguments, words):
    with refuses(*words):
        Measurement(*arguments)


def test_resolved_holds_every_default():
    found = made(
        {"synthetic": {"kind": "lowrank", "rank": 1}, "method": {"name": "dm"}, "distill": {"steps": 3}}
    ).resolved()
    assert set(found) == {field.name for field in dataclasses.fields(Experiment)} - {"plugins"}, (
        "which came later, and is stated if given"
    )
    assert found["synthetic"] == {"kind": "lowrank", "rank": 1, "init": "noise"}
    assert found["method"] == {"name": "dm", **stated(DM())}
    assert found["distill"] == {"steps": 3, "lr_img": 1.0, "momentum": 0.5}
    assert found["evaluate"] == {"networks": 1, **dataclasses.asdict(ddcore.Protocol(**QUICK["evaluate"]))}
    bare = Experiment("digits", 1).resolved()
    assert bare["synthetic"] == {"kind": "pixels", "init": "real"}
    assert bare["method"] == bare["distill"] == {}


# the hash


@pytest.mark.parametrize("changed", [
    {"synthetic": {"init": "noise"}}, {"method": {"network": "convnet"}}, {"method": {"width": 8}}, {"distill": {"momentum": 0.5}},
    {"distill": {"lr_img": 10}}, {"evaluate": {"networks": 1}}, {"evaluate": {"lr": 0.01}}, {"holdout": 0}, {"seed": 0},
], ids=str)  # fmt: skip
def test_a_default_given_has_the_hash_of_a_default_left_out(runner, changed):
    assert runner.key(grid(merge(DISTILLED, changed), [{}], [0])[0]) == runner.key(
        grid(DISTILLED, [{}], [0])[0]
    )
    assert runner.key(Experiment("digits", 1)) == runner.key(
        Experiment("digits", 1, {"kind": "pixels", "init": "real"})
    )


@pytest.mark.parametrize("changed", [
    {"dataset": "{npz}"}, {"budget_ipc": 2}, {"synthetic": {"rank": 2}}, {"synthetic": {"init": "svd"}}, {"method": {"width": 9}},
    {"method": {"batch_real": 9}}, {"method": {"precision": "bfloat16"}}, {"distill": {"steps": 5}}, {"distill": {"lr_img": 1.0}},
    {"distill": {"momentum": 0.4}}, {"evaluate": {"epochs": 3}}, {"evaluate": {"networks": 2}}, {"evaluate": {"at_once": 1}},
    {"holdout": 0.1}, {"holdout": 0.2}, {"seed": 1}, {"plugins": {"mutual_information": {}}},
], ids=str)  # fmt: skip
def test_any_changed_setting_has_another_hash(runner, tmp_path, changed):
    if "dataset" in changed:
        changed = {"dataset": str(one_pixel_brighter(tmp_path / "digits.npz"))}
    seed = changed.get("seed", 0)
    assert runner.key(grid(merge(DISTILLED, changed), [{}], [seed])[0]) != runner.key(
        grid(DISTILLED, [{}], [0])[0]
    )


def one_pixel_brighter(path):
    arrays = read_digits()
    arrays["x_test"] = arrays["x_test"].copy()
    arrays["x_test"][0, 0, 0, 0] ^= 1
    np.savez(path, **arrays)
    return path


def test_the_content_of_the_data_is_in_the_hash_and_its_place_is_not_in_its_sha256(runner, tmp_path):
    key = runner.data("digits").sha256
    assert runner.data(str(one_pixel_brighter(tmp_path / "digits.npz"))).sha256 != key
    assert runner.data("digits", 0.1).sha256 not in (key, runner.data("digits", 0.2).sha256)


USERS = {
    (augment, "VERSION"): {"dm", "mim", "lowrank", "pixels", "herding"},
    (networks, "VERSION"): {"dm", "mim", "lowrank", "pixels", "herding"},
    (experiments, "EVALUATE_VERSION"): {"dm", "mim", "lowrank", "pixels", "herding"},
    (experiments, "DISTILL_VERSION"): {"dm", "mim"},
    (DM, "version"): {"dm", "mim"},
    (ddcore.MutualInformation, "version"): {"mim"},
    (LowRank, "version"): {"dm", "mim", "lowrank"},
    (Pixels, "version"): {"pixels"},
    (coresets, "VERSION"): {"herding"},
    (measurements.spectra, "version"): {"spectra"},
    (measurements.gradient_geometry, "version"): {"gradient_geometry"},
}


@pytest.mark.parametrize(("component", "users"), USERS.items(), ids=[owner.__name__ for owner, _ in USERS])
def test_a_bumped_version_changes_the_hash_of_those_that_use_it_and_of_no_others(
    runner, monkeypatch, component, users
):
    some = {
        "dm": grid(DISTILLED, [{}], [0])[0],
        "lowrank": made({"synthetic": {"kind": "lowrank", "rank": 1}}),
        "pixels": made(),
        "mim": grid(DISTILLED, [{"plugins": {"mutual_information": {"width": 8}}}], [0])[0],
        "herding": made({"synthetic": {"kind": "herding"}}),
        "spectra": SPECTRA,
        "gradient_geometry": Measurement("gradient_geometry", "digits", {"ranks": [1], "draws": 2}),
    }
    before = {name: runner.key(one) for name, one in some.items()}
    monkeypatch.setattr(*component, 1000)
    assert {name for name, one in some.items() if runner.key(one) != before[name]} == users


def test_the_versions_that_the_hash_covers_are_those_of_the_modules():
    assert distillation.VERSION == experiments.DISTILL_VERSION
    assert protocol.VERSION == experiments.EVALUATE_VERSION


# running


def test_a_present_record_is_read_and_nothing_is_computed(runner, no_computing):
    wanted = [grid(DISTILLED, [{}], [0])[0], made({"synthetic": {"kind": "svd"}}), SPECTRA]
    found = runner.run_all(wanted)
    files = {path: path.read_bytes() for path in runner.folder.iterdir()}
    assert len([path for path in files if path.suffix == ".safetensors"]) == 1
    no_computing()
    again = Runner("smoke", runner.folder, device="cpu").run_all(wanted)
    assert again == [records.read(runner.folder / f"{one.hash}.json") for one in found]
    assert {path: path.read_bytes() for path in runner.folder.iterdir()} == files
    with pytest.raises(AssertionError, match="computed again"):
        runner.run(made({"seed": 0, "budget_ipc": 2}))


def test_a_record_says_what_was_run_and_what_came_out(runner, digits):
    experiment = made({"evaluate": {"networks": 3}}, {"budget_ipc": 2})
    record = runner.run(experiment)
    assert record.hash == runner.key(experiment) == digest(record.experiment)
    assert {name: record.experiment[name] for name in experiment.resolved()} == experiment.resolved()
    assert record.experiment["data_sha256"] == digits.sha256
    assert record.result["images_per_class"] == 2
    assert record.result["stored_numbers"] == 2 * 10 * 64
    assert len(record.result["scores"]) == 3
    assert record.result["accuracy"] == pytest.approx(statistics.mean(record.result["scores"]), abs=1e-4)
    assert record.provenance["seconds"] >= record.result["evaluate_seconds"]
    assert "losses" not in record.result


def test_a_record_with_a_plugin_holds_its_losses_and_the_ratio_of_the_gradients(runner, digits):
    how = {"weight": 0.3, "width": 8}
    record = runner.run(grid(DISTILLED, [{"plugins": {"mutual_information": how}}], [0])[0])
    syn, plugin = LowRank(digits, 1, rank=1, seed=0), ddcore.MutualInformation(**how)
    method = DM(width=8, batch_real=8, strategy="crop_scale")
    trace = ddcore.distill(digits, syn, method, plugins=[plugin], steps=4, lr_img=10.0, seed=0)
    assert record.result["losses"] == [round(loss, 6) for loss in trace.losses]
    assert record.result["gradient_ratios"] == {
        "mutual_information": gradient_ratios(
            digits, LowRank(digits, 1, rank=1, seed=0), method, [plugin], seed=0
        )[0]
    }
    assert record.experiment["plugins"]["mutual_information"] == dataclasses.asdict(plugin)


def test_ratios_are_kept_as_a_record_of_their_own(runner, digits, monkeypatch):
    """Those that a run of the experiment records; a second asking reads them, another weight asks anew."""
    one, other = grid(
        DISTILLED,
        [{"plugins": {"mutual_information": {"weight": weight, "width": 8}}} for weight in (0.3, 0.6)],
        [0],
    )
    asked, ran = runner.run(Ratios(one)), runner.run(one)
    assert asked.result["rows"] == [
        {"plugin": name, "ratio": ratio} for name, ratio in ran.result["gradient_ratios"].items()
    ]
    assert asked.hash != ran.hash
    assert runner.run(Ratios(other)).result["rows"][0]["ratio"] == pytest.approx(
        2 * asked.result["rows"][0]["ratio"], rel=1e-3
    )
    monkeypatch.setattr(Experiment, "gradient_ratios", None)
    assert runner.run(Ratios(one)) == asked


def test_a_record_of_a_distilled_set_holds_its_losses(runner, digits):
    record = runner.run(grid(DISTILLED, [{}], [0])[0])
    syn = LowRank(digits, 1, rank=1, seed=0)
    trace = ddcore.distill(
        digits, syn, DM(width=8, batch_real=8, strategy="crop_scale"), steps=4, lr_img=10.0, seed=0
    )
    assert record.result["losses_every"] == 1
    assert record.result["losses"] == [round(loss, 6) for loss in trace.losses]
    assert torch.equal(runner.synthetic(record).images(), syn.images())


def test_networks_of_several_seeds_are_other_networks(runner):
    first, second = (
        runner.run(grid(merge(QUICK, {"evaluate": {"networks": 2}}), [{}], [seed])[0]) for seed in (0, 1)
    )
    assert len({*first.result["scores"], *second.result["scores"]}) > 2


def test_without_a_folder_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    runner = Runner("smoke", device="cpu")
    record = runner.run(grid(DISTILLED, [{}], [0])[0])
    assert runner.synthetic(record).per_class == 4
    assert list(tmp_path.iterdir()) == []


def test_the_set_of_a_record_is_the_same_from_memory_and_from_file(runner):
    record = runner.run(grid(DISTILLED, [{}], [0])[0])
    memory, file = runner.synthetic(record), Runner("smoke", runner.folder, device="cpu").synthetic(record)
    assert memory is not file
    assert torch.equal(memory.images(), file.images())
    assert torch.equal(memory.labels, file.labels)
    assert memory.settings == file.settings
    assert type(memory) is type(file)


@pytest.mark.parametrize("folder", [True, False])
def test_there_is_no_distilled_set_of_a_record_that_distilled_none(tmp_path, refuses, folder):
    runner = Runner("smoke", tmp_path if folder else None, device="cpu")
    record = runner.run(made())
    with refuses(record.hash, "no distilled set"):
        runner.synthetic(record)


def flipped(path, at: float) -> None:
    """One bit of the byte at that part of the file."""
    found = bytearray(path.read_bytes())
    found[int(at * (len(found) - 1))] ^= 1
    path.write_bytes(found)


def cut(path, at: float) -> None:
    path.write_bytes(path.read_bytes()[: int(at * path.stat().st_size)])


def numbers(record) -> dict:
    return {name: value for name, value in record.result.items() if not name.endswith("_seconds")}


@pytest.mark.parametrize("at", [0.2, 0.95])
@pytest.mark.parametrize("form", ["json", "safetensors"])
@pytest.mark.parametrize("breaks", [flipped, cut], ids=lambda one: one.__name__)
def test_a_broken_record_or_set_is_set_aside_and_made_again(runner, breaks, form, at):
    experiment = grid(DISTILLED, [{}], [0])[0]
    record = runner.run(experiment)
    path, file = runner.folder / f"{record.hash}.{form}", runner.folder / f"{record.hash}.safetensors"
    whole_set = file.read_bytes()
    breaks(path, at)
    with pytest.warns(UserWarning, match="moved to broken/ and computed again"):
        again = runner.run(experiment)
    assert numbers(again) == numbers(record)
    assert file.read_bytes() == whole_set
    assert records.read(runner.folder / f"{record.hash}.json") == again
    assert {path.name for path in (runner.folder / "broken").iterdir()} == {
        f"{record.hash}.json",
        f"{record.hash}.safetensors",
    }


def test_a_record_of_before_there_were_checksums_is_read(runner):
    record = runner.run(made())
    old = dataclasses.replace(
        record, provenance={name: value for name, value in record.provenance.items() if "sha256" not in name}
    )
    old.save(runner.folder)
    assert runner.run(made()) == old


@pytest.mark.parametrize("at", [0.3, 0.95])
@pytest.mark.parametrize("breaks", [flipped, cut], ids=lambda one: one.__name__)
@pytest.mark.parametrize("what", ["", ".safetensors", ".result.json", ".seconds"])
def test_a_broken_checkpoint_is_set_aside_and_the_experiment_begins_anew(
    tmp_path, monkeypatch, what, breaks, at
):
    """Of an unfinished distillation, or of an unfinished evaluation."""
    experiment = grid(DISTILLED, [{}], [0])[0]
    expected = Runner("smoke", tmp_path / "whole", device="cpu").run(experiment)
    runner = Runner("smoke", tmp_path / "left", device="cpu")
    left = runner.folder / f".{expected.hash}.checkpoint{what}"

    def stop(*arguments, **keywords):
        raise KeyboardInterrupt

    original = experiments.distill

    def stopped(*arguments, **keywords):
        original(
            *arguments,
            **keywords | {"every_seconds": 0, "progress": lambda step, loss: stop() if step == 3 else None},
        )

    with monkeypatch.context() as patch:
        patch.setattr(
            experiments,
            "distill" if what in ("", ".seconds") else "evaluate",
            stopped if what in ("", ".seconds") else stop,
        )
        with pytest.raises(KeyboardInterrupt):
            runner.run(experiment)
    breaks(left, at)
    with (
        warnings.catch_warnings()
        if what == ".seconds"
        else pytest.warns(UserWarning, match="the experiment begins anew")
    ):
        found = runner.run(experiment)
    assert numbers(found) == numbers(expected)
    if what != ".seconds":
        assert left.name in {path.name for path in (runner.folder / "broken").iterdir()}
    assert {path.name for path in runner.folder.iterdir()} - {"broken"} == {
        f"{found.hash}.json",
        f"{found.hash}.safetensors",
    }


@pytest.mark.parametrize("where", ["", "records", "deeper/records"])
def test_smoke_records_are_refused_under_figures(refuses, where):
    with refuses("smoke", "figures"):
        Runner("smoke", figures.FOLDER / where)
    assert Runner("laptop", figures.FOLDER / where).folder == figures.FOLDER / where


def test_an_interrupted_run_goes_on_and_its_record_is_that_of_an_uninterrupted_one(tmp_path, monkeypatch):
    experiment = grid(DISTILLED, [{}], [0])[0]
    whole = Runner("smoke", tmp_path / "whole", device="cpu")
    expected = whole.run(experiment)
    broken = Runner("smoke", tmp_path / "broken", device="cpu")
    checkpoint = broken.folder / f".{expected.hash}.checkpoint"

    class Stopping(DM):
        def matches(self, *arguments, **keywords):
            for match in super().matches(*arguments, **keywords):
                if match.step == 2:
                    signal.raise_signal(signal.SIGINT)
                yield match

    Stopping.__name__, Stopping.__qualname__ = DM.__name__, DM.__qualname__
    with monkeypatch.context() as patch:
        patch.setitem(experiments.METHODS, "dm", Stopping)
        with pytest.raises(ddcore.Interrupted, match="after step 3 of 4"):
            broken.run(experiment)
    assert checkpoint.is_file()
    assert records.read_all(broken.folder) == []
    resumed = []
    original = experiments.distill
    monkeypatch.setattr(
        experiments, "distill", lambda *some, **more: resumed.append(original(*some, **more)) or resumed[0]
    )
    found = Runner("smoke", broken.folder, device="cpu").run(experiment)
    assert resumed[0].resumed == 3
    assert not checkpoint.exists()
    for name in ("losses", "scores", "accuracy", "stored_numbers"):
        assert found.result[name] == expected.result[name]
    left, right = (runner.folder / f"{found.hash}.safetensors" for runner in (broken, whole))
    assert left.read_bytes() == right.read_bytes()


def test_what_is_distilled_outlives_an_interrupted_evaluation(tmp_path, monkeypatch):
    experiment = grid(DISTILLED, [{}], [0])[0]
    expected = Runner("smoke", tmp_path / "whole", device="cpu").run(experiment)
    broken = Runner("smoke", tmp_path / "broken", device="cpu")

    def stop(*arguments, **keywords):
        time.sleep(0.2)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(experiments, "evaluate", stop)
        with pytest.raises(KeyboardInterrupt):
            broken.run(experiment)
    monkeypatch.setattr(experiments, "distill", lambda *some, **more: pytest.fail("distilled again"))
    found = broken.run(experiment)
    assert found.provenance["seconds"] > 0.2
    assert {**found.result, "evaluate_seconds": 0, "distill_seconds": 0} == {
        **expected.result,
        "evaluate_seconds": 0,
        "distill_seconds": 0,
    }
    assert {path.name for path in broken.folder.iterdir()} == {
        f"{found.hash}.json",
        f"{found.hash}.safetensors",
    }
    assert (broken.folder / f"{found.hash}.safetensors").read_bytes() == (
        tmp_path / "whole" / f"{found.hash}.safetensors"
    ).read_bytes()


def test_a_holdout_experiment_never_sees_the_test_set(tmp_path, digits):
    """The same training set beside another test set (all zeros, label 0) gives the same distilled bytes and scores."""
    experiment = grid(merge(DISTILLED, {"holdout": 0.2}), [{}], [0])[0]
    results = []
    for blind in (False, True):
        arrays = read_digits()
        if blind:
            arrays |= {"x_test": np.zeros_like(arrays["x_test"]), "y_test": np.zeros_like(arrays["y_test"])}
        np.savez(tmp_path / "data.npz", **arrays)
        runner = Runner("smoke", device="cpu")
        record = runner.run(dataclasses.replace(experiment, dataset=str(tmp_path / "data.npz")))
        results.append(
            (record.result["losses"], record.result["scores"], runner.synthetic(record).images().tolist())
        )
    assert results[0] == results[1]


def test_a_holdout_is_a_part_of_the_training_set(runner, digits):
    held = runner.data("digits", 0.2)
    assert len(held.x_train) + len(held.x_test) == len(digits.x_train)
    train = {tuple(image.flatten().tolist()) for image in digits.x_train}
    test = {tuple(image.flatten().tolist()) for image in digits.x_test} - train
    seen = {tuple(image.flatten().tolist()) for image in torch.cat([held.x_train[:], held.x_test[:]])}
    assert seen == train
    assert not seen & test
    assert runner.data("digits", 0.2) is held


def test_measurements_are_records_too(runner, digits):
    record = runner.run(SPECTRA)
    assert record.result["rows"] == measurements.spectra(digits, seed=0, ranks=[1, 2], images=20)
    assert record.experiment["measurement"] == "spectra"
    assert record.experiment["settings"] == {"ranks": [1, 2], "images": 20}
    assert runner.key(Measurement("spectra", "digits", {"ranks": (1, 2), "images": 20})) == record.hash
    assert (
        runner.key(Measurement("spectra", "digits", {"ranks": [1, 2], "images": 20}, seed=1)) != record.hash
    )
    both = table_of_rows([record, runner.run(dataclasses.replace(SPECTRA, seed=1))])
    assert list(both.seed.unique()) == [0, 1]
    assert set(both.dataset) == {"digits"}
    assert len(both) == 2 * 11 * 2


def test_run_all_keeps_the_order_and_reports_each(tmp_path):
    lines = []
    runner = Runner("smoke", tmp_path, device="cpu", report=lines.append)
    wanted = [made(), SPECTRA, made({"budget_ipc": 2})]
    found = runner.run_all(wanted)
    assert [record.hash for record in found] == [runner.key(one) for one in wanted]
    assert [line.split()[:2] for line in lines] == [
        [f"{number}/3", record.hash] for number, record in enumerate(found, 1)
    ]
    assert f"{found[0].result['accuracy']:.2f} %" in lines[0]
    assert "%" not in lines[1]


def test_records_may_come_in_any_order_from_another_executor(tmp_path):
    lines = []

    class Backwards:
        def records(self, runner, experiments):
            for place in reversed(range(len(experiments))):
                yield place, runner.run(experiments[place])

    runner = Runner("smoke", tmp_path, device="cpu", report=lines.append, executor=Backwards())
    wanted = [made(), SPECTRA, made({"budget_ipc": 2})]
    found = runner.run_all(wanted)
    assert [record.hash for record in found] == [runner.key(one) for one in wanted]
    assert [line.split()[:2] for line in lines] == [
        [f"{number}/3", record.hash] for number, record in enumerate(reversed(found), 1)
    ]


def test_two_that_want_one_record_compute_it_once(tmp_path, monkeypatch):
    """Two runners, as two processes would be: the second waits, and reads what the first made."""
    computed, begun = [], threading.Event()
    original = Experiment.make

    def slow(self, *arguments):
        computed.append(self)
        begun.set()
        time.sleep(0.3)
        return original(self, *arguments)

    monkeypatch.setattr(Experiment, "make", slow)
    found = []
    first = threading.Thread(target=lambda: found.append(Runner("smoke", tmp_path, device="cpu").run(made())))
    first.start()
    begun.wait(60)
    found.append(Runner("smoke", tmp_path, device="cpu").run(made()))
    first.join()
    assert found[0] == found[1]
    assert len(computed) == 1
    assert [path.name for path in tmp_path.iterdir()] == [f"{found[0].hash}.json"]


# plans and tables


@given(
    st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True),
    st.lists(st.integers(1, 9), min_size=1, max_size=4, unique=True),
)
def test_a_grid_has_the_seeds_outermost(seeds, budgets):
    found = grid(QUICK, [{"budget_ipc": budget} for budget in budgets], seeds)
    assert [(one.seed, one.budget_ipc) for one in found] == [
        (seed, budget) for seed in seeds for budget in budgets
    ]
    assert grid(QUICK, iter([{"budget_ipc": budget} for budget in budgets]), iter(seeds)) == found


def test_merge_is_deep_and_the_later_one_wins():
    first, second = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3, "z": {"w": 4}}, "c": 5}
    assert merge(first, second) == {"a": {"x": 1, "y": 3, "z": {"w": 4}}, "b": 1, "c": 5}
    merge(first, second)["a"]["x"] = 9
    assert first == {"a": {"x": 1, "y": 2}, "b": 1}
    assert merge() == {}
    assert merge({"a": 1}, {"a": {"x": 2}}) == {"a": {"x": 2}}
    assert merge({"a": {"x": 2}}, {"a": 1}) == {"a": 1}


def record_of(seed, accuracy, per_class=1):
    return records.Record(f"{seed}{accuracy}", "smoke", {"seed": seed, "budget_ipc": per_class},
                          {"accuracy": accuracy, "images_per_class": per_class, "stored_numbers": 640 * per_class}, {})  # fmt: skip


def test_table_has_a_row_a_record():
    frame = table(
        [record_of(0, 51.0), record_of(1, 54.0, 2)],
        ipc=lambda r: r.experiment["budget_ipc"],
        word=lambda r: "DM",
    )
    assert frame.to_dict("records") == [
        {
            "ipc": 1,
            "word": "DM",
            "seed": 0,
            "accuracy": 51.0,
            "images_per_class": 1,
            "stored_numbers": 640,
            "record": "051.0",
        },
        {
            "ipc": 2,
            "word": "DM",
            "seed": 1,
            "accuracy": 54.0,
            "images_per_class": 2,
            "stored_numbers": 1280,
            "record": "154.0",
        },
    ]


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({"synthetic": {"kind": "pixels"}}, "random"),
        ({"synthetic": {"kind": "lowrank"}}, "SVD"),
        ({"synthetic": {"kind": "herding"}}, "herding"),
        ({"synthetic": {"kind": "pixels"}, "method": {"name": "dm"}}, "DM"),
        ({"synthetic": {"kind": "lowrank"}, "method": {"name": "mtt"}}, "LoMTT"),
    ],
)
def test_a_set_is_called_by_its_method_and_what_is_stored(settings, name):
    record = records.Record(
        "0",
        "smoke",
        {"seed": 3} | settings,
        {"accuracy": 50.0, "images_per_class": 1, "stored_numbers": 64},
        {},
    )
    assert method_name(record) == name
    (row,) = table([record], method=method_name, kind="synthetic.kind", rank="synthetic.rank").to_dict(
        "records"
    )
    assert (row["method"], row["kind"], row["rank"], row["seed"]) == (
        name,
        settings["synthetic"]["kind"],
        None,
        3,
    )


@pytest.mark.parametrize(
    ("found", "across", "printed"),
    [
        (
            {"ipc": [1, 10], "mean": [71.12, 80.0], "sd": [0.84, math.nan], "n": [3, 1]},
            "",
            "mean ± sd, n = 1 or 3\n ipc  mean ± sd\n   1 71.1 ± 0.8\n  10       80.0\n",
        ),
        (
            {"arm": ["b", "a"], "ipc": [1, 1], "mean": [1.0, 2.0], "sd": [0.5, 0.25], "n": [2, 2]},
            "arm",
            "mean ± sd, n = 2\n ipc         b         a\n   1 1.0 ± 0.5 2.0 ± 0.2\n",
        ),
        (
            {"ipc": [1], "difference": ["b - a"], "mean": [4.3], "half": [2.2], "n": [3]},
            "difference",
            "mean difference ± 95 % CI, n = 3\n ipc      b - a\n   1 +4.3 ± 2.2\n",
        ),
    ],
)
def test_a_table_shows_the_mean_with_its_spread_and_a_difference_with_its_interval(
    capsys, found, across, printed
):
    studies.show(pd.DataFrame(found), across)
    assert capsys.readouterr().out == printed


# the study of a notebook


def study(**changed):
    given = {"preset": "smoke", "seeds": [0], "device": "cpu", "out": ""}
    return Study("11_low_rank_condensation", **given | changed)


def test_a_study_takes_its_numbers_from_the_preset_and_what_is_given(tmp_path):
    found = study(out=str(tmp_path), steps=7, dataset=None)
    assert found.settings["steps"] == 7
    assert found.settings["dataset"] == "digits"
    assert found.runner.folder == tmp_path / "records"
    assert "steps            7" in str(found)
    assert study().runner.folder is study().figures is None
    assert study(preset="laptop", seeds=None).figures == figures.FOLDER
    assert study(preset="laptop", seeds=None).runner.folder == figures.FOLDER / "records"


@pytest.mark.parametrize("preset", ["smoke", "laptop", "desk", "paper"])
def test_where_out_names_a_folder_all_files_go_there(tmp_path, preset):
    found = study(preset=preset, out=str(tmp_path), steps=7, seeds=[4])
    assert found.figures == tmp_path / "figures"
    assert found.runner.folder == tmp_path / "records"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"steps": 7}, ("steps=7 in place of the laptop preset's", "name another folder in out")),
        ({"dataset": "digits"}, ("dataset='digits'",)),
        ({"seeds": [0]}, ("1 seed,", "lodc-same-memory promises 3", "in out")),
        ({"batch_real": 8, "seeds": [0]}, ("batch_real=8",)),
    ],
)
def test_figures_takes_a_preset_as_it_is_and_that_is_said_before_anything_runs(refuses, changed, words):
    with refuses("11_low_rank_condensation", "figures/", *words):
        study(preset="laptop", **{"seeds": None} | changed)


def test_a_checkout_that_takes_nothing_is_said_before_anything_runs(tmp_path, monkeypatch, refuses):
    (tmp_path / "file").touch()
    monkeypatch.setattr(figures, "FOLDER", tmp_path / "file")
    with refuses(tmp_path / "file" / "records", "can't be made or written to", "in out"):
        study(preset="laptop", seeds=None)


def test_what_is_injected_counts_as_given_and_no_unknown_name_does(tmp_path, monkeypatch, refuses):
    monkeypatch.setattr(
        studies,
        "injected",
        lambda: {"preset": "smoke", "seeds": [0], "batch_real": 8, "steps": 7, "epochs": None},
    )
    found = study(steps=7)
    expected = batch.preset("smoke", "11_low_rank_condensation", {"batch_real": 8, "steps": 7})
    assert found.settings == {name: value for name, value in expected.items() if name != "seeds"}
    monkeypatch.setattr(studies, "injected", lambda: {"step": 5})
    with refuses("unknown parameter of 11_low_rank_condensation 'step'", "did you mean 'steps'"):
        study()


def test_what_is_made_with_other_numbers_says_so(tmp_path):
    plain, other = (
        study(out=str(tmp_path / name), **given)
        for name, given in (("a", {}), ("b", {"epochs": 3, "width": 16}))
    )
    assert plain.overrides == {}
    assert other.overrides == {"epochs": 3}, "width is the preset's"
    experiment = grid(QUICK, [{}], [0])[0]
    assert "overrides" not in plain.run([experiment])[0].provenance
    (made,) = other.run([experiment])
    assert made.provenance["overrides"] == {"epochs": 3}
    assert made.hash == plain.run([experiment])[0].hash
    assert Runner("smoke", tmp_path / "b" / "records", device="cpu").run(experiment) == made, "read back"
    with pytest.raises(ddcore.BadInput, match="not for figures/"):
        Runner("laptop", figures.FOLDER / "records", overrides={"epochs": 3})


def accurate(value: float) -> records.Record:
    return records.Record("0", "smoke", {}, {"accuracy": value}, {})


class Trials:
    """A runner whose experiments are what `trial` is given; `rounds` takes those of each call."""

    def __init__(self, trial, rounds=None):
        self.trial, self.rounds, self.key = trial, [] if rounds is None else rounds, str

    def attempt_all(self, experiments):
        self.rounds.append(experiments)
        return [self.trial(one) for one in experiments]


@given(
    st.integers(-3, 3),
    st.sampled_from([[1.0], [0.1, 1.0], [10.0, 1.0], [0.1, 1.0, 10.0]]),
    st.integers(-2, 5),
)
def test_the_step_size_chosen_is_no_end_of_those_tried(best, lrs, diverges):
    """Accuracy falls off to both sides of 10^best; from 10^diverges on nothing is finite."""
    one, asked = study(), []

    def trial(lr):
        asked.append(lr)
        if math.log10(lr) > diverges - 0.5:
            return Diverged("too large")
        return accurate(-abs(math.log10(lr) - best))

    one.runner = Trials(trial)
    if math.log10(min(lrs)) > diverges - 0.5:
        with pytest.raises(Diverged):
            one.choose(float, lrs)
        return
    found, chosen = one.choose(float, lrs)
    assert math.log10(chosen) == pytest.approx(min(best, diverges - 1))
    assert math.log10(min(asked)) < math.log10(chosen) - 0.5
    assert math.log10(max(asked)) > math.log10(chosen) + 0.5
    assert len(asked) == len(set(asked))
    assert len(found) == len(asked) - (math.log10(max(asked)) > diverges - 0.5)


def test_a_rate_at_which_a_trial_diverges_is_tried_once():
    """Diverging at a small rate and not at larger ones: the choice still ends."""
    one, asked = study(), []
    one.runner = Trials(lambda lr: asked.append(lr) or (Diverged("by chance") if lr < 0.5 else accurate(-lr)))
    assert one.choose(float, [1.0, 10.0])[1] == 1.0
    assert asked == [1.0, 10.0, 0.1]


def test_many_cells_choose_as_each_alone_would_and_their_trials_run_side_by_side():
    """Of each cell the best step size is another one; one diverges from 10 on."""
    cells, rounds = {0: 1.0, 1: 0.01, 2: 100.0, 3: 10.0}, []

    def trial(at):
        cell, lr = at
        return Diverged("too large") if cell == 3 and lr > 5 else accurate(-abs(math.log10(lr / cells[cell])))

    one, tried = study(), [0.1, 1.0, 10.0]
    one.runner = Trials(trial, rounds)
    together = one.choose_all(
        [(functools.partial(lambda cell, lr: (cell, lr), cell), tried) for cell in cells]
    )
    assert [top for _, top in together] == pytest.approx([1.0, 0.01, 100.0, 1.0])
    assert [len(asked) for asked in rounds] == [4, 4, 4, 2, 2]
    for cell, (records_of_all, _) in zip(cells, together, strict=True):
        alone, _ = one.choose(lambda lr, cell=cell: (cell, lr), tried)
        assert [record.result for record in records_of_all] == [record.result for record in alone]


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"seeds": []}, "seeds"),
        ({"seeds": ["0"]}, "seeds"),
        ({"seeds": [1, 1]}, "twice"),
        ({"steps": -3}, "above 0"),
        ({"preset": "smok"}, "'smoke'"),
        ({"step": 3}, "'steps'"),
        ({"steps": "3"}, "int"),
        ({"device": "cdua"}, "'cdua'"),
    ],
)
def test_a_study_refuses_bad_parameters(refuses, changed, word):
    with refuses(word):
        study(**changed)


@pytest.mark.parametrize("kind", [*BASELINES, "pixels"])
def test_the_start_of_a_record_is_the_set_that_was_evaluated(kind):
    found = study()
    experiment = made({"synthetic": {"kind": kind}, "evaluate": {"network": "convnet"}})
    record = records.Record("0", "smoke", experiment.identity(found.runner.data("digits")), {}, {})
    assert torch.equal(found.start(record).images(), experiment.start(found.runner.data("digits")).images())
    assert torch.equal(found.synthetic(record).images(), found.start(record).images())


def test_the_set_of_a_record_with_a_method_is_as_it_was_distilled():
    found = study()
    (record,) = found.run(grid(DISTILLED, [{}], [0]))
    assert torch.equal(found.synthetic(record).images(), found.runner.synthetic(record).images())
    assert not torch.equal(found.synthetic(record).images(), found.start(record).images())


def test_a_figure_was_made_from_the_records_that_it_names(monkeypatch, tmp_path):
    found = studies.made_from("lodc-rank")
    assert [record.hash for record in found] == figures.load("lodc-rank")["wasDerivedFrom"]
    assert {record.hash for record in found} == {*figures.data("lodc-rank").record}
    monkeypatch.setattr(studies.figures, "load", lambda key: None)
    assert studies.made_from("lodc-rank") == []


def test_a_notebook_shows_a_figure_with_a_palette_and_says_what_it_was_computed_from(monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(studies, "display", lambda *outputs: shown.extend(outputs))
    study().figure("lodc-rank", figures.data("lodc-rank"), [])
    studies.recorded("lodc-rank")
    pictures = [Image.open(io.BytesIO(one.data)) for one in shown if hasattr(one, "alt")]
    assert [picture.mode for picture in pictures] == ["P", "P"]
    assert capsys.readouterr().out == "computed here: smoke preset, 0 records, 0 s\n"
