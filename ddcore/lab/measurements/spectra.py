"""What low-rank images keep of real ones, and what a step on factors does in each direction."""

from collections.abc import Sequence

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.random import stream
from ddcore.settings import positive, versioned


@versioned(version=1)
def spectra(data: Dataset, *, seed: int, ranks: Sequence[int], images: int) -> list[dict]:
    """How much of real images their best rank-r approximation keeps (Eckart-Young), by exact SVD of each channel.

    A sample of `images` training images, equally many a class. Columns: class ('all': every class together), rank, energy and
    energy_pixels (mean over images of the kept share of the squared norm, of normalised images and of pixels in [0, 1]),
    psnr (dB, of the mean squared error of the pixels; None where nothing is lost).
    """
    positive("spectra", images=images, ranks=ranks)
    per_class = max(1, images // data.classes)
    data.need(per_class, f"spectra with images={images}")
    chosen = data.sample(per_class, stream(seed, "spectra", device=data.device)).unflatten(
        0, (data.classes, per_class)
    )
    size, found = data.x_train[0].numel(), []
    for index in chosen:
        normalised = data.x_train[index].double()
        shares, _ = _kept(normalised, ranks)
        pixel_shares, lost = _kept(data.to_pixels(normalised), ranks)
        found.append(torch.stack([shares.mean(0), pixel_shares.mean(0), lost.mean(0) / size]))
    by_class = torch.stack(found).cpu()
    table = []
    for name, (energy, energy_pixels, error) in zip(
        (*data.class_names, "all"), [*by_class, by_class.mean(0)], strict=True
    ):
        psnr = -10 * error.log10()
        table += [
            {
                "class": name,
                "rank": int(rank),
                "energy": round(float(energy[place]), 6),
                "energy_pixels": round(float(energy_pixels[place]), 6),
                "psnr": round(float(psnr[place]), 3) if error[place] > 1e-20 else None,
            }
            for place, rank in enumerate(ranks)
        ]
    return table


def _kept(images: Tensor, ranks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """(n, C, H, W) -> (n, ranks) kept share of each image's squared norm, and the squared error of its approximation."""
    energies = torch.linalg.svdvals(images).square().sum(1)
    tails = torch.nn.functional.pad(energies.flip(-1).cumsum(-1).flip(-1), (0, 1))
    lost = tails[:, [min(rank, energies.shape[-1]) for rank in ranks]]
    return 1 - lost / tails[:, :1].clamp(min=torch.finfo(images.dtype).tiny), lost


@versioned(version=1)
def gradient_geometry(data: Dataset, *, seed: int, ranks: Sequence[int], draws: int) -> list[dict]:
    """Eigenvalues of G -> G V'V + U U'G for factors from N(0, 1) at the size of the images: the gain of a step in each direction.

    They are a_i + b_j, with a those of U U' and b those of V'V. Sorted from high to low and averaged over `draws` at equal
    position, then thinned to at most 200 positions, denser at the top. Columns: rank, position (of HW directions, in (0, 1)),
    gain, mean_gain (over all directions).
    """
    positive("gradient_geometry", draws=draws, ranks=ranks)
    _, height, width = data.shape
    directions = height * width
    even = torch.linspace(0, directions - 1, 120)
    dense = torch.logspace(0, torch.tensor(float(directions)).log10(), 80) - 1
    shown = torch.cat([even, dense]).round().long().clamp(max=directions - 1).unique().tolist()
    table = []
    for rank in ranks:
        generator = stream(seed, "gradient_geometry", rank, device=data.device)
        u, v = (
            torch.randn(draws, *sides, generator=generator, device=data.device, dtype=torch.float64)
            for sides in ((height, rank), (rank, width))
        )
        gains = step_gains(u, v).mean(0).cpu()
        table += [
            {
                "rank": int(rank),
                "position": round((place + 0.5) / directions, 6),
                "gain": round(max(float(gains[place]), 0.0), 6),
                "mean_gain": round(float(gains.mean()), 6),
            }
            for place in shown
        ]
    return table


def step_gains(u: Tensor, v: Tensor) -> Tensor:
    """(..., H, r), (..., r, W) -> (..., HW): eigenvalues of G -> G V'V + U U'G, from high to low."""
    a, b = (_gram_eigenvalues(side) for side in (u, v.mT))
    return (a[..., :, None] + b[..., None, :]).flatten(-2).sort(-1, descending=True).values


def _gram_eigenvalues(side: Tensor) -> Tensor:
    """(..., n, r) -> (..., n): eigenvalues of side side', exact zeros beyond the rank."""
    values = torch.linalg.svdvals(side).square()
    return torch.nn.functional.pad(values, (0, side.shape[-2] - values.shape[-1]))
