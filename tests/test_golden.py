"""A few numbers of every component that has a version: they move, or the version does, but never one without the other.

The records of figures/ are kept as long as the versions stand (`ddcore.lab.experiment`), so a change of numbers without a bump
would pass off old results as those of new code. After a wanted change: bump the VERSION of the component that the failure
names, then `python tests/test_golden.py` writes golden.json anew. The quantities are sums in float64 or of few steps, so
that another CPU finds them to 1e-4.
"""

import dataclasses
import functools
import json
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import ddcore
from ddcore import augment, networks
from ddcore.augment import crops
from ddcore.data import Dataset, whitening
from ddcore.evaluation import coresets, relabel
from ddcore.files import records
from ddcore.lab import experiment
from ddcore.lab.measurement import MEASUREMENTS, Measurement
from ddcore.lab.measurements import diversity, mechanism
from ddcore.lab.measurements.multi_index_sweeps import ARMS
from ddcore.methods import METHODS, squeeze
from ddcore.plugins import PLUGINS, weight_adjustment
from ddcore.random import stream
from ddcore.synthetic import KINDS, create

GOLDEN = Path(__file__).with_name("golden.json")
REFRESH = "run `python tests/test_golden.py` to refresh tests/golden.json"


def digits64() -> Dataset:
    data = ddcore.load("digits", "cpu")
    return dataclasses.replace(data, x_train=data.x_train.double(), x_test=data.x_test.double())


def sums(tensor: torch.Tensor) -> list[float]:
    """Mean size, and a mean that weighs every place differently."""
    flat = tensor.detach().double().flatten()
    return [
        float(flat.abs().mean()),
        float((flat.abs() * torch.linspace(0, 1, len(flat), dtype=torch.float64)).mean()),
    ]


def of_networks(name: str) -> list[float]:
    data = digits64()
    of_imagenet = name.endswith("-imagenet")
    shape = (
        (1, 28, 28)
        if name in ("alexnet", "vgg11", "lenet", "resnet18")
        else (3, 32, 32)
        if of_imagenet
        else data.shape
    )
    width = None if of_imagenet else 8
    net = networks.build(
        name, shape, 10, width=width, dtype=torch.float64, generator=stream(0, "golden")
    ).eval()
    return sums(
        net(torch.nn.functional.interpolate(data.x_train[::400], shape[1:]).expand(-1, shape[0], -1, -1))
    )


def of_augment() -> list[float]:
    x = digits64().x_train[::100]
    found = []
    for name in augment.FAMILIES:
        found += sums(augment.apply(augment.draw(name, len(x), stream(0, "golden")), x, torch.arange(len(x))))
    drawn = augment.draw(augment.DSA, 10, stream(0, "golden"), each=2)
    return [*found, *drawn.family.double().tolist()]


def of_set(kind: str, init: str) -> list[float]:
    settings = {"rank": 1} if kind in ("adaptive", "lowrank", "tucker") else {}
    return sums(create(ddcore.load("digits", "cpu"), kind, 2, seed=0, init=init, **settings).images())


def of_coresets() -> list[float]:
    features = digits64().class_images(3)[:].flatten(1)
    found = [*coresets.herding(features, 5).tolist(), *coresets.k_center(features, 5).tolist()]
    for name in coresets.NAMES:
        found += sums(
            coresets.baseline(name, ddcore.load("digits", "cpu"), 2, width=8, rank=1, seed=0).images()
        )
    return list(map(float, found))


def of_dm() -> list[float]:
    data = digits64()
    syn = ddcore.Pixels(data, 1, seed=0)
    matches = METHODS["dm"](width=8, batch_real=16).matches(data, syn, seed=0)
    losses = [next(matches).loss for _ in range(3)]
    return [
        *(float(loss.detach()) for loss in losses),
        *sums(torch.autograd.grad(losses[-1], syn.parameters())[0]),
    ]


TEACHER = squeeze.Squeeze(network="convnet2-bn", width=6, epochs=2, crop=1)


def with_own_teacher(numbers: Callable[[], list[float]]) -> Callable[[], list[float]]:
    """`numbers` in an empty data folder: its teacher is trained, not found."""

    def found() -> list[float]:
        with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
            patch.setenv("DDCORE_DATA", folder)
            patch.delenv("DDCORE_CACHE", raising=False)
            return numbers()

    return found


def of_squeeze() -> list[float]:
    data = digits64()
    return sums(squeeze.squeeze(data, TEACHER)(data.x_train[::100]))


def of_sre2l(**how) -> list[float]:
    data = digits64()
    syn = ddcore.Pixels(data, 2, seed=0)
    matches = METHODS["sre2l"](teacher=TEACHER, **how).matches(data, syn, seed=0)
    losses = [next(matches).loss for _ in range(3)]
    return [
        *(float(loss.detach()) for loss in losses),
        *sums(torch.autograd.grad(losses[-1], syn.parameters())[0]),
    ]


def of_relabel() -> list[float]:
    data, found = digits64(), []
    x, y = data.x_train[::60], data.y_train[::60]
    for more in ({}, {"mix": "cutmix", "teacher_mode": "eval"}, {"labels": "hard"}):
        how = relabel.Relabel(
            network="convnet2-bn", width=6, epochs=3, batch=8, crop=1, teacher=TEACHER, **more
        )
        found += sums(how.train(x, y, data, (0,))[0].eval()(data.x_test[::20]))
    return found


def of_imagenets_relabel() -> list[float]:
    data = digits64()
    how = relabel.Relabel(
        network="convnet2-bn",
        width=6,
        epochs=3,
        batch=8,
        crop=0,
        crop_scale=0.3,
        mix="cutmix",
        alpha=1.0,
        temperature=20.0,
        teacher=TEACHER,
        teacher_mode="eval",
    )
    return sums(how.train(data.x_train[::60], data.y_train[::60], data, (0,))[0].eval()(data.x_test[::20]))


def of_crops() -> list[float]:
    x = digits64().x_train[::100]
    drawn = crops.draw(len(x), stream(0, "golden"))
    return [*sums(crops.apply(drawn, x, -1.0)), *sums(crops.roll(x, drawn.offset)), *sums(drawn.offset)]


def of_dc(name: str = "dc") -> list[float]:
    """Within an outer iteration and across two of them, the set updated between."""
    data = digits64()
    syn = ddcore.Pixels(data, 2, seed=0)
    trace = ddcore.distill(
        data, syn, METHODS[name](width=8, batch_real=16, outer=2, inner=2), steps=3, lr_img=0.1, seed=0
    )
    return [*trace.losses, *sums(syn.images())]


def of_distill() -> list[float]:
    data = digits64()
    syn = ddcore.Pixels(data, 1, seed=0)
    trace = ddcore.distill(
        data, syn, METHODS["dm"](width=8, batch_real=16), steps=3, lr_img=1.0, momentum=0.5, seed=0
    )
    return [*trace.losses, *sums(syn.images())]


def of_evaluate() -> list[float]:
    data = digits64()
    return list(
        ddcore.evaluate(ddcore.Pixels(data, 2, seed=0), data, seeds=(0, 1), width=8, epochs=6, lr=0.05).scores
    )


def of_measurement(name: str) -> list[float]:
    race = {
        "synthetic": {"kind": "pixels"},
        "method": {"name": "dm", "width": 8, "batch_real": 16},
        "budget_ipc": 1,
        "steps": [1, 3],
        "lr_img": 1.0,
        "protocol": {"width": 8, "epochs": 6, "lr": 0.05},
    }
    settings = {
        "spectra": {"ranks": [1, 3], "images": 40},
        "gradient_geometry": {"ranks": [1, 3], "draws": 3},
        "race": race,
        "leave_out": {
            "images": 100,
            "components": 5,
            "decays": (0.1, 0.001),
            "batches": 2,
            "steps": 3,
            "lengths": (0.5, 2.0),
        },
        "batch_variance": {
            "teacher": dataclasses.asdict(TEACHER),
            "images": 100,
            "sizes": (2, 10),
            "draws": 20,
            "points": 6,
        },
        "information_curve": {
            "plugins": {"mutual_information": {"width": 8}},
            "budget_ipc": 1,
            "steps": [0, 2],
            "lr_img": 1.0,
            "synthetic": race["synthetic"],
            "method": race["method"],
        },
        "adjusted_teacher": {
            "teacher": dataclasses.asdict(TEACHER),
            "rhos": (0.1, 1.0),
            "directions": weight_adjustment.DIRECTIONS,
            "steps": 3,
            "batches": 2,
            "images": 50,
        },
        "tapes": {"width": 8, "ipc": 1, "steps": [1, 3], "lr": 0.01, "repeats": 1},
    }[name]
    rows = MEASUREMENTS[name](ddcore.load("digits", "cpu"), seed=0, **settings)
    few = name in ("race", "tapes", "information_curve", "adjusted_teacher")
    every, skipped = (1, ("seconds", "first_seconds", "error")) if few else (7, ())
    return [
        float(value)
        for row in rows[::every]
        for key, value in row.items()
        if isinstance(value, float) and key not in skipped
    ]


def of_simulation(name: str) -> list[float]:
    size = {"d": 10, "r": 2, "L": 32, "ratio": 40.0, "points": 6}
    lists, exact = {key: [value] for key, value in size.items()}, {"precision": "float64"}
    more = {
        "multi_index_sweep": lists | exact | {"labels": [1.0], "arms": ARMS, "real": [4.0], "fresh": 2},
        "multi_index_subspace": size | exact,
        "multi_index_collapse": size | exact | {"steps": [1, 3], "decay": [0.7]},
        "information_bounds": {"classes": 3, "separation": [2.0], "negatives": [4, 64], "draws": 5},
        "critic_sizes": {
            "dimensions": 16,
            "temperature": 0.1,
            "population": 100,
            "negatives": [64],
            "draws": 20,
        },
    }[name]
    settings = Measurement(name, "", more)._settings()
    rows = MEASUREMENTS[name](torch.device("cpu"), seed=0, **settings)
    return [float(value) for row in rows[:20] for value in row.values() if isinstance(value, float)]


def of_mtt() -> list[float]:
    data = digits64()
    syn = ddcore.LowRank(data, 1, rank=1, init="svd", step=0.02, seed=0)
    how = {
        "experts": ddcore.Experts(width=8, experts=1, epochs=3, lr=0.05),
        "expert_epochs": 2,
        "max_start_epoch": 2,
        "syn_steps": 4,
    }
    found = []
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDCORE_DATA", folder)
        patch.delenv("DDCORE_CACHE", raising=False)
        for gradient in ("adjoint", "tesla"):
            loss = next(METHODS["mtt"](**how, gradient=gradient).matches(data, syn, seed=0)).loss
            found += [
                float(loss.detach()),
                *(number for one in torch.autograd.grad(loss, syn.parameters()) for number in sums(one)),
            ]
        experts = ddcore.methods.experts.experts(data, how["experts"])
        return [*found, *sums(torch.from_numpy(experts[0][-1].copy()))]


def of_mutual_information() -> list[float]:
    """Three steps of each critic and normaliser, the running one moved between."""
    data, found = digits64(), []
    for more in (
        {},
        {"critic": "infonce", "negatives": "all others"},
        {"critic": "mean", "layers": (1,)},
        {"normaliser": "none"},
    ):
        plugin, syn, memory = (
            PLUGINS["mutual_information"](width=16, **more),
            ddcore.Pixels(data, 1, seed=0),
            {},
        )
        matches = METHODS["dm"](width=8, batch_real=16).matches(data, syn, seed=0)
        terms = [plugin.loss(next(matches), memory) for _ in range(3)]
        found += [
            *(float(term.detach()) for term in terms),
            *sums(torch.autograd.grad(terms[-1], syn.parameters())[0]),
        ]
    return found


def of_weight_adjustment() -> list[float]:
    """Of every direction, through the batches of SRe2L."""
    data, found = digits64(), []
    syn = ddcore.Pixels(data, 2, seed=0)
    for direction in weight_adjustment.DIRECTIONS:
        plugin = PLUGINS["weight_adjustment"](rho=0.3, steps=3, direction=direction)
        loss = next(METHODS["sre2l"](teacher=TEACHER).matches(data, syn, seed=0, look=plugin.adjust)).loss
        found += [float(loss.detach()), *sums(torch.autograd.grad(loss, syn.parameters())[0])]
    return found


def of_mechanism() -> list[float]:
    data = ddcore.load("digits", "cpu")
    before, after = (ddcore.Pixels(data, 2, seed=seed) for seed in (0, 1))
    record = records.Record("0" * 16, "smoke", {"dataset": "digits", "budget_ipc": 2}, {}, {})
    probe = {"width": 8, "inits": 2, "network_inits": 2, "batch": 8, "directions": [2, 5], "draws": 2}
    rows = mechanism.Mechanism("digits", [("set", record, before, after)], probe).make(data, None)[0]["rows"]
    return [value for row in rows for value in row.values() if isinstance(value, float)][::17]


def of_diversity() -> list[float]:
    data = ddcore.load("digits", "cpu")
    how = {"teacher": dataclasses.asdict(TEACHER), "seed_teacher": 0}
    record = records.Record("0" * 16, "smoke", {"dataset": "digits", "seed": 0, "evaluate": how}, {}, {})
    one = diversity.Diversity(record, ddcore.Pixels(data, 3, seed=0), images=20, neighbours=5)
    return [row["value"] for row in one.make(data, None)[0]["rows"]]


def of_whitening() -> list[float]:
    return sums(whitening.whiten(digits64()).x_test[:])


MEASURE_THE_MACHINE = ("contrast_speed", "cost", "profile", "speed")

# name: (version, numbers)
COMPONENTS: dict[str, tuple[int, Callable[[], list[float]]]] = {
    **{
        f"networks {name}": (networks.VERSION, lambda name=name: of_networks(name))
        for name in (*networks.NAMES, "convnet2-bn")
    },
    "augment": (augment.VERSION, of_augment),
    **{
        f"{kind} {init}": (cls.version, lambda kind=kind, init=init: of_set(kind, init))
        for kind, cls in KINDS.items()
        for init in cls.inits
    },
    "coresets": (coresets.VERSION, of_coresets),
    "dm": (METHODS["dm"].version, of_dm),
    "dc": (METHODS["dc"].version, of_dc),
    "dsa": (METHODS["dsa"].version, lambda: of_dc("dsa")),
    "sre2l": (METHODS["sre2l"].version, with_own_teacher(of_sre2l)),
    "squeeze": (squeeze.VERSION, with_own_teacher(of_squeeze)),
    "relabel": (relabel.VERSION, with_own_teacher(of_relabel)),
    "sre2l of imagenet": (
        METHODS["sre2l"].version,
        with_own_teacher(lambda: of_sre2l(crop_scale=0.3, flip=True, block=4)),
    ),
    "relabel of imagenet": (relabel.VERSION, with_own_teacher(of_imagenets_relabel)),
    "crops": (crops.VERSION, of_crops),
    "mtt": (METHODS["mtt"].version, of_mtt),
    "mutual_information": (PLUGINS["mutual_information"].version, of_mutual_information),
    "weight_adjustment": (PLUGINS["weight_adjustment"].version, with_own_teacher(of_weight_adjustment)),
    "whitening": (whitening.VERSION, of_whitening),
    "diversity": (diversity.Diversity.version, with_own_teacher(of_diversity)),
    "mechanism": (mechanism.Mechanism.version, of_mechanism),
    "distill": (experiment.DISTILL_VERSION, of_distill),
    "evaluate": (experiment.EVALUATE_VERSION, of_evaluate),
    **{
        f"measurement {name}": (
            one.version,
            with_own_teacher(functools.partial(of_measurement if one.of_data else of_simulation, name)),
        )
        for name, one in MEASUREMENTS.items()
        if name not in MEASURE_THE_MACHINE
    },
}


def test_every_component_with_a_version_is_held():
    held = json.loads(GOLDEN.read_text(encoding="utf-8"))
    assert set(held) == set(COMPONENTS), REFRESH
    assert {*METHODS, *PLUGINS} <= set(COMPONENTS), "a method or plugin without golden numbers"


@pytest.mark.parametrize("name", COMPONENTS)
def test_numbers_move_with_their_version_only(name):
    version, numbers = COMPONENTS[name]
    held = json.loads(GOLDEN.read_text(encoding="utf-8")).get(name)
    assert held is not None, f"{name} is not in golden.json: {REFRESH}"
    assert held["version"] == version, (
        f"{name} has version {version}, golden.json holds the numbers of {held['version']}: {REFRESH}"
    )
    assert numbers() == pytest.approx(held["numbers"], rel=1e-4, abs=1e-6), (
        f"bump VERSION of {name.split()[0]}, and {REFRESH}"
    )


if __name__ == "__main__":
    found = {name: {"version": version, "numbers": [float(f"{number:.10g}") for number in numbers()]}
             for name, (version, numbers) in COMPONENTS.items()}  # fmt: skip
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(one)}" for name, one in sorted(found.items()))
    GOLDEN.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
