"""Shards recovered apart and joined are the set recovered whole, bit for bit."""

import pytest
import torch

import ddcore
from ddcore.methods.shards import join, part
from ddcore.methods.squeeze import Squeeze

pytestmark = pytest.mark.usefixtures("teachers")
TINY = Squeeze(network="convnet2-bn", width=6, epochs=2, crop=1, flip=False)
ADAM = {"optimiser": "adam", "lr_img": 0.25, "momentum": 0.5, "schedule": "cosine"}


def sets(data):
    return {
        "noise": ddcore.Pixels(data, 5, init="noise", clip=True, seed=2),
        "real": ddcore.Pixels(data, 3, seed=2),
        "low rank": ddcore.LowRank(data, 1, rank=1, seed=2),
    }


def recover(data, synthetic, plugins, **settings):
    ddcore.distill(
        data,
        synthetic,
        ddcore.SRe2L(teacher=TINY, roll=2, **settings),
        plugins=plugins,
        steps=5,
        seed=4,
        **ADAM,
    )
    return synthetic


@pytest.mark.parametrize("name", ["noise", "real", "low rank"])
@pytest.mark.parametrize(
    "plugins", [(), (ddcore.WeightAdjustment(0.1, 2),), (ddcore.WeightAdjustment(0.1, direction="gaussian"),)]
)
@pytest.mark.parametrize(
    "setting", [{"batch": "init"}, {"batch": "other"}, {"crop_scale": 0.3, "flip": True, "block": 4}]
)
def test_shards_recovered_apart_and_joined_are_the_whole(digits64, name, plugins, setting, tmp_path):
    how = setting | {"at_once": 0 if plugins else 1}
    whole = recover(digits64, sets(digits64)[name], plugins, **how)
    parts = []
    for shard in (2, 0, 1):
        recovered = recover(digits64, part(sets(digits64)[name], shard, 3), plugins, **how)
        parts.append(ddcore.load_synthetic(recovered.save(tmp_path / f"{shard}.safetensors")))
    found = join(parts)
    assert all(torch.equal(found.tensors[key], one) for key, one in whole.tensors.items())
    assert found.settings == whole.settings
    assert torch.equal(found.labels, whole.labels)
    assert found.save(tmp_path / "joined").read_bytes() == whole.save(tmp_path / "whole").read_bytes()


def test_batches_in_one_pass_are_those_of_the_shards_to_rounding(digits64):
    whole = recover(digits64, sets(digits64)["noise"], ())
    found = join([recover(digits64, part(sets(digits64)["noise"], shard, 2), ()) for shard in range(2)])
    torch.testing.assert_close(found.images(), whole.images(), rtol=0, atol=1e-10)


@pytest.mark.parametrize("shards", [1, 2, 3, 5])
def test_a_cut_and_joined_set_is_the_set(digits64, shards):
    whole = sets(digits64)["noise"]
    parts = [part(whole, shard, shards) for shard in range(shards)]
    found = join(parts)
    assert torch.equal(found.images(), whole.images())
    assert found.images().is_contiguous()
    assert all(one.is_leaf and one.requires_grad for one in found.parameters())
    assert sum(one.per_class for one in parts) == 5
    assert max(one.per_class for one in parts) - min(one.per_class for one in parts) <= 1
    assert sum(one.stored_numbers for one in parts) == whole.stored_numbers
    for one in parts:
        assert torch.equal(one.labels, torch.arange(10).repeat_interleave(one.per_class))
        assert torch.equal(
            one.images()[: one.per_class], whole.images()[one.first : one.first + one.per_class]
        )
        with torch.no_grad():
            one.tensors["pixels"].zero_()
    assert whole.images().abs().min() > 0


def test_parts_that_are_none_are_refused(digits64, refuses):
    whole = sets(digits64)["noise"]
    for shards in (0, -1, 6):
        with refuses(f"shards={shards}", "1 to 5"):
            part(whole, 0, shards)
    for shard in (-1, 2):
        with refuses(f"shard={shard}", "0 to 1"):
            part(whole, shard, 2)
    with refuses("a shard has no shards"):
        part(part(whole, 0, 2), 0, 1)
    with refuses("share 'left'"):
        part(ddcore.Tucker(digits64, 2, rank=1), 0, 2)


def test_parts_that_do_not_fit_are_refused(digits64, refuses):
    whole = sets(digits64)["noise"]
    one, two = (part(whole, shard, 2) for shard in range(2))
    for parts in ([one], [two], [one, one, two], [one, part(whole, 2, 3)], [one, two, part(whole, 1, 5)]):
        with refuses("of 5 images a class", "give each once"):
            join(parts)
    strangers = part(ddcore.Pixels(digits64, 5, init="noise", clip=True, seed=3), 1, 2)
    for parts in (
        [],
        [whole],
        [one, whole],
        [one, strangers],
        [one, recover(digits64, part(whole, 1, 2), ())],
    ):
        with refuses("not shards of one set"):
            join(parts)
