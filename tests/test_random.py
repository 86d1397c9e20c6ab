import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore import augment, networks
from ddcore.random import stream

names = st.lists(st.text(max_size=5) | st.integers(-9, 10**6), max_size=3).map(tuple)


def bits(seed, *names):
    return torch.rand(4, generator=stream(seed, *names)).tolist()


def everything(data):
    """Each random call of the library once, its numbers as one list."""
    found = [
        data.sample(2, stream(0, "sample")),
        data.holdout(0.1).x_test[:],
        ddcore.LowRank(data, 1, rank=2).images(),
        ddcore.LowRank(data, 1, rank=2, init="svd").images(),
    ]
    for name in ("convnet-bn", "mlp", "alexnet"):
        found.append(
            networks.build(name, data.shape, 10, width=4, generator=stream(0, "net")).classifier.weight
        )
    networks.build("lenet", (1, 28, 28), 10, generator=stream(0, "net"))
    for family in augment.FAMILIES:
        found.append(
            augment.apply(augment.draw(family, 3, stream(0, "draw")), data.x_test[:6], torch.arange(6) % 3)
        )
    found += [
        ddcore.baseline(name, data, 1, width=4).images() for name in ("random", "herding", "k_center", "svd")
    ]
    pixels = ddcore.Pixels(data, 1, init="noise")
    ddcore.distill(data, pixels, ddcore.DM(width=4, batch_real=8), steps=2, lr_img=0.1)
    scores = ddcore.evaluate(pixels, data, seeds=range(2), epochs=1, width=4)
    return torch.cat(
        [part.flatten() for part in (*found, pixels.images(), torch.tensor(scores.scores))]
    ).tolist()


@given(st.integers(0, 2**40), names)
def test_same_names_same_bits(seed, names):
    assert bits(seed, *names) == bits(seed, *names)


@given(st.tuples(st.integers(0, 9), names), st.tuples(st.integers(0, 9), names))
def test_other_names_other_bits(one, other):
    assert (bits(one[0], *one[1]) == bits(other[0], *other[1])) == (one == other)


def test_a_number_and_its_text_are_two_names():
    assert bits(0, 1) != bits(0, "1")
    assert bits(0, "a", "b") != bits(0, "ab")


def test_a_numpy_number_names_the_same_stream():
    assert bits(0, np.int64(7), np.str_("a")) == bits(0, 7, "a")


def test_streams_are_uniform():
    first = torch.tensor([bits(seed, "u", seed % 7) for seed in range(500)]).flatten()
    assert abs(first.mean() - 0.5) < 4 * (1 / 12 / 2000) ** 0.5
    assert abs(first.var() - 1 / 12) < 0.006


def test_no_call_touches_global_state(untouched):
    everything(ddcore.load("digits", "cpu"))


def test_no_first_call_touches_global_state():
    """In a fresh process, where calls import what they need."""
    code = (
        "import conftest, test_random, ddcore; before = conftest.global_states(); "
        "test_random.everything(ddcore.load('digits', 'cpu')); assert conftest.global_states() == before"
    )
    subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).parent, check=True, timeout=300)


def test_global_state_touches_no_call(digits):
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        np.random.seed(seed)  # noqa: NPY002
        random.seed(seed)
        found.append(everything(digits))
    assert found[0] == found[1]
