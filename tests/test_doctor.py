import json

import pytest
from torchvision import datasets

from ddcore.cli import doctor
from ddcore.data import TORCHVISION


@pytest.fixture
def empty(tmp_path, monkeypatch):
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    return tmp_path


def test_facts_are_plain_and_name_what_the_issue_asks_for(empty):
    found = doctor.examine()
    assert json.loads(json.dumps(found)) == found
    assert all(value not in (None, "") for value in found.values())
    assert {"python", "torch", "device 'auto'", "triton", "disk free", "data folder", "data digits"} <= set(
        found
    )
    assert {f"data {name}" for name in TORCHVISION} <= set(found)
    assert found["data digits"] == "embedded"
    assert found["data folder"] == found["cache folder"] == str(empty)


def test_teachers_and_experts_can_lie_elsewhere(empty, monkeypatch):
    monkeypatch.setenv("DDCORE_CACHE", str(empty / "cache"))
    assert doctor.examine()["cache folder"] == str(empty / "cache")


@pytest.mark.parametrize("name", TORCHVISION)
def test_a_dataset_is_present_as_npz(empty, name):
    assert doctor.present(name) == "absent"
    (empty / f"{name}.npz").write_bytes(b"")
    assert doctor.present(name) == str(empty / f"{name}.npz")


@pytest.mark.parametrize(("name", "where"), [
    ("mnist", "MNIST"), ("fashion_mnist", "FashionMNIST"), ("cifar10", datasets.CIFAR10.base_folder),
    ("cifar100", datasets.CIFAR100.base_folder), ("svhn", datasets.SVHN.split_list["train"][1]),
])  # fmt: skip
def test_a_dataset_is_present_where_torchvision_puts_it(empty, name, where):
    (empty / "torchvision" / where).mkdir(parents=True)
    assert doctor.present(name) == str(empty / "torchvision" / where)
