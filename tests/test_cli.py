import dataclasses
import errno
import itertools
import json
import os
import re
import signal
import subprocess
import sys
import time
from typing import ClassVar

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import ddcore
from ddcore import augment, cli, compute, figures, networks
from ddcore.augment import crops
from ddcore.bench import speed as bench
from ddcore.evaluation import step_size
from ddcore.lab import batch
from ddcore.methods import METHODS, match
from ddcore.random import stream

DISTILL = ("distill", "--dataset", "digits", "--method", "dm", "--synthetic", "lowrank", "--rank", "1", "--ipc", "1", "--seed", "0",
           "--width", "16", "--batch-real", "16")  # fmt: skip
EVALUATE = ("--dataset", "digits", "--width", "16", "--epochs", "5")


@pytest.fixture
def run(monkeypatch, capsys):
    """The command as the console script runs it, in this process: exit code, standard output, standard error."""

    def command(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["ddcore", *map(str, arguments)])
        code = 0
        try:
            cli.main()
        except SystemExit as left:
            code = left.code or 0
        return code, *capsys.readouterr()

    return command


@pytest.fixture(scope="module")
def syn(tmp_path_factory):
    """A small set on disk. Not to be changed."""
    path = tmp_path_factory.mktemp("syn") / "syn.safetensors"
    ddcore.LowRank(ddcore.load("digits", "cpu"), 1, rank=1, seed=0).save(path)
    return path


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path / "data"))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    return tmp_path


# the two commands of the issue


def test_distill_then_evaluate(run, here):
    code, out, err = run(*DISTILL, "--steps", 50, "--out", "syn.safetensors")
    assert code == 0, err
    assert out == ""
    assert re.search(
        r"syn.safetensors: 4 images a class in 640 of 640 numbers, loss \S+ -> \S+ in \S+ s\n", err
    )
    assert [path.name for path in here.iterdir()] == ["syn.safetensors"]
    code, out, err = run(
        "evaluate", "syn.safetensors", *EVALUATE, "--seeds", 3, "--json", "--controls", "random"
    )
    assert code == 0, err
    found = json.loads(out)
    assert out.count("\n") == 1
    assert found["n"] == 3
    assert found["mean"] == pytest.approx(np.mean(found["scores"]), abs=1e-3)
    assert found["sd"] == pytest.approx(np.std(found["scores"], ddof=1), abs=1e-3)
    assert found["images_per_class"] == 4
    assert found["controls"]["random"]["images_per_class"] == 1
    loaded = ddcore.load_synthetic("syn.safetensors")
    expected = ddcore.evaluate(
        loaded,
        ddcore.load("digits", "cpu"),
        seeds=range(3),
        width=16,
        epochs=5,
        strategy=augment.WITHOUT_FLIP,
    )
    assert tuple(found["scores"]) == expected.scores


def test_the_same_seed_twice_gives_the_same_bytes_and_another_one_others(run, here):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        assert run(*DISTILL, "--steps", 3, "--seed", seed, "--out", f"{name}.safetensors")[0] == 0
    a, b, c = ((here / f"{name}.safetensors").read_bytes() for name in "abc")
    assert a == b != c


@pytest.mark.parametrize(
    ("more", "ipc"),
    [
        (("--synthetic", "lowrank", "--rank", 2), 3),
        (("--synthetic", "pixels"), 5),
        (("--synthetic", "pixels", "--ipc", 9), 9),
        (("--synthetic", "tucker", "--rank", 3), 2),
    ],
)
def test_five_images_a_class_are_five_whatever_they_are_stored_as(run, here, more, ipc):
    code, _, err = run(
        "distill",
        *more,
        "--images-per-class",
        5,
        "--width",
        4,
        "--batch-real",
        8,
        "--steps",
        1,
        "--out",
        "a.safetensors",
    )
    assert code == 0, err
    assert "a.safetensors: 5 images a class in " in err
    made = ddcore.load_synthetic("a.safetensors")
    assert (made.per_class, made.settings["budget_ipc"]) == (5, ipc)


def test_the_step_size_is_chosen_where_no_test_image_is_seen(run, here, monkeypatch):
    """Accuracy is best near the step size 30: those tried are 0.1, 1, 10 and then, since 10 is best, 100."""
    seen = []

    def evaluate(synthetic, data, *, seeds, **protocol):
        seen.append((data, synthetic.settings["distilled"]["lr_img"], protocol))
        return ddcore.Scores((50 - abs(np.log10(seen[-1][1] / 30)),), tuple(seeds), 1, 1, 0.0)

    monkeypatch.setattr(step_size, "evaluate", evaluate)
    code, _, err = run(
        *DISTILL, "--synthetic", "lowrank", "--steps", 2, "--lr-img", "auto", "--out", "auto.safetensors"
    )
    assert code == 0, err
    assert [lr for _, lr, _ in seen] == [0.1, 1.0, 10.0, 100.0]
    assert "lr_img=10: 49.5 % of the 10% of the training images" in err
    assert "lr_img=10 is the best of these" in err
    for data, _, protocol in seen:
        assert "holdout" in data.name
        assert protocol == {"network": "convnet", "width": 16, "strategy": augment.WITHOUT_FLIP}
    assert (
        run(*DISTILL, "--synthetic", "lowrank", "--steps", 2, "--lr-img", 10, "--out", "ten.safetensors")[0]
        == 0
    )
    assert (here / "auto.safetensors").read_bytes() == (here / "ten.safetensors").read_bytes()


def test_plugins_named_on_the_command_line_are_those_of_the_library(run, here, digits):
    given = {"weight": 0.3, "temperature": 0.5}
    code, _, err = run(*DISTILL, "--steps", 3, "--out", "a.safetensors", "--plugin", f"mutual_information={json.dumps(given)}",
                       "--plugin", "weight_adjustment")  # fmt: skip
    assert code == 0, err
    plugins = [ddcore.MutualInformation(**given), ddcore.WeightAdjustment()]
    ours, without = (ddcore.LowRank(digits, 1, rank=1, seed=0) for _ in range(2))
    how = ddcore.DM(width=16, batch_real=16, strategy=augment.WITHOUT_FLIP)
    ddcore.distill(digits, ours, how, plugins=plugins, steps=3, seed=0)
    ddcore.distill(digits, without, how, steps=3, seed=0)
    found = ddcore.load_synthetic("a.safetensors")
    assert torch.equal(found.images(), ours.images())
    assert not torch.equal(found.images(), without.images())
    said = found.settings["distilled"]["plugins"]
    assert [one["plugin"] for one in said] == ["MutualInformation", "WeightAdjustment"]
    assert given.items() <= said[0].items()


def test_relabel_takes_the_teacher_that_the_set_was_recovered_from(run, here):
    teacher = {"network": "convnet-bn", "width": 8, "epochs": 1, "batch": 64, "crop": 1, "flip": False}
    code, _, err = run("distill", "--method", "sre2l", "--steps", 2, "--set", "roll=1", "--set", f"teacher={json.dumps(teacher)}", "--set",
                       "seed_teacher=3", "--out", "a.safetensors")  # fmt: skip
    assert code == 0, err
    student = {"network": "convnet-bn", "width": 8, "epochs": 20, "lr": 0.05, "crop": 1, "flip": False}
    options = (
        "--network",
        "convnet-bn",
        "--width",
        8,
        "--epochs",
        20,
        "--lr",
        0.05,
        "--set",
        "crop=1",
        "--set",
        "flip=false",
    )
    code, out, err = run(
        "evaluate", "a.safetensors", "--protocol", "relabel", *options, "--seeds", 2, "--json"
    )
    assert code == 0, err
    loaded, data = ddcore.load_synthetic("a.safetensors"), ddcore.load("digits", "cpu")
    own, other = (
        ddcore.evaluate(
            loaded, data, seeds=range(2), protocol="relabel", teacher=teacher, seed_teacher=seed, **student
        )
        for seed in (3, 4)
    )
    assert tuple(json.loads(out)["scores"]) == own.scores != other.scores


def test_a_teacher_from_a_file_is_named_by_the_set_and_found_where_it_is_said_to_be(run, here, digits):
    (here / "sub").mkdir()
    for seed, name in enumerate(("net.pth", "other.pth")):
        net = networks.build("convnet-bn", digits.shape, 10, width=8, generator=stream(seed, "net")).train()
        net(digits.x_train[::9])  # moves the running statistics
        torch.save({"state_dict": net.state_dict()}, here / "sub" / name)
    code, _, err = run("distill", "--method", "sre2l", "--steps", 2, "--set", "roll=1", "--set",
                       "teacher={network: convnet-bn, width: 8, weights: sub/net.pth}", "--out", "a.safetensors")  # fmt: skip
    assert code == 0, err
    said = ddcore.load_synthetic("a.safetensors").settings["distilled"]["teacher"]
    assert set(said) == {"network", "width", "weights", "sha256"}
    options = (
        "--protocol",
        "relabel",
        "--network",
        "convnet-bn",
        "--width",
        8,
        "--epochs",
        3,
        "--lr",
        0.05,
        "--set",
        "crop=1",
        "--set",
        "flip=false",
        "--seeds",
        1,
        "--json",
    )
    code, out, err = run("evaluate", "a.safetensors", *options)
    assert (code, out) == (2, "")
    assert all(word in err for word in ("weights net.pth", "no such file", said["sha256"], "path"))
    code, out, err = run("evaluate", "a.safetensors", *options, "--set", "teacher={weights: sub/other.pth}")
    assert (code, out) == (2, "")
    assert all(word in err for word in ("other.pth", said["sha256"], "are needed"))
    code, out, err = run("evaluate", "a.safetensors", *options, "--set", "teacher={weights: sub/net.pth}")
    assert code == 0, err
    own = ddcore.evaluate(
        ddcore.load_synthetic("a.safetensors"),
        digits,
        seeds=[0],
        protocol="relabel",
        network="convnet-bn",
        width=8,
        epochs=3,
        lr=0.05,
        crop=1,
        flip=False,
        teacher=said | {"weights": "sub/net.pth"},
    )
    assert tuple(json.loads(out)["scores"]) == own.scores
    (here / "data" / "teachers").mkdir(parents=True)
    (here / "sub" / "net.pth").rename(here / "data" / "teachers" / "net.pth")
    code, again, err = run("evaluate", "a.safetensors", *options)
    assert code == 0, err
    assert json.loads(again)["scores"] == json.loads(out)["scores"]


def test_nothing_mirrors_digits_unless_it_is_asked_for(run, here):
    teacher = ("--set", "teacher={network: convnet-bn, width: 8, epochs: 1}", "--set", "roll=1")
    experts = (
        "--step",
        0.01,
        "--set",
        "experts={width: 8, experts: 1, epochs: 1}",
        "--set",
        "expert_epochs=1",
        "--set",
        "max_start_epoch=1",
        "--set",
        "syn_steps=1",
    )
    for method, more in (("sre2l", teacher), ("mtt", experts)):
        code, _, err = run(
            "distill", "--method", method, "--steps", 1, *more, "--out", f"{method}.safetensors"
        )
        assert code == 0, err
    of_sre2l, of_mtt = (
        ddcore.load_synthetic(f"{method}.safetensors").settings["distilled"] for method in ("sre2l", "mtt")
    )
    assert of_sre2l["teacher"]["flip"] is False
    assert "flip" not in of_mtt["experts"]["strategy"].split("_")
    assert of_mtt["experts"]["epochs"] == 1


def test_one_network_has_no_sd(run, syn):
    assert json.loads(run("evaluate", syn, *EVALUATE, "--seeds", 1, "--json")[1])["sd"] is None


def test_evaluate_shows_a_table_and_writes_what_is_asked(run, syn, here):
    code, out, err = run("evaluate", syn, *EVALUATE, "--seeds", 2, "--controls", "svd", "--png", "grid.png")
    assert code == 0, err
    assert re.search(r"syn\.safetensors .*±.*\(n = 2\).* 4 .* 640", out)
    assert re.search(r"svd .*±", out)
    assert {path.name for path in here.iterdir()} == {"grid.png"}


@pytest.fixture
def coloured_set(here):
    """colours.npz of two classes of 3x8x8 images, and a set of it that has learned its step size, 0.02, and its labels."""
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 256, (12, 8, 8, 3), np.uint8), np.arange(12) % 2
    data = ddcore.load(npz("colours.npz", x_train=x, y_train=y, x_test=x, y_test=y), "cpu")
    ddcore.Pixels(data, 3, step=0.02, soft=2.0).save("set.safetensors")
    ddcore.Pixels(data, 2).save("plain.safetensors")
    return here


COLOURED = ("--dataset", "colours.npz", "--width", 4, "--epochs", 1, "--seeds", 1)


@pytest.mark.parametrize(
    ("arguments", "lr"),
    [
        (("evaluate", "set.safetensors", *COLOURED), 0.02),
        (("evaluate", "set.safetensors", *COLOURED, "--lr", 0.5), 0.02),
        (("export", "set.safetensors"), 0.02),
        (("evaluate", "plain.safetensors", *COLOURED), 0.01),
        (("evaluate", "plain.safetensors", *COLOURED, "--lr", 0.5), 0.5),
        (("evaluate", "plain.safetensors", *COLOURED, "--set", "lr=0.3"), 0.3),
        (("export", "plain.safetensors"), 0.01),
        (("export", "plain.safetensors", "--lr", 0.2), 0.2),
    ],
)
def test_ddranking_is_given_the_step_size_that_was_learned_or_used(run, coloured_set, arguments, lr):
    code, _, err = run(*arguments, "--ddranking", "out")
    assert code == 0, err
    assert torch.load("out/lr.pt", weights_only=True) == pytest.approx(lr)
    learned = arguments[1] == "set.safetensors"
    assert ("soft_labels.pt" in err) == (coloured_set / "out" / "soft_labels.pt").exists() == learned
    assert ("is not used: networks take steps of 0.02" in err) == (learned and "--lr" in arguments)


def test_export_writes_all_forms_and_trains_nothing(run, coloured_set, monkeypatch):
    monkeypatch.setattr(networks, "build", None)
    code, out, err = run(
        "export",
        "plain.safetensors",
        "--npz",
        "a.npz",
        "--pt",
        "a.pt",
        "--png",
        "images",
        "--grid",
        "grid.png",
    )
    assert (code, out) == (0, ""), err
    assert "images: 0.0% of the pixels lie outside" in err
    made = ddcore.load_synthetic("plain.safetensors")
    assert np.array_equal(np.load("a.npz")["images"], made.images().detach())
    assert torch.equal(torch.load("a.pt", weights_only=True)["images"], made.images())
    assert len([*(coloured_set / "images").rglob("*.png")]) == len(made.labels)
    assert (coloured_set / "grid.png").is_file()


@pytest.mark.parametrize("command", ["evaluate", "export"])
def test_what_was_clipped_or_scaled_is_said(run, coloured_set, command):
    wide = ddcore.load_synthetic("plain.safetensors")
    with torch.no_grad():
        wide.tensors["pixels"].mul_(40)
    wide.save("wide.safetensors")
    more = (
        ("--grid", "grid.png", "--png", "images") if command == "export" else (*COLOURED, "--png", "grid.png")
    )
    code, _, err = run(command, "wide.safetensors", *more)
    assert code == 0, err
    assert re.search(r"grid.png: 9\d% of the pixels lie outside .* scaled", err)
    assert command == "evaluate" or re.search(
        r"images: 9\d\.\d% of the pixels lie outside .* clipped; --npz and --pt keep", err
    )


def test_help_names_every_command():
    shown = CliRunner().invoke(cli.app, ["--help"])
    assert shown.exit_code == 0
    for name in (
        "distill",
        "evaluate",
        "export",
        "cite",
        "sets",
        "reproduce",
        "refresh",
        "bench",
        "doctor",
        "figures",
        "data",
    ):
        assert name in shown.output


# settings that have no option of their own


def test_settings_of_all_that_is_composed_are_set_by_name_and_recorded(run, here):
    npz("two.npz")
    options = (
        "--dataset",
        "two.npz",
        "--method",
        "dc",
        "--synthetic",
        "lowrank",
        "--ipc",
        1,
        "--step",
        0.02,
        "--steps",
        2,
        "--width",
        4,
        "--optimiser",
        "adam",
        "--lr-img",
        0.01,
        "--plugin",
        "weight_adjustment",
        "--plugin",
        "mutual_information={weight: 0.3}",
    )
    pairs = (
        "synthetic.balance=true",
        "synthetic.step_rate=0.5",
        "method.lr_net=1e-3",
        "inner=1",
        "weight_adjustment.normalised=false",
        "mutual_information.layers=[0]",
    )
    code, _, err = run(
        "distill",
        *options,
        *(word for pair in pairs for word in ("--set", pair)),
        "--beta2",
        0.8,
        "--out",
        "o",
    )
    assert (code, "does not learn the 'step'" in err) == (2, True), "DC has no use for a step size"
    options = tuple(one for one in options if one not in ("--step", 0.02))
    pairs = tuple(pair for pair in pairs if "step_rate" not in pair)
    code, _, err = run(
        "distill",
        *options,
        *(word for pair in pairs for word in ("--set", pair)),
        "--beta2",
        0.8,
        "--out",
        "o",
    )
    assert code == 0, err
    found = ddcore.load_synthetic("o").settings
    assert found["balance"] is True
    assert {"lr_net": 1e-3, "inner": 1, "beta2": 0.8, "momentum": 0.5}.items() <= found["distilled"].items()
    of_dwa, of_mim = found["distilled"]["plugins"]
    assert of_dwa["normalised"] is False
    assert {"layers": [0], "weight": 0.3}.items() <= of_mim.items()
    data = ddcore.load("two.npz", "cpu")
    expected = ddcore.LowRank(data, 1, rank=2, balance=True)
    plugins = [ddcore.WeightAdjustment(normalised=False), ddcore.MutualInformation(weight=0.3, layers=(0,))]
    ddcore.distill(
        data,
        expected,
        ddcore.DC(width=4, lr_net=1e-3, inner=1),
        plugins=plugins,
        steps=2,
        optimiser="adam",
        beta2=0.8,
        lr_img=0.01,
    )
    assert torch.equal(ddcore.load_synthetic("o").images(), expected.images())


def test_images_a_class_can_be_a_setting_of_what_is_stored_too(run, here):
    npz("two.npz")
    code, _, err = run(
        "distill",
        "--dataset",
        "two.npz",
        "--width",
        4,
        "--steps",
        1,
        "--set",
        "synthetic.images_per_class=3",
        "--out",
        "o",
    )
    assert code == 0, err
    assert ddcore.load_synthetic("o").settings["budget_ipc"] == 3


# every method with every option: it works, or a sentence says why not

OF_METHODS = {
    "dc": ("--width", 4, "--set", "inner=1"),
    "dsa": ("--width", 4, "--set", "inner=1"),
    "dm": ("--width", 4),
    "mtt": (
        "--step",
        0.01,
        "--set",
        "experts={width: 4, experts: 1, epochs: 1}",
        "--set",
        "expert_epochs=1",
        "--set",
        "max_start_epoch=1",
        "--set",
        "syn_steps=1",
    ),
    "sre2l": ("--set", "roll=1", "--set", "teacher={network: convnet-bn, width: 4, epochs: 1}"),
    "bare": (),
}
EVERY_OPTION = [("--synthetic", kind) for kind in ("pixels", "lowrank", "adaptive", "tucker")] + [
    ("--ipc", 2),
    ("--images-per-class", 2),
    ("--rank", 1),
    ("--init", "noise"),
    ("--init", "svd"),
    ("--lr-img", 0.1),
    ("--lr-img", "nan"),
    ("--momentum", 1),
    ("--optimiser", "adam", "--beta2", 0.5),
    ("--beta2", 2),
    ("--schedule", "cosine"),
    ("--soft", 1, "--ipc", 2),
    ("--step", 0.02),
    ("--clip",),
    ("--batch-real", 2),
    ("--network", "convnet1"),
    ("--width", 3),
    ("--strategy", "none"),
    ("--precision", "bfloat16"),
    ("--compiled", "no"),
    ("--plugin", "mutual_information"),
    ("--plugin", "weight_adjustment"),
    ("--seed", 3),
    ("--checkpoint-every", "nan"),
    ("--checkpoint-every", -1),
    ("--set", "synthetic.balance=true"),
    ("--steps", 0),
]


@dataclasses.dataclass(frozen=True)
class Bare:
    """A method without a setting that an option could set."""

    version: ClassVar[int] = 1

    def matches(self, data, synthetic, *, seed, start=0, look=match.unadjusted, memory=None, reads=()):
        network = networks.build(
            "convnet1", data.shape, data.classes, width=4, generator=stream(seed, "bare")
        ).requires_grad_(False)
        batch = match.Batch(data, torch.arange(len(data.y_train)), data.sizes)
        for step in itertools.count(start):
            seen = match.looked_through(look, network, batch, stream(seed, "bare", "look", step))
            of_real, of_synthetic = seen.features(batch.images()), seen.features(synthetic.images())
            yield match.Match(
                step,
                seen,
                seen,
                batch,
                synthetic.images(),
                synthetic.labels,
                of_real,
                of_synthetic,
                (of_real[-1].mean(0) - of_synthetic[-1].mean(0)).square().sum(),
            )


@pytest.mark.parametrize("method", OF_METHODS)
def test_every_method_takes_every_option_or_says_why_not(run, here, monkeypatch, method):
    monkeypatch.setitem(METHODS, "bare", Bare)
    npz("two.npz")
    worked = 0
    for option in EVERY_OPTION:
        code, _, err = run(
            "distill",
            "--dataset",
            "two.npz",
            "--method",
            method,
            "--steps",
            1,
            *OF_METHODS[method],
            *option,
            "--out",
            "o",
        )
        assert code in (0, 2), (option, err)
        assert code == 0 or re.fullmatch(r"(two: .*\n)*ddcore: .*\n", err), (option, err)
        assert (here / "o").is_file() == (code == 0), option
        (here / "o").unlink(missing_ok=True)
        worked += code == 0
    assert worked >= 12
    assert {path.name for path in here.iterdir()} <= {"two.npz", "data"}


def test_a_method_without_a_network_or_a_batch_finds_its_step_size(run, here, monkeypatch):
    monkeypatch.setitem(METHODS, "bare", Bare)
    monkeypatch.setattr(
        step_size, "evaluate", lambda synthetic, data, **protocol: ddcore.Scores((50.0,), (0,), 1, 1, 0.0)
    )
    npz("two.npz")
    code, _, err = run(
        "distill", "--dataset", "two.npz", "--method", "bare", "--steps", 1, "--lr-img", "auto", "--out", "o"
    )
    assert code == 0, err
    assert "lr_img=0.1 is the best" in err or "lr_img=0.01 is the best" in err


# bad input: exit code 2, one sentence, nothing left


def npz(path, **changed):
    x, y = np.arange(6 * 64, dtype=np.uint8).reshape(6, 8, 8, 1), np.arange(6) % 2
    np.savez(path, **{"x_train": x, "y_train": y, "x_test": x, "y_test": y} | changed)
    return path


BAD = {
    "missing npz": ((*DISTILL, "--dataset", "none.npz", "--out", "o"), ("none.npz", "no such file")),
    "corrupt npz": (
        (*DISTILL, "--dataset", "corrupt.npz", "--out", "o"),
        ("corrupt.npz", "not a whole .npz"),
    ),
    "float npz": ((*DISTILL, "--dataset", "float.npz", "--out", "o"), ("float.npz", "float64", "uint8")),
    "unknown dataset": ((*DISTILL, "--dataset", "digit", "--out", "o"), ("'digit'", "did you mean 'digits'")),
    "size of arrays": ((*DISTILL, "--size", "9", "--out", "o"), ("digits", "size=9", "8x8")),
    "fraction of arrays": (("evaluate", "{syn}", "--test-fraction", "0.5"), ("digits", "test_fraction=0.5")),
    "foreign file to import": (
        ("import", "two.npz", "--dataset", "digits", "--out", "o"),
        ("two.npz", "not a whole file"),
    ),
    "import to nowhere": (
        ("import", "two.npz", "--dataset", "digits", "--out", "no/o"),
        ("--out no/o", "does not exist"),
    ),
    "unknown method": ((*DISTILL, "--method", "dq", "--out", "o"), ("unknown method 'dq'", "dm")),
    "no such setting": (
        (*DISTILL, "--method", "dc", "--set", "epochs=3", "--out", "o"),
        ("setting of method dc 'epochs'", "inner"),
    ),
    "a setting without a value": (
        (*DISTILL, "--method", "dc", "--set", "inner", "--out", "o"),
        ("--set inner", "name=value"),
    ),
    "no such setting of a set": (
        (*DISTILL, "--set", "synthetic.core=3", "--out", "o"),
        ("synthetic set lowrank 'core'", "balance"),
    ),
    "ill-typed setting of a set": (
        (*DISTILL, "--set", "synthetic.balance=3", "--out", "o"),
        ("balance=3", "bool"),
    ),
    "images of a set in words": (
        ("distill", "--set", "synthetic.images_per_class=five", "--out", "o"),
        ("images_per_class='five'", "int"),
    ),
    "rank of a set in words": (
        (
            "distill",
            "--synthetic",
            "lowrank",
            "--images-per-class",
            "2",
            "--set",
            "synthetic.rank=two",
            "--out",
            "o",
        ),
        ("rank='two'", "int"),
    ),
    "seed of a set": (
        (*DISTILL, "--set", "synthetic.seed=3", "--out", "o"),
        ("--set synthetic.seed", "--seed gives it too"),
    ),
    "rank twice": (
        (*DISTILL, "--set", "synthetic.rank=3", "--out", "o"),
        ("--set synthetic.rank", "--rank gives it too"),
    ),
    "width twice": (
        (*DISTILL, "--set", "width=3", "--out", "o"),
        ("--set method.width", "--width gives it too"),
    ),
    "of nothing": (
        (*DISTILL, "--set", "sintetic.balance=true", "--out", "o"),
        ("'sintetic'", "did you mean 'synthetic'"),
    ),
    "of a plugin that is not there": (
        (*DISTILL, "--set", "mutual_information.beta=1", "--out", "o"),
        ("--set mutual_information.beta", "--plugin mutual_information is given 0 times"),
    ),
    "no such setting of that plugin": (
        (*DISTILL, "--plugin", "weight_adjustment", "--set", "weight_adjustment.ro=1", "--out", "o"),
        ("'ro'", "did you mean 'rho'"),
    ),
    "of a plugin twice": (
        (
            *DISTILL,
            "--plugin",
            "weight_adjustment={rho: 1}",
            "--set",
            "weight_adjustment.rho=2",
            "--out",
            "o",
        ),
        ("--set weight_adjustment.rho", "--plugin weight_adjustment={rho: 1} gives it too"),
    ),
    "checkpoints never": ((*DISTILL, "--checkpoint-every", "nan", "--out", "o"), ("checkpoint_every=nan",)),
    "no step size": (("distill", "--method", "mtt", "--out", "o"), ("MTT", "step=0.01")),
    "soft labels that nothing learns": (
        ("distill", "--width", "8", "--batch-real", "9", "--soft", "1", "--ipc", "2", "--out", "o"),
        ("DM", "'soft'"),
    ),
    "soft labels over the budget": (
        ("distill", "--method", "dc", "--soft", "1", "--out", "o"),
        ("soft-label", "budget_ipc=1"),
    ),
    "unknown plugin": (
        (*DISTILL, "--plugin", "mutual_informatio", "--out", "o"),
        ("plugin", "did you mean 'mutual_information'"),
    ),
    "plugin of a number": (
        (*DISTILL, "--plugin", "weight_adjustment=3", "--out", "o"),
        ("--plugin weight_adjustment=3", "mapping"),
    ),
    "no such setting of a plugin": (
        (*DISTILL, "--plugin", "weight_adjustment={ro: 1}", "--out", "o"),
        ("'ro'", "did you mean 'rho'"),
    ),
    "plugin out of YAML": (
        (*DISTILL, "--plugin", "weight_adjustment={", "--out", "o"),
        ("--plugin weight_adjustment={", "YAML"),
    ),
    "no batch norm": (
        ("distill", "--method", "sre2l", "--set", "teacher={network: convnet}", "--out", "o"),
        ("'convnet'", "batch norm"),
    ),
    "no file of a teacher": (
        (
            "distill",
            "--method",
            "sre2l",
            "--set",
            "teacher={network: resnet18, weights: no.pth}",
            "--out",
            "o",
        ),
        ("weights no.pth", "no such file"),
    ),
    "a file of no teacher": (
        (
            "distill",
            "--method",
            "sre2l",
            "--set",
            "teacher={network: resnet18, weights: corrupt.npz}",
            "--out",
            "o",
        ),
        ("weights corrupt.npz", "torch.save(network.state_dict(), FILE)"),
    ),
    "training of a teacher from a file": (
        ("distill", "--method", "sre2l", "--set", "teacher={weights: corrupt.npz, epochs: 3}", "--out", "o"),
        ("epochs=3", "trained already"),
    ),
    "unknown set": (
        (*DISTILL, "--synthetic", "lowrnk", "--out", "o"),
        ("'lowrnk'", "did you mean 'lowrank'"),
    ),
    "unknown init": ((*DISTILL, "--init", "svdd", "--out", "o"), ("'svdd'", "did you mean 'svd'")),
    "unknown network": (
        (*DISTILL, "--network", "convnt", "--steps", "1", "--out", "o"),
        ("'convnt'", "did you mean 'convnet'"),
    ),
    "unknown strategy": ((*DISTILL, "--strategy", "crop_flop", "--out", "o"), ("'flop'", "flip")),
    "unknown device": ((*DISTILL, "--device", "cdua", "--out", "o"), ("'cdua'", "cpu")),
    "rank of pixels": ((*DISTILL, "--synthetic", "pixels", "--out", "o"), ("pixels", "'rank'")),
    "rank too high": ((*DISTILL, "--rank", "9", "--out", "o"), ("rank 9", "at most 4")),
    "ipc too large": (("distill", "--ipc", "1000", "--out", "o"), ("1000", "training images")),
    "more images than the budget holds": (
        (*DISTILL, "--images-per-class", "5", "--out", "o"),
        ("images_per_class=5", "holds 4"),
    ),
    "no images": (("distill", "--images-per-class", "0", "--out", "o"), ("images_per_class=0",)),
    "step size in words": ((*DISTILL, "--lr-img", "large", "--out", "o"), ("--lr-img large", "auto")),
    "step size of sre2l": (
        ("distill", "--method", "sre2l", "--lr-img", "auto", "--out", "o"),
        ("--lr-img auto", "sre2l", "a number"),
    ),
    "batch of none": ((*DISTILL, "--batch-real", "0", "--out", "o"), ("batch_real=0",)),
    "no steps": ((*DISTILL, "--steps", "0", "--out", "o"), ("steps=0",)),
    "folder of out missing": ((*DISTILL, "--out", "no/such/o"), ("--out no/such/o", "does not exist")),
    "out is a folder": ((*DISTILL, "--out", "."), ("--out .", "is a folder")),
    "missing set": (("evaluate", "none.safetensors"), ("none.safetensors", "no such file")),
    "corrupt set": (("evaluate", "corrupt.npz"), ("corrupt.npz", "not a whole safetensors")),
    "foreign set": (("evaluate", "foreign.safetensors"), ("foreign.safetensors", "not a synthetic set")),
    "other data": (("evaluate", "{syn}", "--dataset", "two.npz"), ("10 classes", "2")),
    "no seeds": (("evaluate", "{syn}", "--seeds", "0"), ("seeds",)),
    "no epochs": (("evaluate", "{syn}", "--epochs", "0"), ("epochs=0",)),
    "unknown control": (
        ("evaluate", "{syn}", "--controls", "hearding"),
        ("'hearding'", "did you mean 'herding'"),
    ),
    "unknown protocol": (
        ("evaluate", "{syn}", "--protocol", "relable"),
        ("'relable'", "did you mean 'relabel'"),
    ),
    "setting of another protocol": (
        ("evaluate", "{syn}", "--set", "teacher_mode=eval"),
        ("setting of evaluate 'teacher_mode'",),
    ),
    "strategy of relabel": (
        ("evaluate", "{syn}", "--protocol", "relabel", "--strategy", "flip"),
        ("'strategy'",),
    ),
    "png elsewhere": (("evaluate", "{syn}", "--png", "no/grid.png"), ("--png no/grid.png", "does not exist")),
    "png of no kind": (("evaluate", "{syn}", "--png", "grid"), ("--png", ".png")),
    "one channel for ddranking": (
        ("evaluate", "{syn}", "--ddranking", "set"),
        ("1 channel", "ddranking takes 3", "--npz"),
    ),
    "one channel to export for it": (
        ("export", "{syn}", "--npz", "a.npz", "--ddranking", "set"),
        ("1 channel", "ddranking takes 3"),
    ),
    "export to nowhere": (("export", "{syn}"), ("at least one of", "--npz")),
    "export of nothing": (
        ("export", "none.safetensors", "--npz", "a.npz"),
        ("none.safetensors", "no such file"),
    ),
    "grid of no kind": (("export", "{syn}", "--grid", "grid"), ("--grid", ".png")),
    "npz elsewhere": (("export", "{syn}", "--npz", "no/a.npz"), ("--npz no/a.npz", "does not exist")),
    "images into a file": (("export", "{syn}", "--png", "two.npz"), ("two.npz", "not an empty folder")),
    "no step size to export": (("export", "{syn}", "--ddranking", "set", "--lr", "0"), ("lr=0",)),
    "bad pair": (("reproduce", "--set", "seeds"), ("--set seeds", "name=value")),
    "bad value": (("reproduce", "--set", "seeds=[1"), ("seeds=[1", "YAML")),
    "unknown parameter": (("reproduce", "--set", "stepps=1"), ("'stepps'",)),
    "ill-typed parameter": (("reproduce", "--set", "seeds=3"), ("seeds=3", "list")),
    "unknown preset": (("reproduce", "--preset", "smok"), ("'smok'", "did you mean 'smoke'")),
    "unknown notebook": (("reproduce", "--only", "77"), ("'77'",)),
    "value given twice": (("reproduce", "--set", "steps=1", "--set", "steps=2"), ("--set steps=2", "twice")),
    "no value": (("reproduce", "--set", "steps="), ("--set steps=", "name=value")),
    "number of YAML 1.1": (("reproduce", "--only", "11", "--set", "steps=010"), ("steps='010'", "like 10")),
    "minutes": (("reproduce", "--only", "11", "--set", "steps=1:30"), ("steps='1:30'",)),
    "steps below zero": (("reproduce", "--only", "11", "--set", "steps=-3"), ("steps=-3", "above 0")),
    "a seed twice": (("reproduce", "--only", "11", "--set", "seeds=[0, 0]"), ("seeds=[0, 0]", "twice")),
    "a number of no setting": (
        (*DISTILL, "--method", "dc", "--set", "lr_net=1e-3x", "--out", "o"),
        ("lr_net='1e-3x'", "float"),
    ),
    "nowhere to write": (
        ("reproduce", "--out", "corrupt.npz/x"),
        ("corrupt.npz/x", "can't be made or written to", "--out"),
    ),
    "unknown figure": (("figures", "cite", "lodc-rnak"), ("'lodc-rnak'", "did you mean 'lodc-rank'")),
    "unknown format": (("figures", "cite", "lodc-rank", "--format", "html"), ("'html'", "latex")),
    "figure to show": (("figures", "show", "x"), ("'x'",)),
    "data to check": (("data", "check", "digits", "corrupt.npz"), ("corrupt.npz",)),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_input_is_one_sentence_and_exit_code_2_and_leaves_nothing(run, here, syn, monkeypatch, case):
    arguments, words = BAD[case]
    monkeypatch.setattr(batch, "execute", None)
    (here / "corrupt.npz").write_bytes(npz(here / "two.npz").read_bytes()[:300])
    npz(here / "float.npz", x_train=np.zeros((6, 8, 8, 1)))
    save_file(
        {name: tensor for name, tensor in load_file(syn).items() if name == "labels"},
        here / "foreign.safetensors",
    )
    before = {path.name for path in here.iterdir()}
    code, _, err = run(*(str(syn) if one == "{syn}" else one for one in arguments))
    assert code == 2, err
    assert err.startswith("ddcore: ")
    assert err.count("\n") == 1
    for word in words:
        assert word in err
    assert {path.name for path in here.iterdir()} == before


@pytest.mark.parametrize(
    "arguments", ["distill", "distil", "distill --out o --ipc two", "reproduce --jobs 0"]
)
def test_bad_usage_is_exit_code_2(run, here, arguments):
    assert run(*arguments.split())[0] == 2
    assert list(here.iterdir()) == []


def test_brackets_in_names_are_printed_as_they_are(run, here):
    code, _, err = run(*DISTILL, "--steps", 1, "--out", "a[red]b.safetensors")
    assert code == 0
    assert err.startswith("a[red]b.safetensors: ")
    assert "no[/red]such.npz: no such file" in run("data", "check", "no[/red]such.npz")[2]


def test_numbers_are_taken_as_people_write_them(run, here):
    code, _, err = run(
        "distill",
        "--method",
        "dc",
        "--width",
        8,
        "--steps",
        1,
        "--batch-real",
        8,
        "--set",
        "lr_net=1e-3",
        "--out",
        "o",
    )
    assert code == 0, err
    assert ddcore.load_synthetic("o").settings["distilled"]["lr_net"] == 1e-3


@pytest.mark.parametrize("kind", [errno.ENOSPC, errno.EROFS, errno.EACCES])
def test_a_disk_that_takes_nothing_is_one_sentence(run, monkeypatch, kind):
    def fail():
        raise OSError(kind, os.strerror(kind), "a/file")

    monkeypatch.setattr(figures, "entries", fail)
    code, _, err = run("figures", "list")
    assert code == 2
    assert err == f"ddcore: a/file: {os.strerror(kind)}; name another place, or make room\n"


# divergence and Ctrl-C


def test_divergence_is_exit_code_3_and_a_sentence(run, here):
    code, _, err = run(*DISTILL, "--steps", 20, "--lr-img", "1e30", "--out", "o.safetensors")
    assert code == 3
    assert re.fullmatch(r"ddcore: .*at step \d+.*smaller lr_img\n", err), err
    assert not (here / "o.safetensors").exists()


def test_ctrl_c_saves_and_the_same_command_goes_on_to_the_same_bytes(run, here):
    command = [
        sys.executable,
        "-m",
        "ddcore",
        *DISTILL,
        "--steps",
        "3000",
        "--out",
        "o.safetensors",
        "--checkpoint-every",
        "0",
    ]
    process = subprocess.Popen(command, cwd=here, stdout=subprocess.PIPE, stderr=subprocess.PIPE, encoding="utf-8",
                               env=dict(os.environ) | {"OMP_NUM_THREADS": "1"})  # fmt: skip
    checkpoint, deadline = here / ".o.safetensors.checkpoint", time.monotonic() + 120
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    done = int(re.search(r"stopped after step (\d+) of 3000; the state is in .*checkpoint", err)[1])
    assert 0 < done < 3000
    assert [path.name for path in here.iterdir()] == [checkpoint.name]
    steps = done + 5
    code, _, err = run(*DISTILL, "--steps", steps, "--out", "o.safetensors")
    assert code == 0, err
    assert f"went on from step {done}" in err
    assert not checkpoint.exists()
    assert run(*DISTILL, "--steps", steps, "--out", "whole.safetensors")[0] == 0
    assert (here / "o.safetensors").read_bytes() == (here / "whole.safetensors").read_bytes()


@pytest.mark.parametrize("at", [5, 11, 14], ids=["in the second trial", "in the fourth", "in the run itself"])
def test_a_search_for_a_step_size_is_not_repeated_after_a_signal(run, here, monkeypatch, at):
    """Three steps a trial, four trials, then the run; the accuracy is best at 10."""

    def evaluate(synthetic, data, *, seeds, **protocol):
        return ddcore.Scores(
            (50 - abs(np.log10(synthetic.settings["distilled"]["lr_img"] / 30)),), tuple(seeds), 1, 1, 0.0
        )

    steps, draw = [], augment.draw

    def stop(*given, **keywords):
        steps.append(None)
        if len(steps) == at:
            os.kill(os.getpid(), signal.SIGTERM)
        return draw(*given, **keywords)

    npz("two.npz")
    monkeypatch.setattr(step_size, "evaluate", evaluate)
    command = (
        "distill",
        "--dataset",
        "two.npz",
        "--width",
        4,
        "--steps",
        3,
        "--lr-img",
        "auto",
        "--out",
        "o",
    )
    assert run(*command)[0] == 0
    whole = (here / "o").read_bytes()
    (here / "o").unlink()
    monkeypatch.setattr(augment, "draw", stop)
    code, _, err = run(*command)
    assert (code, len(steps)) == (143, at), err
    assert ("the step sizes that were tried are in .o.trials" in err) == (at <= 12)
    code, _, err = run(*command)
    assert code == 0, err
    assert len(steps) == 15, "no step is taken twice"
    assert (here / "o").read_bytes() == whole
    assert [path.name for path in here.iterdir() if path.name.startswith(".")] == []


TEACHER = (
    "--method",
    "sre2l",
    "--set",
    "roll=1",
    "--set",
    "teacher={network: convnet-bn, width: 8, epochs: 2, flip: false}",
)
EXPERTS = (
    "--method",
    "mtt",
    "--step",
    "0.01",
    "--set",
    "experts={width: 8, experts: 1, epochs: 1}",
    "--set",
    "expert_epochs=1",
    "--set",
    "max_start_epoch=1",
)
STOPPED = {
    "a step": (
        (*DISTILL, "--steps", 9, "--out", "o"),
        (augment, "draw"),
        "stopped after step . of 9; the state is in .o.checkpoint",
    ),
    "a teacher": (
        ("distill", *TEACHER, "--out", "o"),
        (crops, "draw"),
        "squeeze: stopped in epoch 1 of 2; the epochs before it are kept",
    ),
    "experts": (
        ("distill", *EXPERTS, "--out", "o"),
        (augment, "draw"),
        "Experts: stopped in epoch 1 of 1, expert 1 of 1; the epochs",
    ),
    "evaluation": (
        ("evaluate", "{syn}", *EVALUATE),
        (networks, "initialise"),
        "stopped by (Ctrl-C|SIGTERM); nothing half-written is left",
    ),
}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
@pytest.mark.parametrize("case", STOPPED)
def test_a_signal_is_one_sentence_its_exit_code_and_no_set(run, here, syn, monkeypatch, case, number):
    arguments, (module, function), words = STOPPED[case]
    calls, original = [], getattr(module, function)

    def call(*given, **keywords):
        calls.append(len(calls))
        if len(calls) == 2:
            os.kill(os.getpid(), number)
        return original(*given, **keywords)

    monkeypatch.setattr(module, function, call)
    code, _, err = run(*(syn if one == "{syn}" else one for one in arguments))
    assert code == 128 + number
    assert re.match(f"ddcore: {words}", err), err
    assert err.count("\n") == 1
    assert not (here / "o").exists()
    assert len(calls) < 5


# the rest


def test_doctor_parses_and_shows(run):
    code, out, _ = run("doctor", "--json")
    assert code == 0
    found = json.loads(out)
    assert {"torch", "device 'auto'", "triton", "disk free", "data digits", "data fashion_mnist"} <= set(
        found
    )
    shown = run("doctor")[1]
    assert all(name in shown for name in found)


def test_figures_list_shows_every_id_whole(run):
    out = run("figures", "list")[1]
    assert all(key in out for key in figures.entries())
    assert "…" not in out


def test_figures_show(run):
    code, out, _ = run("figures", "show", "lodc-rank")
    assert code == 0
    assert out.startswith("lodc-rank: ")
    assert "11_low_rank_condensation" in out


def test_figures_check_finds_nothing_wrong_in_the_repository_and_says_what_it_finds(run, monkeypatch):
    code, out, _ = run("figures", "check")
    assert code == 0
    assert re.fullmatch(r"\d+ recorded figures, nothing wrong\n", out)
    monkeypatch.setattr(figures, "check", lambda: ["a.png: wrong [x]"])
    assert run("figures", "check") == (1, "", "a.png: wrong [x]\n")


@pytest.mark.parametrize("form", ["latex", "markdown", "bibtex", "all"])
def test_figures_cite(run, form):
    code, out, _ = run("figures", "cite", "lodc-rank", "--format", form)
    assert code == 0
    starts = {"latex": "\\begin{figure}", "markdown": "![", "bibtex": "@misc{ddcore"}
    assert [name for name, start in starts.items() if start in out] == (
        list(starts) if form == "all" else [form]
    )


def test_data_list_and_check(run, here):
    code, out, _ = run("data", "list")
    assert code == 0
    assert re.search(r"digits .* embedded", out)
    assert re.search(r"cifar10 .* absent", out)
    code, out, _ = run(
        "data", "check", "digits", npz(here / "two.npz", x_train=np.zeros((6, 8, 8, 1), np.uint8))
    )
    assert code == 0
    first, statistics, unequal, second, *rest = out.splitlines()
    assert re.fullmatch(
        r"digits: 1,437 \+ 360 images of \(1, 8, 8\), 10 classes, sha256 \w{16}… computed", first
    )
    assert re.fullmatch(r"  training images a class: 1\d\d to 1\d\d", statistics)
    assert unequal == "  mean 0.3053; standard deviation 0.3762"
    assert "6 + 6 images of (1, 8, 8), 2 classes" in second
    assert "channel 0 is nearly the same everywhere" in rest[-1]


def pictures(root, counts, splits=("train",)):
    """A folder of 9x8 images, so many of each class; `root`/<class> for a split of no name."""
    rng = np.random.default_rng(0)
    for split in splits:
        for name, many in counts.items():
            (root / split / name).mkdir(parents=True)
            for index in range(many):
                Image.fromarray(rng.integers(0, 256, (8, 9), np.uint8)).save(
                    root / split / name / f"{index}.png"
                )
    return root


def test_a_folder_of_classes_alone_is_checked_distilled_and_evaluated(run, here):
    (pictures(here / "months", {"1": 6, "10": 8, "2": 6}, ("",)) / ".hidden").mkdir()
    options = ("--size", 8, "--test-fraction", 0.5)
    code, out, _ = run("data", "check", "months", *options)
    assert code == 0
    for words in (
        "10 + 10 images of (1, 8, 8), 3 classes",
        "classes: 1, 2, 10",
        "3 to 4",
        "natural order",
        "1 file(s) left out: hidden",
        "central square",
    ):
        assert words in out
    code, _, err = run(
        "distill", "--dataset", "months", *options, "--width", 4, "--steps", 1, "--out", "a.safetensors"
    )
    assert code == 0, err
    assert "natural order" in err
    assert ddcore.load_synthetic("a.safetensors").class_names == ("1", "2", "10")
    code, out, err = run(
        "evaluate",
        "a.safetensors",
        "--dataset",
        "months",
        *options,
        "--width",
        4,
        "--epochs",
        1,
        "--seeds",
        1,
    )
    assert code == 0, err
    assert (
        run("evaluate", "a.safetensors", "--dataset", "months", "--test-fraction", 0.5, "--width", 4)[0] == 2
    )
    assert "test_fraction" in run("distill", "--dataset", "months", "--size", 8, "--out", "b.safetensors")[2]


def test_a_control_that_a_class_is_too_small_for_is_left_out_and_the_others_stay(run, here):
    pictures(here / "three", {"few": 3, "many": 8}, ("train", "test"))
    options = ("--dataset", "three", "--size", 8)
    assert run("distill", *options, "--width", 4, "--steps", 1, "--ipc", 2, "--out", "a.safetensors")[0] == 0
    code, out, err = run(
        "evaluate",
        "a.safetensors",
        *options,
        "--width",
        4,
        "--epochs",
        1,
        "--seeds",
        1,
        "--json",
        "--controls",
        "random,svd,whole",
    )
    assert code == 0, err
    assert set(json.loads(out)["controls"]) == {"random", "whole"}
    assert "control svd left out: it takes 4 training images a class, and class few has 3" in err


def test_a_small_class_does_not_make_the_batches_of_the_others_smaller(run, here):
    pictures(here / "three", {"few": 3, "many": 9, "more": 12}, ("train", "test"))
    code, _, err = run(
        "distill",
        "--dataset",
        "three",
        "--size",
        8,
        "--width",
        4,
        "--batch-real",
        10,
        "--steps",
        2,
        "--strategy",
        "none",
        "--out",
        "a.safetensors",
    )
    assert code == 0, err
    assert (
        "2 of 3 classes have fewer than batch_real=10 training images (the smallest 3); each step draws all of theirs"
        in err
    )
    data = ddcore.load("three", "cpu", size=8)
    expected = ddcore.Pixels(data, 1, seed=0)
    ddcore.distill(data, expected, ddcore.DM(width=4, batch_real=10, strategy="none"), steps=2)
    assert torch.equal(ddcore.load_synthetic("a.safetensors").images(), expected.images())


def test_import_makes_a_set_of_a_published_file(run, here):
    images, labels = torch.randn(10, 1, 8, 8), torch.arange(10)
    torch.save({"data": [[images, labels]], "accs_all_exps": {"ConvNet": [np.float64(0.5)]}}, "res.pt")
    code, out, err = run("import", "res.pt", "--dataset", "digits", "--out", "a.safetensors")
    assert (code, out, err) == (0, "", "a.safetensors: 1 images a class of digits\n")
    assert torch.equal(ddcore.load_synthetic("a.safetensors").images(), images)


def test_classes_smaller_than_the_batch_are_told_and_used_whole(run, here):
    code, _, err = run(*DISTILL, "--batch-real", "140", "--steps", "1", "--out", "o")
    assert code == 0
    assert re.search(
        r"\d of 10 classes have fewer than batch_real=140 training images .*; each step draws all of theirs",
        err,
    )


def test_compiled_auto_compiles_where_it_pays_and_says_so(run, here, monkeypatch):
    """By a rule on sizes: a run of the published size pays for the compiler, the same run of one step does not."""
    seen = []
    monkeypatch.setattr(
        compute, "accelerate", lambda function, at, *, precision, compiled: seen.append(compiled) or function
    )
    for steps, limit, expected in (("1", compute.WORTH_COMPILING, False), ("1", 1, True)):
        monkeypatch.setattr(compute, "WORTH_COMPILING", limit)
        for given, compiled in (("auto", expected), ("no", False), ("yes", True)):
            code, _, err = run(*DISTILL, "--width", "4", "--steps", steps, "--compiled", given, "--out", "o")
            assert code == 0
            assert set(seen) == {compiled}
            assert ("compiled, since" in err) == (given == "auto" and expected)
            seen.clear()
    assert run(*DISTILL, "--compiled", "perhaps", "--out", "o")[0] == 2


def test_bench_prints_json_or_a_table(run, monkeypatch):
    numbers = ("ratio", "ratio_p20", "ratio_p80", "memory_ratio", "operations", "max_rel_error", "seconds")
    row = dict.fromkeys(numbers, 1.0) | {"name": "step", "provider": "one", "fraction_of_ceiling": None}
    asked = []
    monkeypatch.setattr(bench, "speed", lambda data, **numbers: asked.append(numbers) or [row])
    code, out, _ = run("bench", "--dataset", "digits", "--json")
    assert code == 0
    assert json.loads(out) == [row]
    assert "ceiling" in run("bench", "--dataset", "digits", "--eager")[1]
    assert [one["compiled"] for one in asked] == [True, False]
