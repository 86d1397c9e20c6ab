import itertools
import time

import pytest
import torch

from ddcore import compute
from ddcore.bench import speed as bench
from ddcore.bench import steps, timing, yardsticks
from ddcore.cli import doctor

CPU = torch.device("cpu")
accelerate = compute.accelerate

FIELDS = {
    "name",
    "provider",
    "ratio",
    "ratio_p20",
    "ratio_p80",
    "memory_ratio",
    "peak_bytes",
    "operations",
    "fraction_of_ceiling",
    "max_rel_error",
    "seconds",
    "n",
}


OF_STEPS = {"step", "ipc", "batch_real", "classes"}


@pytest.fixture
def quick(monkeypatch):
    """No compiler, and a small product as the ceiling."""
    product, copy = yardsticks.ceiling, yardsticks.bandwidth
    monkeypatch.setattr(yardsticks, "ceiling", lambda at, dtype: product(at, dtype, side=64))
    monkeypatch.setattr(yardsticks, "bandwidth", lambda at: copy(at, 1 << 16))
    monkeypatch.setattr(torch, "compile", lambda function, **how: function)


def check_fields(rows, more=frozenset()):
    for row in rows:
        assert set(row) == FIELDS | more
        assert row["operations"] is None or row["operations"] > 10
        assert row["memory_ratio"] is None or row["memory_ratio"] > 0
        assert row["seconds"] > 0
        assert row["n"] == 1
    assert rows[0]["ratio"] == 1.0
    assert "published" in rows[0]["provider"]
    for row in rows[1:]:
        assert (
            row["ratio_p20"]
            == row["ratio"]
            == row["ratio_p80"]
            == pytest.approx(rows[0]["seconds"] / row["seconds"], 1e-3, 2e-3)
        )


def test_rows_of_the_dm_step(digits, quick):
    rows = steps.step_rows("dm", digits, ipc=1, batch_real=4, width=16, rounds=1)
    check_fields(rows, OF_STEPS)
    assert len(rows) == 4
    for row in rows:
        assert row["fraction_of_ceiling"] > 0
        exact = "bfloat16" not in row["provider"]
        assert (row["max_rel_error"] < 1e-4) == exact, "float32 is exact, bfloat16 is not"
    assert rows[1]["operations"] < rows[0]["operations"] / 2, "one pass for ten classes"


def test_the_grid_is_every_step_at_every_size_and_generates_what_it_has_no_images_for(digits, quick):
    """With many classes every form is called once, and compared with the published one: what it gives is the same."""
    rows = steps.grid_rows(
        digits, ipcs=[1, 2], batches=[3], classes=[10, 11], width=4, rounds=1, compiled=False
    )
    cells = {(row["step"], row["ipc"], row["batch_real"], row["classes"]) for row in rows}
    assert cells == set(itertools.product(("dm", "dc", "dsa"), (1, 2), (3,), (10, 11)))
    assert len(rows) == 2 * len(cells)
    many = [row for row in rows if row["classes"] == 11]
    assert {row["operations"] for row in many} == {None}
    assert max(row["max_rel_error"] for row in many) < 1e-3


def test_generated_images_are_the_same_each_time():
    one, other = (steps.generated((3, 4, 5), 3, 6, CPU) for _ in range(2))
    assert one.sizes == (6, 6, 6)
    assert one.shape == (3, 4, 5)
    assert torch.equal(one.batch(slice(None)), other.batch(slice(None)))


@pytest.mark.parametrize("name", ["dc", "dsa"])
def test_rows_of_the_dc_step(digits, quick, name):
    rows = steps.step_rows(name, digits, ipc=1, batch_real=4, width=16, rounds=1)
    check_fields(rows, OF_STEPS)
    assert rows[0]["name"] == f"{name} step, ipc 1, 4 real, 10 classes"
    assert max(row["max_rel_error"] for row in rows[:2]) < 1e-3
    assert rows[1]["operations"] < rows[0]["operations"], "no gradients of biases and norms"


def test_rows_of_the_kernels(digits, quick):
    rows = bench.kernel_rows(digits, ipc=1, batch_real=4, width=16, rounds=1)
    for start in range(0, len(rows), 2):
        check_fields(rows[start : start + 2])
    assert max(row["max_rel_error"] for row in rows) < 1e-4


def test_operations_are_counted_without_views(digits):
    x = digits.x_train[:2]
    assert yardsticks.operations(lambda: (x.view(2, -1).T + 1).exp()) == 2


@pytest.mark.skipif(yardsticks.peak_bytes(lambda: None, CPU) is None, reason="this system does not tell")
def test_the_peak_counts_what_is_held_at_once():
    together, after = (
        (lambda: [torch.ones(1 << 22) for _ in range(8)]),
        (lambda: [float(torch.ones(1 << 22).sum()) for _ in range(8)]),
    )
    assert yardsticks.peak_bytes(together, CPU) > 0.9 * 8 * 4 * (1 << 22)
    assert yardsticks.peak_bytes(after, CPU) < 0.4 * 8 * 4 * (1 << 22)


@pytest.mark.slow
@pytest.mark.skipif("no C++" in doctor.examine()["torch.compile"], reason="no C++ compiler")
def test_a_compiled_step_is_exact_too(digits):
    net = bench.networks.build(
        "convnet", digits.shape, 10, width=8, generator=torch.Generator().manual_seed(0)
    )
    x = digits.x_train[:20]
    found = accelerate(net.features, CPU, compiled=True)(x)[-1]
    torch.testing.assert_close(found, net.features(x)[-1], rtol=1e-4, atol=1e-5)


def test_rows_of_the_evaluation(digits, quick):
    rows = bench.evaluate_rows(digits, ipc=1, width=8, networks_=2, rounds=1)
    check_fields(rows)
    assert {row["fraction_of_ceiling"] for row in rows} == {None}
    assert rows[1]["max_rel_error"] < 1e-3


@pytest.mark.parametrize("adjusted", [False, True])
def test_rows_of_recovery(digits, quick, adjusted):
    rows = bench.recover_rows(digits, ipc=2, width=8, rounds=1, adjusted=adjusted)
    check_fields(rows)
    assert all(row["max_rel_error"] < 1e-3 for row in rows[:3])


def test_seconds_is_the_median_without_the_first_call():
    naps = iter([0.3, 0.01, 0.05, 0.01])
    assert 0.01 <= timing.seconds(lambda: time.sleep(next(naps)), CPU, 3) < 0.05


def test_what_slows_the_machine_changes_no_ratio(monkeypatch, digits):
    """A clock of our own: each call takes its time in that round, times what all of the round is slowed by."""
    now, calls, slowed = [0.0], [], [1.0, 2.0, 4.0, 100.0, 16.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(yardsticks, "bandwidth", lambda at: 1.0)

    def taking(*own):
        def run():
            turn = (len(calls) // 4 - 1) % 5  # the first turn warms up
            now[0] += own[turn % len(own)] * slowed[turn]
            calls.append(own)
            return digits.x_train[:1]

        return yardsticks.Provider(run)

    providers = {
        "published": taking(6.0),
        "half": taking(3.0),
        "twice": taking(12.0),
        "erratic": taking(3.0, 1.0, 2.0, 6.0, 12.0),
    }
    rows = yardsticks.compare("step", providers, digits.x_train[:1].double(), CPU, 5)
    found = [(row["ratio_p20"], row["ratio"], row["ratio_p80"]) for row in rows]
    assert found == [(1, 1, 1), (2, 2, 2), (0.5, 0.5, 0.5), (0.9, 2, 3.6)], "of 2, 6, 3, 1, 0.5 in the last"
    assert [row["seconds"] for row in rows] == [24, 12, 48, 8], "medians"


def test_no_round_is_refused(digits, refuses):
    with refuses("bench", "rounds=0"):
        bench.speed(digits, seed=0, width=8, batches=[4], ipcs=[1], classes=[10], rounds=0)


@pytest.mark.parametrize("name", steps.STEPS)
def test_what_is_timed_is_the_published_loss(digits64, name):
    """In float64, so that nothing but the structure differs."""
    step, loss, strategy = steps.STEPS[name]
    case = steps.Case(digits64, 2, 5, 4, strategy)
    case.__dict__["net"] = case.net.double()
    ours, theirs = step(case, "float32", False)(), case.published(loss)()
    assert float((ours - theirs).abs().max()) < 1e-12 * float(theirs.abs().max())
