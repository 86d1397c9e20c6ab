import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore.random import stream
from ddcore.theory.exponents import cube, interval, needed, resampled, slope


def test_a_cube_is_ordered_by_its_columns():
    frame = pd.DataFrame(
        [
            {"seed": seed, "d": d, "M1": m, "error": 100 * seed + 10 * d + m}
            for m in (2, 1)
            for d in (3, 1)
            for seed in (1, 0)
        ]
    )
    found = cube(frame, "d", "M1")
    assert found.tolist() == [[[100 * seed + 10 * d + m for m in (1, 2)] for d in (1, 3)] for seed in (0, 1)]
    assert cube(frame[:-1], "d", "M1").isnan().sum() == 1
    assert cube(frame[(frame.d == 1) & (frame["M1"] == 2)]).tolist() == [12, 112]


@given(
    st.floats(-3, 3), st.floats(0.1, 10), st.lists(st.integers(1, 1000), min_size=2, max_size=6, unique=True)
)
def test_the_slope_of_a_power_law_is_its_exponent(exponent, scale, places):
    x = torch.tensor(places, dtype=torch.float64)
    y = scale * x**exponent
    assert float(slope(x, y)) == pytest.approx(exponent, abs=1e-9)
    more = torch.cat([y, torch.tensor([torch.nan])])
    assert float(slope(torch.cat([x, x[:1] + 0.5]), more)) == pytest.approx(exponent, abs=1e-9)


@given(st.floats(0.3, 2), st.floats(1.2, 90))
def test_what_is_needed_is_found_between_the_points_of_the_grid(exponent, place):
    grid = torch.tensor([1.0, 3, 10, 30, 100], dtype=torch.float64)
    errors = grid**-exponent
    assert float(needed(errors, grid, place**-exponent)) == pytest.approx(place, rel=1e-6)
    both = needed(
        torch.stack([errors, 2 * errors]), grid, torch.tensor([place**-exponent, 2 * place**-exponent])
    )
    assert both.tolist() == pytest.approx([place] * 2, rel=1e-5)
    assert needed(errors, grid, 1e-9).isnan()
    assert needed(errors, grid, 2.0) == 1
    assert needed(errors, 2 * grid, 2.0).isnan(), (
        "less than the first point of the grid would do, we do not know how much"
    )
    assert needed(errors, 2 * grid, place**-exponent) == pytest.approx(2 * place, rel=1e-6)


def test_geometric_means_come_first_and_resampled_ones_after():
    values = torch.rand(5, 3, generator=stream(0, "values"), dtype=torch.float64) + 0.5
    found = resampled(values, stream(0, "draws"), 40)
    assert found.shape == (41, 3)
    torch.testing.assert_close(found[0], values.log().mean(0).exp())
    assert (found >= values.min(0).values).all()
    assert torch.equal(resampled(values, stream(0, "draws"), 40), found)


def test_the_interval_covers_the_truth_about_as_often_as_it_says():
    x, covered = torch.tensor([1.0, 2, 4, 8], dtype=torch.float64), 0
    for trial in range(200):
        noise = 0.3 * torch.randn(12, 4, generator=stream(trial, "noise"), dtype=torch.float64)
        _, low, high = interval(slope(x, resampled(2 * x**0.7 * noise.exp(), stream(trial, "draws"), 300)))
        covered += low <= 0.7 <= high
    assert 0.85 <= covered / 200 <= 0.99
