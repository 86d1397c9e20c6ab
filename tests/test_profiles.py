"""The profile of the steps: shares of the time by kind of operation."""

import time

import pytest
import torch

from ddcore.bench.profiles import KINDS, OTHER, kind, profile, shares

CPU = torch.device("cpu")


@pytest.mark.parametrize(("operation", "expected"), [
    ("aten::mkldnn_convolution", "convolution"), ("aten::convolution_backward", "convolution"), ("aten::native_group_norm", "norm"),
    ("aten::avg_pool2d_backward", "ReLU and pooling"),
    ("aten::threshold_backward", "ReLU and pooling"), ("aten::copy_", "copies and casts"),
    ("## Call CompiledFxGraph abcdef", "fused"), ("aten::grid_sampler_2d", "augmentation"),
    ("aten::linalg_vector_norm", OTHER),
])  # fmt: skip
def test_operations_are_sorted_by_kind(operation, expected):
    assert kind(operation) == expected


def test_the_shares_are_of_the_whole_and_go_to_what_was_done():
    x, weight = torch.randn(8, 16, 32, 32), torch.randn(16, 16, 3, 3)
    found = shares(lambda: torch.nn.functional.conv2d(x, weight), CPU, 3)
    assert set(found) == {*KINDS, OTHER}
    assert sum(found.values()) == pytest.approx(1)
    assert found["convolution"] > 0.8
    assert found["norm"] == found["fused"] == 0


def test_rows_of_the_profile(digits, monkeypatch, tmp_path):
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path))
    monkeypatch.delenv("DDCORE_CACHE", raising=False)
    began = time.perf_counter()
    rows = profile(digits, seed=0, width=8, batch_real=4, ipc=1, repeats=1, compiled=False)
    assert {row["name"] for row in rows} == {"dm step, ipc 1", "dc step, ipc 1", "dsa step, ipc 1"}
    steps = {(row["name"], row["provider"]) for row in rows}
    assert len(steps) == 6
    assert len(rows) == 6 * len({*KINDS, OTHER})
    for step in steps:
        of = [row for row in rows if (row["name"], row["provider"]) == step]
        assert sum(row["share"] for row in of) == pytest.approx(1, abs=0.01)
        assert 0 < sum(row["seconds"] for row in of) < time.perf_counter() - began


def test_more_images_than_there_are_is_refused(digits, refuses):
    with refuses("profile", "training images"):
        profile(digits, seed=0, width=8, batch_real=5000, ipc=1, repeats=1)
