"""Squeeze: the published training loop, kept on disk, read back only if it is whole and the one that was asked for."""

import dataclasses
import os
import signal

import pytest
import torch
from safetensors.torch import load_file, safe_open, save_file

import ddcore
from ddcore import compute, networks
from ddcore.augment import crops
from ddcore.evaluation import accuracy
from ddcore.methods import squeeze
from ddcore.methods.squeeze import Squeeze
from ddcore.optim.sgd import cosine
from ddcore.random import stream

TINY = Squeeze(network="convnet2-bn", width=6, epochs=2, crop=1, flip=False)


def test_training_is_the_published_loop(digits64, tmp_path):
    """SGD with momentum and weight decay, the rate by torch's cosine once an epoch, batch norm in training mode."""
    from torch.optim import SGD
    from torch.optim.lr_scheduler import CosineAnnealingLR

    how = dataclasses.replace(TINY, epochs=3, flip=True, batch=100)
    ours = squeeze.squeeze(digits64, how, 5, tmp_path)
    net = networks.build(
        "convnet2-bn",
        digits64.shape,
        10,
        width=6,
        dtype=torch.float64,
        generator=stream(5, "squeeze", "network"),
    )
    optimiser = SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    schedule, generator = CosineAnnealingLR(optimiser, T_max=3), stream(5, "squeeze", "train")
    for _ in range(3):
        for rows in torch.randperm(len(digits64.x_train), generator=generator).split(100):
            drawn = crops.draw(len(rows), generator, pad=1)
            optimiser.zero_grad()
            x = crops.apply(drawn, digits64.x_train[rows], -digits64.mean[0] / digits64.std[0])
            torch.nn.CrossEntropyLoss()(net(x), digits64.y_train[rows]).backward()
            optimiser.step()
        schedule.step()
    for name, tensor in net.state_dict().items():
        torch.testing.assert_close(ours.state_dict()[name], tensor, rtol=1e-10, atol=1e-10)


def test_a_teacher_is_frozen_in_eval_mode_and_good(digits, tmp_path):
    net = squeeze.squeeze(digits, dataclasses.replace(TINY, width=16, epochs=10), folder=tmp_path)
    assert accuracy(net, digits) > 93
    assert not any(module.training for module in net.modules())
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_the_second_call_reads_and_gives_a_network_of_its_own(digits, tmp_path, monkeypatch):
    first = squeeze.squeeze(digits, TINY, folder=tmp_path)
    monkeypatch.setattr(squeeze, "_train", lambda *arguments: pytest.fail("trained again"))
    second = squeeze.squeeze(digits, TINY, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 1
    for name, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[name])
    with torch.no_grad():
        second.classifier.weight.zero_()
    assert first.classifier.weight.abs().sum() > 0
    assert not second.training


def test_its_place_is_beside_the_datasets_unless_another_is_named(
    digits, teachers, tmp_path, monkeypatch, refuses
):
    squeeze.squeeze(digits, TINY)
    assert [path.suffix for path in teachers.iterdir()] == [".safetensors"]
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path))
    squeeze.squeeze(digits, TINY)
    assert [path.name for path in (tmp_path / "teachers").iterdir()] == [
        path.name for path in teachers.iterdir()
    ]
    (tmp_path / "file").touch()
    monkeypatch.setenv("DDCORE_CACHE", str(tmp_path / "file"))
    with refuses(tmp_path / "file" / "teachers", "can't be made or written to", "set DDCORE_CACHE"):
        squeeze.squeeze(digits, TINY)


def test_settings_data_seed_and_type_of_numbers_have_a_file_each(digits, digits64, tmp_path):
    squeeze.squeeze(digits, TINY, folder=tmp_path)
    squeeze.squeeze(digits, dataclasses.replace(TINY, lr=0.05), folder=tmp_path)
    squeeze.squeeze(digits, TINY, 1, tmp_path)
    squeeze.squeeze(digits64, TINY, folder=tmp_path)
    squeeze.squeeze(digits.holdout(0.2), TINY, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 5


def test_a_file_that_is_not_whole_or_not_the_one_is_refused(digits, tmp_path, refuses):
    squeeze.squeeze(digits, TINY, folder=tmp_path)
    (path,) = tmp_path.iterdir()
    whole = path.read_bytes()
    for length in (0, 40, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with refuses(path, "remove it"):
            squeeze.squeeze(digits, TINY, folder=tmp_path)
    path.write_bytes(whole)
    tensors = load_file(path)
    with safe_open(path, "pt") as file:
        metadata = file.metadata()
    save_file(tensors, path, {"ddcore": "another"})
    with refuses(path, "does not hold", "remove it"):
        squeeze.squeeze(digits, TINY, folder=tmp_path)
    save_file({name: tensor for name, tensor in tensors.items() if name != "classifier.bias"}, path, metadata)
    with refuses(path, "does not hold", "remove it"):
        squeeze.squeeze(digits, TINY, folder=tmp_path)
    save_file(tensors | {"classifier.bias": tensors["classifier.bias"] * float("nan")}, path, metadata)
    with refuses(path, "not finite", "remove it"):
        squeeze.squeeze(digits, TINY, folder=tmp_path)
    path.unlink()
    squeeze.squeeze(digits, TINY, folder=tmp_path)


@pytest.mark.parametrize(("epoch", "number"), [(0, signal.SIGINT), (1, signal.SIGTERM), (3, signal.SIGTERM)])
def test_a_teacher_that_is_stopped_goes_on_from_its_last_whole_epoch_bit_for_bit(
    digits, tmp_path, monkeypatch, epoch, number
):
    """In the middle of an epoch: its first half is trained anew."""
    how, drawn = dataclasses.replace(TINY, epochs=4, batch=400), []
    whole = squeeze.squeeze(digits, how, 2, tmp_path / "whole")

    def draw(*arguments, **keywords):
        drawn.append(len(drawn))
        if len(drawn) == 4 * epoch + 2:
            os.kill(os.getpid(), number)
        return original(*arguments, **keywords)

    original = crops.draw
    monkeypatch.setattr(crops, "draw", draw)
    with pytest.raises(
        ddcore.Interrupted, match=rf"in epoch {epoch + 1} of 4; the epochs before it are kept in .*cut"
    ) as caught:
        squeeze.squeeze(digits, how, 2, tmp_path / "cut")
    assert caught.value.number == number
    assert len(drawn) == 4 * epoch + 2, "no batch after the signal"
    drawn.append(None)
    found = squeeze.squeeze(digits, how, 2, tmp_path / "cut")
    assert len(drawn) == 4 * epoch + 3 + 4 * (4 - epoch), "whole epochs are not trained again"
    assert all(torch.equal(one, found.state_dict()[name]) for name, one in whole.state_dict().items())
    files = [
        {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("whole", "cut")
    ]
    assert files[0] == files[1]


def test_nothing_is_kept_of_a_training_that_diverged(digits, tmp_path):
    with pytest.raises(ddcore.Diverged, match="after epoch 1; use a smaller lr"):
        squeeze.squeeze(digits, dataclasses.replace(TINY, lr=1e38), folder=tmp_path)
    with pytest.raises(ddcore.Diverged, match=r"after epoch [2-9]"):
        squeeze.squeeze(
            digits, dataclasses.replace(TINY, lr=1e4, batch=1437, epochs=9, weight_decay=0.1), folder=tmp_path
        )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["convnet3", "convnet3-in", "resnet18-nonorm", "mlp", "lenet"])
def test_a_network_without_batch_norm_is_refused(name, refuses):
    with refuses(name, "batch norm", "convnet3-bn"):
        Squeeze(network=name)


@pytest.mark.parametrize(
    "wrong", [{"epochs": 0}, {"lr": 0.0}, {"batch": 0}, {"crop": -1}, {"precision": "float16"}]
)
def test_ill_settings_are_refused(wrong, refuses):
    with refuses(next(iter(wrong))):
        Squeeze(**wrong)


def test_an_unknown_network_is_refused_before_it_is_trained(digits, tmp_path, refuses):
    with refuses("unknown network", "resnet19-bn"):
        squeeze.squeeze(digits, Squeeze(network="resnet19-bn"), folder=tmp_path)


def test_batches_cover_the_set_but_for_an_image_left_alone():
    generator = stream(0, "order")
    for count, size in ((10, 4), (8, 4), (9, 4), (1, 4), (5, 1), (3, 128)):
        found = list(squeeze.batches(count, size, generator))
        rows = torch.cat(found)
        alone = count % size == 1 and size > 1 and count > 1
        assert len(rows) == len(rows.unique()) == count - alone
        assert all(len(part) == size for part in found[:-1])


def test_the_cosine_falls_from_one_to_zero():
    assert [round(cosine(step, 4), 6) for step in range(5)] == [1, 0.853553, 0.5, 0.146447, 0]


def test_a_bfloat16_teacher_learns(digits, tmp_path):
    net = squeeze.squeeze(
        digits, dataclasses.replace(TINY, width=16, epochs=6, precision="bfloat16"), folder=tmp_path
    )
    assert accuracy(net, digits) > 85


@pytest.mark.parametrize(
    "changed", [{"torch": "1.0"}, {"threads": 64}, {"cpu_capability": "DEFAULT"}, {"chunk_bytes": {"cpu": 1}}]
)
def test_a_teacher_computed_with_something_else_is_not_taken_and_that_is_said(
    digits, tmp_path, monkeypatch, capsys, changed
):
    squeeze.squeeze(digits, TINY, folder=tmp_path)
    squeeze.squeeze(digits, dataclasses.replace(TINY, epochs=1), folder=tmp_path)
    assert capsys.readouterr() == ("", ""), "one of other settings is nothing to tell of"
    kept = {path: path.read_bytes() for path in tmp_path.glob("*.safetensors")}
    bits = compute.bits(digits.device)
    assert changed.keys() <= bits.keys()
    monkeypatch.setattr(compute, "bits", lambda at: bits | changed)
    (tmp_path / "foreign.safetensors").write_bytes(b"no network")
    squeeze.squeeze(digits, TINY, folder=tmp_path)
    assert len([*tmp_path.glob("*.safetensors")]) == 2 + 1 + 1
    assert all(path.read_bytes() == content for path, content in kept.items())
    said, (name, value) = capsys.readouterr().err, *changed.items()
    assert said.count("\n") == 1
    assert said.startswith(f"teacher: {tmp_path}")
    assert sum(str(path) in said for path in kept) == 1
    assert (
        f"is passed over, since it was computed with {name} {bits[name]} (here {value}); another one is trained now"
        in said
    )
    squeeze.squeeze(digits, TINY, folder=tmp_path)
    assert capsys.readouterr().err == "", "now there is one"
