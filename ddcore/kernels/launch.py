"""What holds for the launch of every Triton kernel of this package."""

import math
from collections.abc import Callable


def launch(kernel: Callable, grid: tuple[int, ...], *arguments, **constants) -> None:
    """`kernel[grid]` with fused multiply-adds: Triton 3.9 warns at a launch that leaves the choice to a default, 3.10 turns them off."""
    kernel[grid](*arguments, enable_fp_fusion=True, **constants)


def multiple(width: int) -> int:
    """The largest power of two, 16 at most, that divides `width`.

    Triton finds out by itself whether an integer argument is a multiple of 16, and loads four numbers at once where rows of that width
    are. A kernel that is given this constant, and takes `width // MULTIPLE * MULTIPLE` for the width, does so for multiples of 4 too.
    """
    return math.gcd(width, 16)
