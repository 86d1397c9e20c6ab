"""What a trained network sees of the classes of a set: how alike their mean features are, how unlike the images of one class, and where
its images lie among real ones."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ddcore import compute
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.kernels.class_means import class_means
from ddcore.lab.measurements.diversity import vendi
from ddcore.networks import Network


def first_test_images(data: Dataset, per_class: int) -> tuple[Tensor, Tensor]:
    """(n, C, H, W), (n,): the first `per_class` test images of each class, or all where there are fewer."""
    index = torch.cat(
        [(data.y_test == label).nonzero().flatten()[:per_class] for label in range(data.classes)]
    )
    return data.x_test[index], data.y_test[index]


@torch.no_grad()
def class_correlation(network: Network, images: Tensor, labels: Tensor) -> list[dict]:
    """Pearson's correlation, over the penultimate features of `network`, between the mean features of two classes.

    images (n, C, H, W), labels (n,). Columns: row, column (classes), correlation. Raises BadInput for a class without an image.
    """
    classes = _all_classes(network, labels)
    found = torch.corrcoef(
        class_means(compute.through(network, images, network.embed).double(), labels, classes)
    ).tolist()
    return [
        {"row": row, "column": column, "correlation": round(value, 5)}
        for row, values in enumerate(found)
        for column, value in enumerate(values)
    ]


@torch.no_grad()
def class_vendi(network: Network, images: Tensor, labels: Tensor) -> float:
    """The Vendi score (`ddcore.lab.measurements.diversity.vendi`) of one class's images by the penultimate features of `network`, mean
    over the classes:
    1 where the images of a class are one image, at most their number. images (n, C, H, W), labels (n,). Raises BadInput for a class
    without an image."""
    features = compute.through(network, images, network.embed).double()
    return (
        torch.stack([vendi(features[labels == label]) for label in range(_all_classes(network, labels))])
        .mean()
        .item()
    )


def _all_classes(network: Network, labels: Tensor) -> int:
    classes = network.classifier.out_features
    if missing := set(range(classes)) - set(labels.tolist()):
        raise BadInput(
            f"no image of class {min(missing)}; give at least one of each of the {classes} classes"
        )
    return classes


@torch.no_grad()
def plane(network: Network, sets: Mapping[str, tuple[Tensor, Tensor]], *, seed: int) -> list[dict]:
    """t-SNE (van der Maaten & Hinton, 2008) of the penultimate features of all `sets`, (images, labels) by name, in one plane.

    Columns: set, label, x, y. Raises BadInput for fewer than four images in all.
    """
    from sklearn.manifold import TSNE

    features = (
        torch.cat([compute.through(network, images, network.embed) for images, _ in sets.values()])
        .cpu()
        .numpy()
    )
    if len(features) < 4:
        raise BadInput(f"t-SNE: {len(features)} images are too few to have neighbours; give four or more")
    places = (
        TSNE(perplexity=min(30, (len(features) - 1) / 3), random_state=seed).fit_transform(features).tolist()
    )
    named = [(name, label) for name, (_, labels) in sets.items() for label in labels.tolist()]
    return [
        {"set": name, "label": label, "x": round(x, 4), "y": round(y, 4)}
        for (name, label), (x, y) in zip(named, places, strict=True)
    ]
