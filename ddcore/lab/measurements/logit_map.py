"""Synthetic sets among real images, on one map: t-SNE of what their teacher says of them."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch

from ddcore import compute, networks
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.files.records import Record
from ddcore.lab.measurements.diversity import teacher_of
from ddcore.methods import squeeze
from ddcore.random import stream
from ddcore.settings import positive
from ddcore.synthetic import Synthetic


@dataclasses.dataclass(frozen=True)
class LogitMap:
    """A measurement of sets, (name, its record, the set) each, with `images` training images a class in one embedding (t-SNE; van der
    Maaten & Hinton, JMLR 2008) of the teacher's logits, standardised. Rows: set ('real' for the latter), label, x, y. The same seed gives
    the same map on one machine at one number of threads, not on all."""

    version: ClassVar[int] = 1
    holdout: ClassVar[float] = 0.0

    dataset: str
    sets: Sequence[tuple[str, Record, Synthetic]]
    images: int = 200
    perplexity: float = 30.0
    seed: int = 0

    def __post_init__(self):
        positive("logit map", images=self.images, perplexity=self.perplexity)
        if len({str(teacher_of(record)) for _, record, _ in self.sets}) != 1:
            raise BadInput(
                f"logit map: {len(self.sets)} sets are given; give at least one, and all labelled by one teacher"
            )
        if other := [name for name, record, _ in self.sets if record.experiment["dataset"] != self.dataset]:
            raise BadInput(f"logit map: set {other[0]} is not of {self.dataset}")

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        return {
            "measurement": "logit_map",
            "dataset": self.dataset,
            "sets": [[name, record.hash] for name, record, _ in self.sets],
            "images": self.images,
            "perplexity": self.perplexity,
            "seed": self.seed,
            "data_sha256": data.sha256,
            "versions": squeeze.VERSIONS | {"logit_map": self.version, "networks": networks.VERSION},
        }

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}, as the class says."""
        from sklearn.manifold import TSNE  # takes seconds to import

        data.need(self.images, f"logit map with images={self.images}")
        network = squeeze.squeeze(data, *teacher_of(self.sets[0][1]))
        index = data.sample(self.images, stream(self.seed, "logit_map", device=data.device))
        parts = [("real", data.x_train[index], data.y_train[index])]
        parts += [(name, synthetic.images(), synthetic.labels) for name, _, synthetic in self.sets]
        with torch.no_grad():
            logits = torch.cat([compute.through(network, images) for _, images, _ in parts]).double().cpu()
        standard = ((logits - logits.mean(0)) / logits.std(0).clamp(min=1e-12)).numpy()
        places = TSNE(
            perplexity=min(self.perplexity, (len(standard) - 1) / 3), init="pca", random_state=self.seed
        ).fit_transform(standard)
        names = [(name, int(label)) for name, _, labels in parts for label in labels]
        return {
            "rows": [
                {"set": name, "label": label, "x": round(float(x), 4), "y": round(float(y), 4)}
                for (name, label), (x, y) in zip(names, places, strict=True)
            ]
        }, None
