"""Epochs kept: what is left after a stop, and what does not count."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore.files.epochs import remaining
from ddcore.random import stream


def train(path, epochs=5, until=None, identity="a", name="x"):
    """A training that draws: the state after `until` whole epochs and a part of the next, and the epochs that were begun."""
    state, generator, begun = {name: torch.zeros(3)}, stream(0, "test"), []
    for epoch in remaining(epochs, state, generator, path, identity):
        begun.append(epoch)
        state[name].add_(torch.randn(3, generator=generator))
        if epoch == until:
            break
    return state[name], begun


@given(cuts=st.lists(st.integers(0, 5), max_size=4).map(sorted))
def test_a_training_cut_anywhere_goes_on_bit_for_bit(tmp_path_factory, cuts):
    folder = tmp_path_factory.mktemp("epochs")
    whole, begun = train(folder / "whole")
    assert begun == list(range(5))
    done = 0
    for cut in cuts:
        begun = train(folder / "cut", until=cut)[1]
        assert begun == list(range(done, min(cut, 4) + 1))
        done = min(cut, 5)
    found, begun = train(folder / "cut")
    assert begun == list(range(done, 5))
    assert torch.equal(found, whole)
    assert {path.name for path in folder.iterdir()} == {"whole", "cut"}


@pytest.mark.parametrize("change", [{"identity": "b"}, {"name": "y"}])
def test_a_file_of_another_training_does_not_count(tmp_path, change):
    train(tmp_path / "cut", until=3)
    assert train(tmp_path / "cut", **change)[1] == list(range(5))


@pytest.mark.parametrize("keep", [0, 7, 40, -1])
def test_a_file_cut_short_does_not_count(tmp_path, keep):
    train(tmp_path / "cut", until=3)
    (tmp_path / "cut").write_bytes((tmp_path / "cut").read_bytes()[:keep])
    assert train(tmp_path / "cut")[1] == list(range(5))
