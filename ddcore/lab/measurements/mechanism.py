"""Does distillation put images into the subspace of the real data's first-layer gradient? Sets before and after, with controls."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from ddcore import compute, networks
from ddcore.data import Dataset, mean_image
from ddcore.errors import BadInput
from ddcore.files.records import Record
from ddcore.random import stream
from ddcore.settings import build, positive, stated
from ddcore.synthetic import Synthetic
from ddcore.theory.subspaces import (
    effective_rank,
    energy_share,
    first_layer_gradients,
    principal_angles,
    principal_directions,
)


@dataclasses.dataclass(frozen=True)
class Probe:
    """`inits` MLPs and `network_inits` networks of name `network`, all of width `width`, look at real and synthetic images.

    `batch` real images a class give the subspaces, of `directions` dimensions (`filters` for the patches of a convolution);
    controls are means over `draws`.
    """

    network: str = "convnet"
    width: int = 64
    inits: int = 20
    network_inits: int = 3
    batch: int = 128
    directions: tuple[int, ...] = (5, 10, 20, 50)
    filters: int = 2
    draws: int = 3

    def __post_init__(self):
        positive("probe", **{name: value for name, value in vars(self).items() if name != "network"})


@dataclasses.dataclass(frozen=True)
class Mechanism:
    """A measurement of distilled sets, (name, its record, the set before, the set after) each; the hash covers their records.

    The direction of the training set's mean image is taken out of images and of the MLPs' gradients: it tells no class, and a set
    that is only brighter, or of more contrast, would else count as one that moved. That centres real images, and makes shares and
    ranks those of any multiple of a set. One row a set, state and number of directions k. state: 'before', 'after', 'change'
    (after - before) and, with ipc 0, 'control', of each number of images a class in use: 'random real', 'class means' (each class
    dealt into so many groups, their means), 'noise' (the mean image and Gaussian deviations, each of a real image's norm); the
    'change' of the first two is that from other random real images of the class. 'random real' of `batch` a class is there too, as
    what a subspace found through other networks and batches keeps at best. Columns:

    image_share, average_share: energy of the images, of their averages over each class, in the top-k subspace of the MLPs'
        real gradient; image_pca, average_pca: in that of the real images;
    gradient_share, angle: of the MLPs' gradient on the set in the former, and the mean angle (degrees) to its own top-k subspace;
    filter_share: of the network's first convolution's gradient in its real one's top `filters` directions;
    rank, feature_rank: effective rank of the images and of the network's embedding less its mean on real images; norm: root mean
        square of the images' norms. None where a change has no gradient.
    """

    version: ClassVar[int] = 1
    holdout: ClassVar[float] = 0.0

    dataset: str
    sets: Sequence[tuple[str, Record, Synthetic, Synthetic]]
    probe: Mapping = dataclasses.field(default_factory=dict)
    seed: int = 0

    def __post_init__(self):
        object.__setattr__(self, "probe", build(Probe, self.probe, "probe"))
        if not self.sets:
            raise BadInput("mechanism: no set is given; at least one distilled set with its record is needed")
        for name, record, *_ in self.sets:
            if record.experiment["dataset"] != self.dataset:
                raise BadInput(
                    f"mechanism: set {name} was distilled from {record.experiment['dataset']}, not from {self.dataset}"
                )

    def identity(self, data: Dataset) -> dict:
        """What the hash covers."""
        return {
            "measurement": "mechanism",
            "dataset": self.dataset,
            "sets": [[name, record.hash] for name, record, *_ in self.sets],
            "settings": stated(self.probe),
            "seed": self.seed,
            "data_sha256": data.sha256,
            "versions": {"mechanism": self.version, "networks": networks.VERSION},
        }

    def make(self, data: Dataset, checkpoint: Path | None) -> tuple[dict, None]:
        """{"rows": [...]}, as the class says."""
        data.need(2 * self.probe.batch, f"mechanism with batch={self.probe.batch}")
        real = RealSubspaces(data, self.probe, self.seed)
        table = []
        for name, record, before, after in self.sets:
            place = {"set": name, "ipc": record.experiment["budget_ipc"], "images_per_class": after.per_class}
            first, last = (one.images().detach() for one in (before, after))
            table += real.rows(place | {"state": "before"}, [real.images(first, after.labels)])
            table += real.rows(place | {"state": "after"}, [real.images(last, after.labels)])
            table += real.rows(place | {"state": "change"}, [real.changes(last - first, after.labels)])
        for count in sorted({after.per_class for *_, after in self.sets}):
            drawn = [dict(self._controls(data, count, draw)) for draw in range(self.probe.draws)]
            labels = torch.arange(data.classes, device=data.device).repeat_interleave(count)
            for name in ("random real", "class means", "noise"):
                place = {"set": name, "ipc": 0, "images_per_class": count}
                table += real.rows(
                    place | {"state": "control"}, [real.images(one[name], labels) for one in drawn]
                )
                if name != "noise":
                    table += real.rows(
                        place | {"state": "change"},
                        [real.changes(one[name] - one["others"], labels) for one in drawn],
                    )
        every = data.sample(self.probe.batch, stream(self.seed, "mechanism", "all", device=data.device))
        place = {"set": "random real", "ipc": 0, "images_per_class": self.probe.batch, "state": "control"}
        return {"rows": table + real.rows(place, [real.images(data.batch(every), data.y_train[every])])}, None

    def _controls(self, data: Dataset, count: int, draw: int) -> Iterator[tuple[str, Tensor]]:
        """Images (classes * count, C, H, W), sorted by class, by name; 'others' are real images, none of them 'random real'."""
        generator = stream(self.seed, "mechanism", "controls", count, draw, device=data.device)
        pairs = data.batch(data.sample(2 * count, generator)).unflatten(0, (data.classes, count, 2))
        real, others = (pairs[:, :, side].flatten(0, 1) for side in (0, 1))
        yield "random real", real
        yield "others", others
        groups = int(data.counts.min()) // count
        dealt = (
            data.sample(groups * count, generator).unflatten(0, (-1, groups)).split(max(1, 8192 // groups))
        )
        yield "class means", torch.cat([data.batch(rows).mean(1) for rows in dealt])
        mean = mean_image(data.x_train)
        noise = torch.randn(real.shape, generator=generator, device=data.device, dtype=real.dtype)
        scale = (real - mean).flatten(1).norm(dim=1) / noise.flatten(1).norm(dim=1)
        yield "noise", mean + noise * scale.view(-1, 1, 1, 1)


class RealSubspaces:
    """The real data's subspaces, and the networks that others are looked at through: not those that the subspaces come from."""

    def __init__(self, data: Dataset, probe: Probe, seed: int):
        self.data, self.probe, self.seed = data, probe, seed
        most, self.mean = max(probe.directions), mean_image(data.x_train).flatten()
        self.of_images = principal_directions(
            (self._free(images.flatten(1)) for images in data.x_train.split(8192)), most
        )
        self.of_gradient = principal_directions(self._free(self._real_gradients("mlp", probe.inits)), most)
        self.of_filters = principal_directions(
            self._real_gradients(probe.network, probe.network_inits), probe.filters
        )
        self.mlps = [self._network("mlp", "probe", init) for init in range(probe.inits)]
        self.networks = [self._network(probe.network, "probe", init) for init in range(probe.network_inits)]
        real = self._real("features")[0]
        with torch.no_grad():
            self.embeddings = [
                compute.through(network, real, network.embed).mean(0) for network in self.networks
            ]

    def _network(self, name: str, *names) -> networks.Network:
        data, generator = self.data, stream(self.seed, "mechanism", name, *names, device=self.data.device)
        return networks.build(
            name, data.shape, data.classes, width=self.probe.width, device=data.device, generator=generator
        )

    def _real(self, *names) -> tuple[Tensor, Tensor]:
        index = self.data.sample(
            self.probe.batch, stream(self.seed, "mechanism", "real", *names, device=self.data.device)
        )
        return self.data.batch(index), self.data.y_train[index]

    def _real_gradients(self, name: str, inits: int) -> Tensor:
        return torch.cat(
            [
                first_layer_gradients(self._network(name, "real", init), *self._real(name, init))
                for init in range(inits)
            ]
        )

    def _free(self, rows: Tensor) -> Tensor:
        """(n, C * H * W) rows without their part along the mean image."""
        return rows - torch.outer(rows @ self.mean, self.mean / self.mean.square().sum())

    def changes(self, images: Tensor, labels: Tensor) -> dict:
        """What can be said of differences of images too: columns by name, those by k as lists."""
        flat = self._free(images.flatten(1))
        averages = torch.stack([flat[labels == label].mean(0) for label in labels.unique()])
        found = {"norm": float(flat.double().square().sum(1).mean().sqrt()), "rank": effective_rank(flat)}
        for name, basis in (("share", self.of_gradient), ("pca", self.of_images)):
            found[f"image_{name}"] = self._shares(flat, basis)
            found[f"average_{name}"] = self._shares(averages, basis)
        return found

    def images(self, images: Tensor, labels: Tensor) -> dict:
        """The same of images, with what the networks see in them."""
        gradients = self._free(
            torch.cat([first_layer_gradients(network, images, labels) for network in self.mlps])
        )
        own = principal_directions(gradients, min(max(self.probe.directions), len(images)))
        angles = [
            float(principal_angles(own[:, :count], self.of_gradient[:, :count]).mean())
            for count in self.probe.directions
        ]
        filters = torch.cat([first_layer_gradients(network, images, labels) for network in self.networks])
        with torch.no_grad():
            embedded = [
                compute.through(network, images, network.embed) - mean
                for network, mean in zip(self.networks, self.embeddings, strict=True)
            ]
        return self.changes(images, labels) | {
            "gradient_share": self._shares(gradients, self.of_gradient),
            "angle": angles,
            "filter_share": energy_share(filters, self.of_filters),
            "feature_rank": sum(map(effective_rank, embedded)) / len(embedded),
        }

    def _shares(self, rows: Tensor, basis: Tensor) -> list[float]:
        return [energy_share(rows, basis[:, :count]) for count in self.probe.directions]

    def rows(self, place: dict, found: list[dict]) -> list[dict]:
        """A row for each number of directions: `place` and the mean of `found`."""
        names = (
            "norm",
            "rank",
            "image_share",
            "average_share",
            "image_pca",
            "average_pca",
            "gradient_share",
            "angle",
            "filter_share",
            "feature_rank",
        )
        table = []
        for at, count in enumerate(self.probe.directions):
            row = place | {"k": count}
            for name in names:
                values = [
                    one[name][at] if isinstance(one[name], list) else one[name]
                    for one in found
                    if name in one
                ]
                row[name] = round(sum(values) / len(values), 6) if values else None
            table.append(row)
        return table
