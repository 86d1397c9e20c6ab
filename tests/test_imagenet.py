"""A whole run of DWA in the shape of ImageNet's: a folder of photographs' files, torchvision's network from a file, recover, relabel."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

import ddcore
from ddcore.lab.experiment import Experiment
from ddcore.lab.runner import Runner
from ddcore.methods.squeeze import Squeeze

CLASSES, SIDE = ("n01440764", "n01443537", "n01484850"), 64


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A data folder with the dataset 'shapes' and, in teachers, the file of a network that its images have passed."""
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    numbers = np.random.default_rng(0)
    for split, many in (("train", 4), ("test", 2)):
        for label, name in enumerate(CLASSES):
            (tmp_path / "shapes" / split / name).mkdir(parents=True)
            for place in range(many):
                pixels = numbers.integers(0, 80, (SIDE, SIDE, 3), dtype=np.uint8)
                pixels[8 : 40 + place, 8 : 24 + 12 * label, label] += 150
                Image.fromarray(pixels).save(
                    tmp_path / "shapes" / split / name / f"{name}_{place}.JPEG", quality=90
                )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = models.resnet18(num_classes=3)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.momentum = None  # the statistics of the images alone
        network(ddcore.load("shapes", "cpu").x_train[:])
    (tmp_path / "teachers").mkdir()
    torch.save(network.state_dict(), tmp_path / "teachers" / "resnet18.pth")
    yield tmp_path
    (tmp_path / "teachers" / "resnet18.pth").unlink()


@pytest.mark.usefixtures("untouched")
def test_a_whole_run(home):
    """The published settings, but for the numbers of steps, epochs and classes a batch, and the side of the images."""
    teacher = {"network": "resnet18", "weights": "resnet18.pth"}
    experiment = Experiment(
        "shapes",
        1,
        {"kind": "pixels", "init": "real", "clip": True},
        {
            "name": "sre2l",
            "teacher": teacher,
            "r_var": 2.0,
            "roll": 9,
            "crop_scale": 0.08,
            "flip": True,
            "block": 2,
        },
        {"steps": 4, "optimiser": "adam", "lr_img": 0.25, "momentum": 0.5, "schedule": "cosine"},
        {
            "protocol": "relabel",
            "network": "resnet18-imagenet",
            "epochs": 1,
            "temperature": 20.0,
            "mix": "cutmix",
            "alpha": 1.0,
            "crop": 0,
            "crop_scale": 0.08,
            "teacher": teacher,
            "teacher_mode": "eval",
        },
        {"weight_adjustment": {"rho": 0.015, "steps": 3}},
    )
    runner = Runner("smoke", home / "records", device="cpu")
    record = runner.run(experiment)
    assert str(home) not in json.dumps(record.experiment) + json.dumps(record.result)
    assert record.experiment["method"]["teacher"] == record.experiment["evaluate"]["teacher"]
    assert record.experiment["method"]["teacher"]["weights"] == "resnet18.pth"
    assert 0 <= record.result["accuracy"] <= 100
    assert all(np.isfinite(record.result["losses"]))
    synthetic = ddcore.load_synthetic(home / "records" / f"{record.hash}.safetensors")
    data = ddcore.load("shapes", "cpu")
    begun = ddcore.Pixels(data, 1, seed=0)
    assert synthetic.shape == (3, SIDE, SIDE)
    assert float((synthetic.images() - begun.images()).detach().abs().mean()) > 0.1
    pixels = synthetic.images().detach() * torch.tensor(data.std).view(-1, 1, 1) + torch.tensor(
        data.mean
    ).view(-1, 1, 1)
    assert -1e-4 < float(pixels.min()) < float(pixels.max()) < 1 + 1e-4


def test_the_file_of_another_number_of_classes_stops_the_run_before_it_begins(home, refuses):
    (home / "teachers" / "resnet18.pth").unlink()
    with torch.random.fork_rng():
        torch.save(models.resnet18(num_classes=10).state_dict(), home / "teachers" / "resnet18.pth")
    runner, teacher = (
        Runner("smoke", home / "records", device="cpu"),
        {"network": "resnet18", "weights": "resnet18.pth"},
    )
    with refuses("resnet18.pth", "'fc.weight'", "of 10 classes", "shapes has 3"):
        runner.run(
            Experiment("shapes", 1, method={"name": "sre2l", "teacher": teacher}, distill={"steps": 1})
        )
    assert not list((home / "records").glob("[!.]*"))


def test_networks_of_several_batches_at_once_are_one_after_another(home):
    """Stacked weights, as a GPU computes them: torchvision's operations in place, and the normalisation of its own, have a rule there."""
    data, losses, gradients = ddcore.load("shapes", "cpu"), [], []
    for at_once in (1, 2):
        synthetic = ddcore.Pixels(data, 2, init="noise")
        method = ddcore.SRe2L(
            teacher=Squeeze(network="resnet18", weights="resnet18.pth"),
            crop_scale=0.3,
            flip=True,
            at_once=at_once,
        )
        match = next(method.matches(data, synthetic, seed=0, look=ddcore.WeightAdjustment(0.1, 1).adjust))
        losses.append(float(match.loss.detach()))
        gradients.append(torch.autograd.grad(match.loss, synthetic.parameters())[0])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    assert float((gradients[0] - gradients[1]).norm() / gradients[0].norm()) < 1e-3
