"""Networks from a file: the same numbers from every form of it, known by content, and one sentence for each way that it can be wrong."""

import argparse
import dataclasses
import pathlib

import pytest
import torch
from safetensors.torch import save_file
from torchvision import models

import ddcore
from ddcore import networks
from ddcore.lab.experiment import Experiment
from ddcore.methods import weights
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.random import stream
from ddcore.settings import build, stated

pytestmark = pytest.mark.usefixtures("teachers")
THREE = {"mean": (0.5,) * 3, "std": (0.25,) * 3}  # the normalisation of the fixture `coloured`


def moved(network, seed=0):
    """Running statistics as after a training."""
    for place, module in enumerate(network.modules()):
        if isinstance(module, torch.nn.BatchNorm2d):
            module.running_mean.normal_(generator=stream(seed, "mean", place))
            module.running_var.uniform_(0.5, 2, generator=stream(seed, "var", place))
    return network


@pytest.fixture(scope="module")
def resnet():
    """torchvision's ResNet18 of three classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return moved(models.resnet18(num_classes=3).eval())


@pytest.fixture(scope="module")
def ours():
    return networks.build("resnet18-imagenet", (3, 6, 10), 3, generator=stream(0, "net"))


@pytest.fixture
def state(resnet):
    return dict(resnet.state_dict())


@pytest.fixture
def file(tmp_path):
    yield tmp_path / "net.pth"
    for path in tmp_path.iterdir():
        path.unlink()


def convnet(seed=0, shape=(3, 6, 10), classes=3):
    return moved(
        networks.build("convnet1-bn", shape, classes, width=4, generator=stream(seed, "net")).eval(), seed
    )


def parallel(state):
    return {f"module.{name}": tensor for name, tensor in state.items()}


FORMS = {
    "plain": lambda state, path: torch.save(state, path),
    "legacy": lambda state, path: torch.save(state, path, _use_new_zipfile_serialization=False),
    "training": lambda state, path: torch.save(
        {"epoch": 90, "state_dict": parallel(state), "best": torch.tensor(69.8)}, path
    ),
    "torchvision's training": lambda state, path: torch.save(
        {"model": state, "epoch": 9, "args": argparse.Namespace(lr=0.1)}, path
    ),
    "older torch": lambda state, path: torch.save(
        {name: one for name, one in state.items() if "num_batches" not in name}, path
    ),
    "parameters": lambda state, path: torch.save(
        {name: torch.nn.Parameter(one, False) for name, one in state.items()}, path
    ),
    "safetensors": lambda state, path: save_file(state, path),
}


def test_a_file_of_torchvision_is_its_network(coloured, resnet, state, file):
    torch.save(state, file)
    teacher = squeeze(coloured, Squeeze(network="resnet18", weights=str(file), **THREE))
    assert torch.equal(teacher(coloured.x_train), resnet(coloured.x_train))
    assert not any(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_a_file_is_the_network_that_was_saved(form, coloured, file):
    path, network = file.with_suffix(".safetensors") if form == "safetensors" else file, convnet()
    FORMS[form](network.state_dict(), path)
    how = Squeeze(network="convnet1-bn", width=4, weights=str(path))
    assert torch.equal(squeeze(coloured, how)(coloured.x_train), network(coloured.x_train))
    torch.save(network.state_dict(), file.with_name("plain.pth"))
    assert how.sha256 == weights.sha256(file.with_name("plain.pth"))


def test_a_resnet_with_our_names_is_read(coloured, ours, file):
    torch.save(moved(ours).state_dict(), file)
    teacher = squeeze(coloured, Squeeze(network="resnet18-imagenet", weights=str(file), **THREE))
    assert torch.equal(teacher(coloured.x_train), ours.eval()(coloured.x_train))


def test_the_resnet_of_cifar_with_torchvisions_names_is_read(coloured, file):
    """As SRe2L and DWA save it: torchvision's ResNet18, its first convolution 3x3 and no max pool."""
    with torch.random.fork_rng():
        theirs = models.resnet18(num_classes=3)
        theirs.conv1, theirs.maxpool = torch.nn.Conv2d(3, 64, 3, 1, 1, bias=False), torch.nn.Identity()
    torch.save({"state_dict": parallel(moved(theirs.eval()).state_dict())}, file)
    ours = squeeze(coloured, Squeeze(network="resnet18-bn", weights=str(file)))
    torch.testing.assert_close(ours(coloured.x_train), theirs(coloured.x_train), rtol=1e-5, atol=1e-6)


def test_numbers_of_another_precision_are_read_in_that_of_the_data(coloured, file):
    network = convnet().half()
    torch.save(network.state_dict(), file)
    data = dataclasses.replace(coloured, x_train=coloured.x_train.double())
    found = squeeze(data, Squeeze(network="convnet1-bn", width=4, weights=str(file)))
    assert torch.equal(found.classifier.weight, network.classifier.weight.double())


# The pixels that the network was trained on


@pytest.mark.parametrize("given", [{}, {"mean": (0.1, 0.2, 0.3), "std": (0.3, 0.2, 0.1)}])
def test_a_teacher_sees_pixels_normalised_as_it_was_trained(given, coloured, resnet, state, file):
    torch.save(state, file)
    how = Squeeze(network="resnet18", weights=str(file), **given)
    given = given or {
        "mean": (0.485, 0.456, 0.406),
        "std": (0.229, 0.224, 0.225),
    }  # ImageNet's, if nothing is said
    mean, std = (torch.tensor(values).view(-1, 1, 1) for values in given.values())
    expected = resnet((coloured.x_train * 0.25 + 0.5 - mean) / std)
    features = squeeze(coloured, how).features(coloured.x_train)
    assert len(features) == 5
    torch.testing.assert_close(resnet.fc(features[-1].flatten(1)), expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(resnet(coloured.x_train), expected, rtol=1e-2)


def test_a_network_of_ours_sees_the_images_as_they_are(coloured, file):
    network = convnet()
    torch.save(network.state_dict(), file)
    how = Squeeze(network="convnet1-bn", width=4, weights=str(file))
    assert how.mean is how.std is None
    assert torch.equal(squeeze(coloured, how)(coloured.x_train), network(coloured.x_train))


def test_images_that_can_not_be_normalised_so_are_refused(coloured, digits, file, refuses):
    torch.save(convnet().state_dict(), file)
    how = Squeeze(network="convnet1-bn", width=4, weights=str(file), **THREE)
    with refuses("coloured-zca", "whitened"):
        squeeze(dataclasses.replace(coloured, name="coloured-zca", whitening=object()), how)
    torch.save(convnet(shape=digits.shape, classes=10).state_dict(), file)
    with refuses("digits", "1 channels"):
        squeeze(digits, Squeeze(network="convnet1-bn", width=4, weights=str(file), **THREE))


# What it is known by


def test_content_counts_and_place_does_not(coloured, file, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    other = tmp_path / "elsewhere" / file.name
    try:
        for path in (file, other):
            torch.save(convnet().state_dict(), path)
        here, there = (Squeeze(network="convnet1-bn", width=4, weights=str(path)) for path in (file, other))
        assert (
            stated(here)
            == stated(there)
            == {"network": "convnet1-bn", "width": 4, "weights": "net.pth", "sha256": here.sha256}
        )
        changed = convnet().state_dict()
        changed["blocks.0.0.weight"][0, 0, 0, 0] += 1e-7
        torch.save(changed, other)
        assert Squeeze(network="convnet1-bn", width=4, weights=str(other)).sha256 != here.sha256
    finally:
        other.unlink()
        other.parent.rmdir()


def test_a_trained_teacher_states_what_it_did():
    assert list(stated(Squeeze())) == [
        "network",
        "width",
        "epochs",
        "lr",
        "momentum",
        "weight_decay",
        "batch",
        "crop",
        "flip",
        "precision",
        "compiled",
    ]


def test_an_experiment_names_the_file_and_its_content_and_no_place(digits, file):
    torch.save(convnet(shape=digits.shape, classes=10).state_dict(), file)
    teacher = {"network": "convnet1-bn", "width": 4, "weights": str(file)}
    identity = Experiment(
        "digits",
        1,
        method={"name": "sre2l", "teacher": teacher},
        distill={"steps": 1},
        evaluate={"protocol": "relabel", "teacher": teacher},
    ).identity(digits)
    assert str(file.parent) not in str(identity)
    for part in ("method", "evaluate"):
        found = identity[part]["teacher"]
        assert found == {
            "network": "convnet1-bn",
            "width": 4,
            "weights": "net.pth",
            "sha256": weights.sha256(file),
        }
    file.unlink()  # of a record made elsewhere, whose file is not here, the identity can still be told
    again = Experiment(
        "digits",
        1,
        method={"name": "sre2l", "teacher": found},
        distill={"steps": 1},
        evaluate={"protocol": "relabel", "teacher": found},
    ).identity(digits)
    assert again == identity


def test_neither_a_set_nor_a_checkpoint_holds_the_place(digits, file, tmp_path, monkeypatch):
    torch.save(convnet(shape=digits.shape, classes=10).state_dict(), file)
    method, synthetic, kept = (
        ddcore.SRe2L(teacher=Squeeze(network="convnet1-bn", width=4, weights=str(file))),
        ddcore.Pixels(digits, 1),
        [],
    )
    checkpoint = tmp_path / "run.checkpoint"
    ddcore.distill(
        digits,
        synthetic,
        method,
        steps=3,
        checkpoint=checkpoint,
        every_seconds=0,
        progress=lambda step, loss: kept.append(checkpoint.read_bytes() if step == 3 else b""),
    )
    held = synthetic.save(tmp_path / "set.safetensors").read_bytes()
    for content in (kept[-1], held):
        assert b"net.pth" in content
        assert str(tmp_path).encode() not in content


def test_a_file_is_read_once_for_its_sha256_while_it_stays_as_it_is(file, monkeypatch):
    torch.save(convnet().state_dict(), file)
    found = weights.sha256(file)
    read = []
    monkeypatch.setattr(weights, "read", lambda path: read.append(path) or {"x": torch.zeros(1)})
    assert weights.sha256(file) == found
    assert not read
    file.write_bytes(file.read_bytes() + b" ")
    assert weights.sha256(file) != found


def test_the_settings_that_a_set_states_find_the_file_beside_the_datasets(coloured, file, teachers, refuses):
    torch.save(convnet().state_dict(), file)
    how = Squeeze(network="convnet1-bn", width=4, weights=str(file))
    said = build(Squeeze, stated(how), "teacher")
    with refuses("weights net.pth", "no such file", teachers, how.sha256):
        squeeze(coloured, said)
    teachers.mkdir(exist_ok=True)
    try:
        torch.save(convnet(1).state_dict(), teachers / "net.pth")
        with refuses(teachers / "net.pth", how.sha256, "are needed"):
            squeeze(coloured, said)
        torch.save(convnet().state_dict(), teachers / "net.pth")
        assert torch.equal(squeeze(coloured, said)(coloured.x_train), convnet()(coloured.x_train))
    finally:
        (teachers / "net.pth").unlink()


def test_a_file_that_changed_since_it_was_named_is_refused(coloured, file, refuses):
    torch.save(convnet().state_dict(), file)
    how = Squeeze(network="convnet1-bn", width=4, weights=str(file))
    torch.save(convnet(1).state_dict(), file)
    with refuses(file, how.sha256):
        squeeze(coloured, how)


# What does not fit


class Code:
    """A pickle that does something when it is loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return pathlib.Path.touch, (self.path,)


def without(name):
    return lambda state: {key: tensor for key, tensor in state.items() if key != name}


def put(name, change):
    return lambda state: state | {name: change(state[name])}


WRONG = {
    "a weight is missing": (
        without("layer2.0.conv1.weight"),
        ("no 'layer2.0.conv1.weight'", "(128, 64, 3, 3)", "resnet18-imagenet"),
    ),
    "no statistics": (
        lambda state: {name: one for name, one in state.items() if "running" not in name},
        ("no 'bn1.running_mean'", "statistics"),
    ),
    "the stem of CIFAR": (
        put("conv1.weight", lambda one: one[:, :, :3, :3].clone()),
        ("'conv1.weight'", "(64, 3, 3, 3)", "(64, 3, 7, 7)"),
    ),
    "a thousand classes": (
        lambda state: state | {"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
        ("'fc.weight'", "(1000, 512)", "of 1000 classes", "coloured has 3"),
    ),
    "a deeper network": (
        lambda state: state | {"layer1.2.conv1.weight": torch.zeros(64, 64, 3, 3)},
        ("'layer1.2.conv1.weight'", "resnet18-imagenet has not"),
    ),
    "not a number": (
        put("bn1.running_mean", lambda one: torch.where(torch.arange(64) < 2, float("nan"), one)),
        ("2 numbers of 'bn1.running_mean'", "not finite"),
    ),
    "infinite": (put("fc.bias", lambda one: one / 0), ("3 numbers of 'fc.bias'", "not finite")),
    "a variance below zero": (
        put("bn1.running_var", torch.negative),
        ("64 numbers of 'bn1.running_var'", "below 0"),
    ),
    "integers": (
        put("conv1.weight", lambda one: one.to(torch.int8)),
        ("'conv1.weight' is torch.int8", "floating-point"),
    ),
    "another thing": (
        lambda state: state | {"optimizer": 3},
        ("'optimizer'", "int", "torch.save(network.state_dict(), FILE)"),
    ),
    "a list": (lambda state: list(state.values()), ("list", "tensors by name")),
    "nothing": (lambda state: {}, ("nothing", "tensors by name")),
    "names of no one": (lambda state: {"weight": torch.zeros(2)}, ("no 'conv1.weight'", "resnet18-imagenet")),
}


@pytest.mark.parametrize("case", WRONG)
def test_what_does_not_fit_is_one_sentence(case, coloured, ours, state, file, refuses):
    change, words = WRONG[case]
    torch.save(change(state), file)
    with refuses(file, *words):
        weights.fill(ours, "resnet18-imagenet", file, coloured)


def test_a_pickle_with_code_is_refused_and_not_run(resnet, state, file, tmp_path, refuses):
    for content in (state | {"more": Code(tmp_path / "ran")}, Code(tmp_path / "ran")):
        torch.save(content, file)
        with refuses(file, "code is never loaded", "torch.save(network.state_dict(), FILE)"):
            Squeeze(network="resnet18", weights=str(file))
    torch.save(resnet, file)
    with refuses(file, "torchvision.models.resnet.ResNet", "code is never loaded"):
        Squeeze(network="resnet18", weights=str(file))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("form", ["plain", "legacy", "safetensors"])
def test_a_file_cut_short_is_refused(form, file, refuses):
    path = file.with_suffix(".safetensors") if form == "safetensors" else file
    FORMS[form](convnet().state_dict(), path)
    whole = path.read_bytes()
    for length in (0, 7, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with refuses(path, "not whole"):
            Squeeze(network="convnet1-bn", width=4, weights=str(path))


def test_a_file_of_something_else_is_refused(file, refuses):
    file.write_text("version https://git-lfs.github.com/spec/v1", encoding="utf-8")
    with refuses(file, "not of this form"):
        Squeeze(weights=str(file))


@pytest.mark.parametrize(("given", "words"), [
    ({"epochs": 5}, ("epochs=5", "trained already")), ({"flip": False}, ("flip=False", "leave flip out")),
    ({"precision": "bfloat16"}, ("precision=bfloat16",)), ({"mean": (0.5,)}, ("mean", "give both")),
    ({"mean": (0.5,), "std": (0.5, 0.5)}, ("mean", "give both")), ({"mean": (0.5,), "std": (0.0,)}, ("std[0]=0.0", "above 0")),
    ({"network": "resnet18-nonorm"}, ("resnet18-nonorm", "batch norm")), ({"network": "resnet34"}, ("resnet34", "batch norm")),
])  # fmt: skip
def test_settings_that_fit_no_file_are_refused(given, words, file, refuses):
    torch.save(convnet().state_dict(), file)
    with refuses(*words):
        Squeeze(**{"network": "convnet1-bn", "width": 4, "weights": str(file)} | given)


@pytest.mark.parametrize("given", [{"sha256": "0" * 64}, {"mean": (0.5,)}, {"std": (0.5,)}])
def test_what_is_said_of_a_file_without_one_is_refused(given, refuses):
    with refuses(next(iter(given)), "without weights"):
        Squeeze(**given)


@pytest.mark.usefixtures("untouched")
def test_neither_reading_nor_drawing_touches_the_global_state(coloured, file):
    torch.save(convnet().state_dict(), file)
    squeeze(coloured, Squeeze(network="convnet1-bn", width=4, weights=str(file)))
