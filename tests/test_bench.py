import time

import pytest
import torch

from ddcore import augment, bench, compute, doctor
from ddcore.random import stream

CPU = torch.device("cpu")
accelerate = compute.accelerate


@pytest.fixture
def quick(monkeypatch):
    """No compiler, and a small product as the ceiling."""
    product = bench.ceiling
    monkeypatch.setattr(bench, "ceiling", lambda at, dtype: product(at, dtype, side=64))
    monkeypatch.setattr(compute, "accelerate", lambda function, at, *, precision, compiled: accelerate(function, at, precision=precision))


def check_fields(rows, ipc):
    for row in rows:
        assert set(row) == set(bench.ROW)
        assert f"ipc {ipc}" in row["name"]
        assert row["seconds"] > 0
        assert row["n"] == 1
    assert rows[0]["ratio"] == 1.0
    assert "published" in rows[0]["provider"]
    for row in rows[1:]:
        assert row["ratio"] == pytest.approx(rows[0]["seconds"] / row["seconds"], rel=0.2, abs=0.05)


def test_rows_of_the_dm_step(digits, quick):
    rows = bench.dm_rows(digits, ipc=1, batch_real=4, width=16, repeats=1)
    check_fields(rows, 1)
    assert len(rows) == 4
    for row in rows:
        assert row["fraction_of_ceiling"] > 0
        exact = "bfloat16" not in row["provider"]
        assert (row["max_rel_error"] < 1e-4) == exact, "float32 is exact, bfloat16 is not"


@pytest.mark.slow
@pytest.mark.skipif("no C++" in doctor.examine()["torch.compile"], reason="no C++ compiler")
def test_a_compiled_step_is_exact_too(digits):
    net = bench.networks.build("convnet", digits.shape, 10, width=8, generator=torch.Generator().manual_seed(0))
    x = digits.x_train[:20]
    found = accelerate(net.features, CPU, compiled=True)(x)[-1]
    torch.testing.assert_close(found, net.features(x)[-1], rtol=1e-4, atol=1e-5)


def test_rows_of_the_evaluation(digits, quick):
    rows = bench.evaluate_rows(digits, ipc=1, width=8, networks_=2, repeats=1)
    check_fields(rows, 1)
    assert [row["fraction_of_ceiling"] for row in rows] == [None, None]
    assert rows[1]["max_rel_error"] < 0.01, "the same accuracies but for a few images at the border"


def test_seconds_is_the_median_without_the_first_call():
    naps = iter([0.3, 0.01, 0.05, 0.01])
    assert 0.01 <= bench.seconds(lambda: time.sleep(next(naps)), CPU, 3) < 0.05


def test_both_forms_of_the_loss_are_one_function(digits):
    net = bench.networks.build("convnet", digits.shape, 10, width=8, dtype=torch.float64, generator=stream(0, "net"))
    drawn = augment.draw(augment.DSA, 10, stream(0, "draw"))
    real_labels, labels = torch.arange(10).repeat_interleave(3), torch.arange(10)
    real, fake = digits.x_train[digits.sample(3, stream(0, "r"))].double(), digits.x_train[digits.sample(1, stream(0, "f"))].double()
    together = bench.dm_together(net.features, drawn, real, real_labels, fake, labels, 10)
    torch.testing.assert_close(together, bench.dm_per_class(net, drawn, real, real_labels, fake, labels, 10), rtol=1e-12, atol=0)
