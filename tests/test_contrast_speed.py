import pytest
import torch

from ddcore.bench.contrast import PER_PAIR, _step, contrast_speed
from ddcore.bench.yardsticks import peak_bytes
from ddcore.kernels.contrast import contrast_chunked, contrast_reference

CPU = torch.device("cpu")
SMALL = {"seed": 0, "rounds": 2, "width": 4, "classes": 3, "compiled": False}


def test_every_case_and_provider_has_a_row_a_round():
    found = contrast_speed(CPU, cases=[[1, 3, 7], [2, 5, 9]], most_bytes=1e9, **SMALL)
    assert [(row["K"], row["M"], row["N"], row["provider"], row["round"]) for row in found] == [
        (*case, provider, turn)
        for case in ((1, 3, 7), (2, 5, 9))
        for turn in range(2)
        for provider in ("eager", "chunked")
    ]
    assert all(row["seconds"] > 0 for row in found)


def test_what_keeps_every_pair_is_left_out_where_it_would_not_fit():
    limit = 4 * PER_PAIR * 2 * 5 * 9
    for most_bytes, providers in ((limit, {"eager", "chunked"}), (limit - 1, {"chunked"})):
        found = contrast_speed(CPU, cases=[[2, 5, 9]], most_bytes=most_bytes, **SMALL)
        assert {row["provider"] for row in found} == providers


@pytest.mark.skipif(peak_bytes(lambda: None, CPU) is None, reason="this system does not tell")
def test_the_numbers_that_eager_holds_for_a_pair():
    step = _step(contrast_reference, 1, 400, 5000, 8, 10, 0, CPU)
    step()
    assert peak_bytes(step, CPU) / (4 * 400 * 5000) == pytest.approx(PER_PAIR, rel=0.25)


def test_a_step_is_the_gradient_in_the_synthetic_rows_of_all_layers():
    eager, chunked = (_step(form, 2, 5, 9, 4, 3, 7, CPU)() for form in (contrast_reference, contrast_chunked))
    assert eager.shape == (2, 5, 4)
    assert eager.norm(dim=2).min() > 0
    torch.testing.assert_close(chunked, eager, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"rounds": 0}, ["rounds=0"]),
        ({"cases": [[1, 2, 0]]}, ["cases[0][2]=0"]),
        ({"cases": [[3, 4]]}, ["[3, 4]", "three"]),
        ({"most_bytes": 0.0}, ["most_bytes=0.0"]),
    ],
)
def test_bad_input_is_refused(refuses, changed, words):
    with refuses("contrast_speed", *words):
        contrast_speed(CPU, **SMALL | {"cases": [[1, 3, 7]], "most_bytes": 1e9} | changed)
