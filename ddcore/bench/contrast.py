"""Seconds and memory of the contrast of MIM4DD, by each way to compute it."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import compute
from ddcore.bench.timing import in_turns
from ddcore.bench.yardsticks import peak_bytes
from ddcore.errors import BadInput
from ddcore.kernels.contrast import contrast_chunked, contrast_reference, contrast_triton
from ddcore.random import stream
from ddcore.settings import positive, versioned

PER_PAIR = 16  # float32 numbers that eager autograd holds at once for a pair of a synthetic and a real row


@versioned(version=2, of_data=False)
def contrast_speed(
    at: torch.device,
    *,
    seed: int,
    cases: Sequence[Sequence[int]],
    rounds: int,
    most_bytes: float,
    width: int = 128,
    classes: int = 10,
    compiled: bool = True,
) -> list[dict]:
    """Sigmoid NCE and its gradient in the synthetic rows, for (layers K, synthetic rows M, real rows N) each, the providers taking turns.

    Rows are uniform on the sphere of `width` dimensions, in float32; classes are as large as each other. 'eager' and 'compiled', which
    keep every pair, are left out where PER_PAIR numbers a pair exceed `most_bytes`. Columns: K, M, N, provider, round, seconds,
    peak_bytes (held at once beyond the rows and labels; None where the system does not tell). Raises BadInput for a case that is
    not three positive numbers.
    """
    positive(
        "contrast_speed", cases=cases, rounds=rounds, most_bytes=most_bytes, width=width, classes=classes
    )
    if wrong := [case for case in cases if len(case) != 3]:
        raise BadInput(
            f"contrast_speed: the case {wrong[0]} must be three numbers: layers, synthetic rows, real rows"
        )
    forms = {"eager": contrast_reference, "chunked": contrast_chunked}
    if compiled:
        forms["compiled"] = compute.accelerate(contrast_reference, at, compiled=True)
    if at.type == "cuda":
        forms["Triton"] = contrast_triton
    found = []
    for K, M, N in cases:
        needed = 4 * PER_PAIR * K * M * N
        steps = {
            name: _step(form, K, M, N, width, classes, seed, at)
            for name, form in forms.items()
            if needed <= most_bytes or name not in ("eager", "compiled")
        }
        for step in steps.values():
            step()
        spent = in_turns(list(steps.values()), at, rounds).tolist()
        peaks = [peak_bytes(step, at) for step in steps.values()]
        found += [
            {
                "K": K,
                "M": M,
                "N": N,
                "provider": name,
                "round": turn,
                "seconds": float(f"{took:.4g}"),
                "peak_bytes": peak,
            }
            for turn, turns in enumerate(spent)
            for name, took, peak in zip(steps, turns, peaks, strict=True)
        ]
    return found


def _step(
    form: Callable, K: int, M: int, N: int, width: int, classes: int, seed: int, at: torch.device
) -> Callable[[], Tensor]:
    fake, real = (
        F.normalize(
            torch.randn(
                K, count, width, generator=stream(seed, "contrast speed", name, device=at), device=at
            ),
            dim=2,
        )
        for name, count in (("fake", M), ("real", N))
    )
    fake_labels, real_labels = (torch.arange(count, device=at) % classes for count in (M, N))
    fake.requires_grad_()
    return lambda: torch.autograd.grad(
        form(fake, fake_labels, real, real_labels, classes, temperature=0.1).loss.sum(), fake
    )[0]
