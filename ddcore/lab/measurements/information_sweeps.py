"""Measurements of the noise-contrastive bound: on label-paired Gaussian classes, where the information is known, and of its size.

They need no dataset. Beside the exact values, by quadrature, stand those of samples.
"""

import math

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from ddcore.errors import BadInput
from ddcore.random import stream
from ddcore.settings import positive, versioned
from ddcore.theory import label_pairs
from ddcore.theory.label_pairs import Pairs


def estimates(pairs: Pairs, N: float, classes: int) -> dict[str, float]:
    """What the best critic of each kind says of I, by name."""
    every, other = label_pairs.log_ratio(pairs), label_pairs.log_ratio(pairs, "other classes")
    first, whole = label_pairs.bound(pairs, every, N)
    first_other, whole_other = label_pairs.bound(pairs, other, N, "other classes")
    return {
        "information": label_pairs.information(pairs),
        "positives alone": first,
        "whole bound": whole,
        "corrected bound": whole + label_pairs.least_gap(N),
        "other classes, positives alone": first_other,
        "other classes, whole": whole_other,
        "other classes, repaired": label_pairs.repaired(pairs, other, classes),
    }


@versioned(version=1, of_data=False)
def information_bounds(
    device: torch.device,
    *,
    seed: int,
    classes: int,
    separation: tuple[float, ...],
    negatives: tuple[int, ...],
    draws: int,
) -> list[dict]:
    """Gaussian classes on a line, the two sides alike, at every separation (standard deviations) and number N of negatives.

    Columns: classes, separation, N, quantity (of `estimates`), exact, sampled (from all pairs of `draws` samples a class and side).
    """
    positive(
        "information bounds", draws=draws, **{f"negatives[{place}]": N for place, N in enumerate(negatives)}
    )
    mixtures, rows = [label_pairs.spaced(classes, one, device) for one in separation], []
    for one, means in zip(separation, mixtures, strict=True):
        side = label_pairs.quadrature(means)
        sides = [
            label_pairs.draw(means, draws, stream(seed, "information", name, device=device))
            for name in ("synthetic", "real")
        ]
        found = label_pairs.exact(side, side), label_pairs.sampled(*sides)
        for N in negatives:
            exact, sampled = (estimates(pairs, N, classes) for pairs in found)
            rows += [
                {
                    "classes": classes,
                    "separation": float(one),
                    "N": N,
                    "quantity": name,
                    "exact": round(exact[name], 6),
                    "sampled": round(sampled[name], 6),
                }
                for name in exact
            ]
    return rows


def cosines(dimensions: int, points: int = 400) -> tuple[Tensor, Tensor]:
    """Values (points,) and probabilities of the cosine of two independent directions in D dimensions, whose angle has density sin^(D-2):
    Gauss-Legendre. Raises BadInput below 2 dimensions."""
    if dimensions < 2:
        raise BadInput(f"critic sizes: dimensions={dimensions}, but directions take 2 dimensions or more")
    node, weight = map(torch.from_numpy, np.polynomial.legendre.leggauss(points))
    angle = (node + 1) * math.pi / 2
    return angle.cos(), (weight.log() + (dimensions - 2) * angle.sin().log()).softmax(0)


def sizes(cosine: Tensor, weight: Tensor, N: float, temperature: float, bias: float) -> dict[str, float]:
    """The parts of -L_NCE of the critic sigmoid(cosine / temperature - bias) at independent pairs, and the derivatives of both by the bias:
    the weights with which positives are pulled and negatives pushed."""
    logit = cosine / temperature - bias
    parts = {
        "positive": softplus(-logit),
        "negatives": N * softplus(logit),
        "pull": (-logit).sigmoid(),
        "push": N * logit.sigmoid(),
    }
    return {name: float((weight * part).sum()) for name, part in parts.items()}


@versioned(version=1, of_data=False)
def critic_sizes(
    device: torch.device,
    *,
    seed: int,
    dimensions: int,
    temperature: float,
    population: int,
    negatives: tuple[int, ...],
    draws: int,
) -> list[dict]:
    """The size of -L_NCE and of its gradient at independent random features on the sphere, by the number N of negatives.

    `bias`: 'printed' is log(N / population), 'normalised' log(N Z) with Z the mean of e^(cosine / temperature), over the samples for those.
    Columns: kind (exact, or sampled: all pairs of two sets of `draws` features), bias, N, part (of `sizes`), value.
    """
    positive(
        "critic sizes",
        temperature=temperature,
        population=population,
        draws=draws,
        **{f"negatives[{place}]": N for place, N in enumerate(negatives)},
    )
    features = [
        normalize(
            torch.randn(
                draws,
                dimensions,
                generator=stream(seed, "features", name, device=device),
                device=device,
                dtype=torch.float64,
            )
        )
        for name in ("synthetic", "real")
    ]
    drawn, rows = (features[0] @ features[1].T).flatten(), []
    for kind, (cosine, weight) in {
        "exact": cosines(dimensions),
        "sampled": (drawn, torch.full_like(drawn, 1 / len(drawn))),
    }.items():
        Z = float((weight * (cosine / temperature).exp()).sum())
        for N in negatives:
            for bias, value in (("printed", math.log(N / population)), ("normalised", math.log(N * Z))):
                rows += [
                    {"kind": kind, "bias": bias, "N": N, "part": part, "value": float(f"{size:.6g}")}
                    for part, size in sizes(cosine, weight, N, temperature, value).items()
                ]
    return rows
