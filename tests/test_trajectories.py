"""Experts: trained as published, kept in whole files, gone on with after an interruption bit for bit, refused when they are others."""

import dataclasses
import os
import shutil
import signal
import threading

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import ddcore
from ddcore import augment, compute
from ddcore.methods import experts as trajectories
from ddcore.methods.experts import Experts, experts, fill, flatten, unflatten
from ddcore.random import stream

SMALL = Experts(
    network="mlp", width=6, experts=2, epochs=3, batch=500, lr=0.1, momentum=0.5, weight_decay=1e-3
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    return tmp_path / "experts"


def test_flat_parameters_are_those_of_the_network(digits):
    net = ddcore.networks.build("convnet2", digits.shape, 10, width=4, generator=stream(0, "net"))
    flat = flatten(net)
    x = digits.x_train[:5]
    assert torch.equal(torch.func.functional_call(net, unflatten(net, flat), (x,)), net(x))
    assert [*unflatten(net, flat)] == [name for name, _ in net.named_parameters()]
    other = fill(
        ddcore.networks.build("convnet2", digits.shape, 10, width=4, generator=stream(1, "net")), flat
    )
    assert torch.equal(other(x), net(x))
    flat.zero_()
    assert not torch.equal(other.classifier.weight, torch.zeros_like(other.classifier.weight)), (
        "a copy, not a view"
    )


def test_an_expert_is_the_plain_loop(digits, folder):
    data = dataclasses.replace(digits, x_train=digits.x_train.double())
    found = experts(data, SMALL, seed=4)[1]
    net = SMALL.network_for(data, stream(4, "experts", 1, "network"))
    velocity = [torch.zeros_like(parameter) for parameter in net.parameters()]
    rows = [flatten(net)]
    for epoch in range(3):
        generator = stream(4, "experts", 1, "epoch", epoch)
        for chosen in torch.randperm(len(data.y_train), generator=generator).split(500):
            drawn = augment.draw(augment.DSA, 1, generator, each=len(chosen))
            loss = F.cross_entropy(
                net(augment.apply(drawn, data.x_train[chosen], torch.arange(len(chosen)))),
                data.y_train[chosen],
            )
            gradients = torch.autograd.grad(loss, list(net.parameters()))
            with torch.no_grad():
                for parameter, gradient, speed in zip(net.parameters(), gradients, velocity, strict=True):
                    speed.mul_(0.5).add_(gradient + 1e-3 * parameter)
                    parameter.sub_(0.1 * speed)
        rows.append(flatten(net))
    assert found.shape == (4, len(rows[0]))
    np.testing.assert_allclose(found, torch.stack(rows).numpy(), rtol=1e-6, atol=1e-7)


def test_experts_trained_at_once_equal_one_after_another(digits, tmp_path, monkeypatch):
    data = dataclasses.replace(digits, x_train=digits.x_train.double())
    how = dataclasses.replace(SMALL, network="convnet2-bn", width=3, epochs=1, experts=3)
    alone = experts(data, how, folder=tmp_path / "alone")
    paths = {number: tmp_path / f"expert_{number}.npy" for number in range(3)}
    trajectories._train(data, how, 0, paths, None)
    for number, path in paths.items():
        np.testing.assert_allclose(np.load(path), alone[number], rtol=1e-6, atol=1e-7)


def test_two_that_need_the_same_experts_train_them_once(digits, tmp_path):
    done, found = [], []

    def ask():
        found.append(experts(digits, SMALL, folder=tmp_path, report=lambda *at: done.append(at)))

    both = [threading.Thread(target=ask) for _ in range(2)]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(done) == [(number, epoch) for number in range(2) for epoch in (1, 2, 3)]
    assert len(found) == 2
    assert all(map(np.array_equal, *found))


def test_they_are_memory_mapped_read_only_found_again_and_more_can_be_asked_for(digits, folder):
    done = []
    first = experts(digits, SMALL, report=lambda *at: done.append(at))
    assert done == [(number, epoch) for number in range(2) for epoch in (1, 2, 3)]
    assert all(
        isinstance(one, np.memmap) and not one.flags.writeable and one.dtype == np.float32 for one in first
    )
    assert not np.array_equal(first[0], first[1])
    again = experts(digits, SMALL, report=lambda *at: pytest.fail("trained anew"))
    assert all(map(np.array_equal, first, again))
    done.clear()
    three = experts(digits, dataclasses.replace(SMALL, experts=3), report=lambda *at: done.append(at))
    assert done == [(2, 1), (2, 2), (2, 3)]
    assert np.array_equal(three[1], first[1])
    (place,) = folder.iterdir()
    assert sorted(path.name for path in place.iterdir()) == [
        "expert_0.npy",
        "expert_1.npy",
        "expert_2.npy",
        "settings.json",
    ]


@pytest.mark.parametrize("at", [(0, 1), (0, 3), (1, 2)])
def test_an_interrupted_expert_goes_on_bit_for_bit(digits, tmp_path, at):
    expected = experts(digits, SMALL, folder=tmp_path / "whole")

    def stop(*now):
        if now == at:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experts(digits, SMALL, folder=tmp_path / "cut", report=stop)
    assert not (tmp_path / "cut" / f"expert_{at[0]}.npy").exists()
    done = []
    found = experts(digits, SMALL, folder=tmp_path / "cut", report=lambda *now: done.append(now))
    assert all(map(np.array_equal, found, expected))
    assert done == [(number, epoch) for number in range(2) for epoch in (1, 2, 3) if (number, epoch) > at]


@pytest.mark.parametrize(
    ("at", "number"), [((0, 1), signal.SIGINT), ((0, 3), signal.SIGTERM), ((1, 2), signal.SIGTERM)]
)
def test_an_expert_that_a_signal_stops_keeps_its_whole_epochs(digits, tmp_path, at, number):
    """The signal comes at the beginning of an epoch, whose batches are not waited for."""
    expected, done = experts(digits, SMALL, folder=tmp_path / "whole"), []

    def stop(*now):
        done.append(now)
        if now == at:
            os.kill(os.getpid(), number)

    with pytest.raises(
        ddcore.Interrupted, match=r"Experts: stopped in epoch \d of 3, expert \d of 2; .* kept in .*cut"
    ) as caught:
        experts(digits, SMALL, folder=tmp_path / "cut", report=stop)
    assert done[-1] == at
    assert caught.value.number == number
    assert all(map(np.array_equal, experts(digits, SMALL, folder=tmp_path / "cut", report=stop), expected))
    assert len(done) == 6


def test_experts_can_lie_apart_from_the_datasets(digits, folder, tmp_path, monkeypatch, refuses):
    how = dataclasses.replace(SMALL, experts=1, epochs=1)
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path))
    experts(digits, how)
    assert [path.name for path in tmp_path.iterdir()] == ["experts"]
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path / "file"))
    with refuses(tmp_path / "file" / "experts", "can't be made or written to", "set DDCORE_CACHE"):
        experts(digits, how)


def test_an_epoch_cut_short_by_a_crash_is_trained_anew(digits, tmp_path):
    expected = experts(digits, SMALL, folder=tmp_path / "whole")

    def stop(*now):
        if now == (0, 2):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        experts(digits, SMALL, folder=tmp_path / "cut", report=stop)
    last = tmp_path / "cut" / "expert_0.epochs" / "2.npy"
    last.write_bytes(last.read_bytes()[:-40])
    assert all(map(np.array_equal, experts(digits, SMALL, folder=tmp_path / "cut"), expected))


def test_half_precision_is_that_of_the_files_alone(digits, tmp_path):
    whole = experts(digits, SMALL, folder=tmp_path / "single")
    half = experts(digits, dataclasses.replace(SMALL, dtype="float16"), folder=tmp_path / "half")
    assert half[0].dtype == np.float16
    assert all(np.array_equal(one.astype(np.float16), other) for one, other in zip(whole, half, strict=True))


def test_half_precision_experts_serve_mtt(digits, folder):
    method = ddcore.MTT(
        experts=dataclasses.replace(SMALL, dtype="float16"),
        expert_epochs=1,
        max_start_epoch=2,
        syn_steps=2,
        batch_real=2,
    )
    trace = ddcore.distill(digits, ddcore.Pixels(digits, 1, step=0.01), method, steps=1)
    assert 0 < trace.losses[0] < 100


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"network": "convnet2"}, ("network=mlp", "network=convnet2")),
        ({"epochs": 4}, ("epochs=3", "epochs=4")),
        ({"strategy": "none"}, ("strategy=",)),
        ({"lr": 0.2}, ("lr=0.1", "lr=0.2")),
    ],
)
def test_a_folder_of_other_experts_is_refused(digits, tmp_path, refuses, change, words):
    how = dataclasses.replace(SMALL, experts=1)
    experts(digits, how, folder=tmp_path)
    with refuses(tmp_path / "settings.json", "another folder", *words):
        experts(digits, dataclasses.replace(how, **change), folder=tmp_path)


def test_experts_of_another_dataset_or_seed_are_refused(digits, tmp_path, refuses):
    how = dataclasses.replace(SMALL, experts=1)
    experts(digits, how, folder=tmp_path)
    with refuses("settings.json", "dataset=digits"):
        experts(digits.holdout(0.1), how, folder=tmp_path)
    with refuses("settings.json", "seed=0", "seed=1"):
        experts(digits, how, seed=1, folder=tmp_path)
    (tmp_path / "settings.json").write_text("{", encoding="utf-8")
    with refuses("settings.json", "train anew"):
        experts(digits, how, folder=tmp_path)


@pytest.mark.parametrize("keep", [0, 5, 60, 200, -1])
def test_a_file_cut_short_is_refused(digits, tmp_path, refuses, keep):
    how = dataclasses.replace(SMALL, experts=1)
    path = tmp_path / "expert_0.npy"
    experts(digits, how, folder=tmp_path)
    path.write_bytes(path.read_bytes()[:keep])
    with refuses(path, "remove it"):
        experts(digits, how, folder=tmp_path)


@pytest.mark.parametrize(
    "other", [np.zeros((4, 7), np.float32), np.zeros((4, 7), object), np.zeros((4, 496), np.float64)]
)
def test_a_file_of_another_shape_or_kind_is_refused(digits, tmp_path, refuses, other):
    how = dataclasses.replace(SMALL, experts=1)
    path = tmp_path / "expert_0.npy"
    experts(digits, how, folder=tmp_path)
    np.save(path, other, allow_pickle=True)
    with refuses(path, "remove it"):
        experts(digits, how, folder=tmp_path)


def test_experts_that_diverge_are_refused_and_leave_no_file(digits, tmp_path, refuses):
    with refuses("epoch 1", "lr=1e+30", "lower the lr"):
        experts(digits, dataclasses.replace(SMALL, lr=1e30), folder=tmp_path)
    assert not (tmp_path / "expert_0.npy").exists()


@pytest.mark.parametrize(
    "wrong",
    [
        {"experts": 0},
        {"epochs": 0},
        {"lr": 0.0},
        {"batch": 0},
        {"dtype": "int8"},
        {"precision": "float16"},
        {"strategy": "blur"},
    ],
)
def test_ill_settings_are_refused(refuses, wrong):
    with refuses(str(next(iter(wrong.values())))):
        Experts(**wrong)


@pytest.mark.usefixtures("untouched")
def test_the_global_random_state_is_left_alone(digits, tmp_path):
    experts(digits, dataclasses.replace(SMALL, experts=1, epochs=1), folder=tmp_path)


@pytest.mark.parametrize(
    "changed", [{"torch": "1.0"}, {"threads": 64}, {"cpu_capability": "DEFAULT"}, {"chunk_bytes": {"cpu": 1}}]
)
def test_experts_computed_with_something_else_are_not_taken_and_that_is_said(
    digits, folder, monkeypatch, refuses, capsys, changed
):
    how = dataclasses.replace(SMALL, experts=1, epochs=1)
    experts(digits, how)
    (first,) = folder.iterdir()
    (folder / "begun").mkdir()
    shutil.copy(first / "settings.json", folder / "begun")
    assert capsys.readouterr() == ("", "")
    bits = compute.bits(digits.device)
    assert changed.keys() <= bits.keys()
    monkeypatch.setattr(compute, "bits", lambda at: bits | changed)
    experts(digits, how)
    assert len([*folder.iterdir()]) == 3
    said, (name, value) = capsys.readouterr().err, *changed.items()
    assert said.count("\n") == 1
    assert said.startswith(
        f"experts: {first} is passed over, since it was computed with {name} {bits[name]} (here {value}); another"
    )
    experts(digits, how)
    experts(digits, dataclasses.replace(how, experts=2))
    assert capsys.readouterr().err == "", "now there are some"
    with refuses("computed_with", "another folder"):
        experts(digits, how, folder=first)
