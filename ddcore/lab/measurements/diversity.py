"""How diverse a synthetic set is, to the network that labels it: measures of features, and of what its batch norms are given.

Features are penultimate, in float64; each measure looks at one class, and a set's is the mean over its classes.
"""

import dataclasses
from pathlib import Path
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from ddcore import compute, networks
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.files.records import OfRecord, Record
from ddcore.lab.measurements.batch_variance import image_moments
from ddcore.methods import squeeze
from ddcore.methods.squeeze import Squeeze
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import build, positive
from ddcore.synthetic import Synthetic


def similarity(x: Tensor) -> Tensor:
    """(n, F) -> the mean cosine of the n (n - 1) / 2 pairs of rows. Raises BadInput for fewer than two."""
    if len(x) < 2:
        raise BadInput(f"similarity: {len(x)} image(s) form no pair; give at least two")
    unit = F.normalize(x, dim=1)
    return (unit.sum(0).square().sum() - unit.square().sum()) / (len(x) * (len(x) - 1))


def vendi(x: Tensor) -> Tensor:
    """(n, F) -> the exponential of the entropy of the eigenvalues of K / n, K the cosines of the rows: 1 if all point one way, n if they
    are orthogonal (Vendi score; Friedman & Dieng, TMLR 2023)."""
    return torch.special.entr(torch.linalg.svdvals(F.normalize(x, dim=1)).square() / len(x)).sum().exp()


def coverage(real: Tensor, synthetic: Tensor, neighbours: int) -> Tensor:
    """(N, F), (n, F) -> the share of real rows that have a synthetic one nearer than their k-th real one, k = `neighbours` (Naeem et al.,
    ICML 2020). For rows of one continuous law its expectation is 1 - prod_{i = 1..k} (N - i) / (N + n - i). Raises BadInput for a k not
    in 1 .. N - 1.
    """
    if not 1 <= neighbours < len(real):
        raise BadInput(
            f"coverage: neighbours={neighbours} of {len(real)} real images; give at least 1 and fewer than there are images"
        )
    radius = _distances(real, real).kthvalue(neighbours + 1, dim=1).values  # the first is the row itself
    return (_distances(real, synthetic).min(1).values < radius).to(real.dtype).mean()


def mmd2(x: Tensor, y: Tensor, bandwidth: float | Tensor) -> Tensor:
    """(n, F), (m, F) -> the unbiased estimate of the squared maximum mean discrepancy with exp(-|a - b|^2 / (2 bandwidth^2)): its
    expectation is 0 for rows of one law, so it may be negative (Gretton et al., JMLR 2012). Raises BadInput for fewer than two rows."""
    if min(len(x), len(y)) < 2:
        raise BadInput(f"mmd2: {len(x)} and {len(y)} images; give at least two of each")
    positive("mmd2", bandwidth=bandwidth)
    xx, yy, xy = (
        (-_distances(a, b).square() / (2 * bandwidth**2)).exp() for a, b in ((x, x), (y, y), (x, y))
    )
    return sum((k.sum() - len(k)) / (len(k) * (len(k) - 1)) for k in (xx, yy)) - 2 * xy.mean()


def median_distance(x: Tensor) -> Tensor:
    """(n, F) -> the median distance of its pairs, the usual bandwidth of `mmd2`."""
    return _distances(x, x)[*torch.triu_indices(len(x), len(x), 1)].median()


def _distances(a: Tensor, b: Tensor) -> Tensor:
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def variances(network: Network, images: Tensor, classes: int) -> list[dict[str, Tensor]]:
    """Of images (classes * n, C, H, W) sorted by class, for each batch norm, each (channels,): the variance of its input 'within' images,
    'between' those of a batch (the j-th of every class, as they are recovered) and 'of a class' between the images of one class."""
    found = []
    for mean, inside in image_moments(network, images):
        by_class = mean.unflatten(0, (classes, -1))
        found.append(
            {
                "within": inside.mean(0),
                "between": by_class.var(0, unbiased=False).mean(0),
                "of a class": by_class.var(1, unbiased=False).mean(0),
            }
        )
    return found


def teacher_of(record: Record) -> tuple[Squeeze, int]:
    """Settings and seed of the network that labelled the set of `record`. Raises BadInput if none did."""
    how = record.experiment.get("evaluate", {})
    if "teacher" not in how:
        raise BadInput(
            f"record {record.hash}: its set was not labelled by a teacher; give one evaluated by the protocol 'relabel'"
        )
    return build(Squeeze, how["teacher"], "teacher"), how["seed_teacher"]


@dataclasses.dataclass(frozen=True)
class Diversity(OfRecord):
    """A measurement of one set, seen by its teacher, beside `images` real images a class, the same for every set of a seed.

    `of`: the record of the set, undistilled or not; `neighbours`: of `coverage`; the bandwidth of `mmd2` is the median distance of the
    real images of a class. Rows: quantity 'similarity', 'vendi', 'coverage', 'mmd2'; and of each batch norm `layer` (from 1; 0 for the
    former) those of `variances`, as a share of the real images' variance, mean over channels.
    """

    version: ClassVar[int] = 1

    of: Record
    synthetic: Synthetic
    images: int = 200
    neighbours: int = 20

    def __post_init__(self):
        positive("diversity", images=self.images, neighbours=self.neighbours)
        if self.synthetic.per_class < 2:
            raise BadInput(
                "diversity: a set of 1 image a class has none within a class; give one of at least two"
            )
        teacher_of(self.of)

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        return {
            "measurement": "diversity",
            "dataset": self.dataset,
            "of": self.of.hash,
            "seed": self.of.experiment["seed"],
            "images": self.images,
            "neighbours": self.neighbours,
            "data_sha256": data.sha256,
            "versions": squeeze.VERSIONS | {"diversity": self.version, "networks": networks.VERSION},
        }

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}, as the class says."""
        data.need(self.images, f"diversity with images={self.images}")
        return {"rows": self._rows(data, squeeze.squeeze(data, *teacher_of(self.of)))}, None

    @torch.no_grad()
    def _rows(self, data: Dataset, network: Network) -> list[dict]:
        index = data.sample(self.images, stream(self.of.experiment["seed"], "diversity", device=data.device))
        sides = data.x_train[index], self.synthetic.images()
        real, synthetic = (
            compute.through(network, side, network.embed).double().unflatten(0, (data.classes, -1))
            for side in sides
        )
        found = {
            "similarity": [similarity(x) for x in synthetic],
            "vendi": [vendi(x) for x in synthetic],
            "coverage": [coverage(x, y, self.neighbours) for x, y in zip(real, synthetic, strict=True)],
            "mmd2": [mmd2(x, y, median_distance(x)) for x, y in zip(real, synthetic, strict=True)],
        }
        table = [
            {"quantity": name, "layer": 0, "value": round(float(torch.stack(values).mean()), 6)}
            for name, values in found.items()
        ]
        for layer, (theirs, ours) in enumerate(
            zip(*(variances(network, side, data.classes) for side in sides), strict=True), 1
        ):
            total = theirs["within"] + theirs["between"]
            alive = total > 1e-6 * total.max()
            table += [
                {"quantity": name, "layer": layer, "value": round(float((one / total)[alive].mean()), 6)}
                for name, one in ours.items()
            ]
        return table
