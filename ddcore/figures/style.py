"""How every figure looks: widths, fonts, lines. Whatever a matplotlibrc or a reader has set changes none of it."""

import contextlib
from collections.abc import Iterator

import matplotlib.style

COLUMN, PAGE = 3.25, 6.75  # inches: the widths of one column and of the page of the field's templates
STYLE = {
    "font.size": 8, "axes.titlesize": 8, "axes.labelsize": 8, "xtick.labelsize": 7, "ytick.labelsize": 7, "legend.fontsize": 7,
    "font.family": "DejaVu Sans", "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "lines.linewidth": 1.2,
    "lines.markersize": 4, "xtick.major.width": 0.6, "ytick.major.width": 0.6, "legend.frameon": False, "figure.dpi": 150,
    "savefig.dpi": 300, "pdf.fonttype": 42, "svg.hashsalt": "ddcore", "figure.constrained_layout.use": True, "image.cmap": "gray",
}  # fmt: skip


@contextlib.contextmanager
def applied() -> Iterator[None]:
    """matplotlib's own defaults with ours over them; afterwards all is as it was."""
    with matplotlib.style.context(["default", STYLE]):
        yield
