"""Through a network whose penultimate features are the pixels."""

import numpy as np
import pytest
import torch
from torch import nn

import ddcore
from ddcore.lab.measurements.class_features import class_correlation, class_vendi, first_test_images, plane
from ddcore.networks import Network
from ddcore.random import stream


def pixels(features: int, classes: int) -> Network:
    return Network([nn.Identity()], nn.Linear(features, classes))


def draw(name: str, *shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=stream(0, "class features", name), dtype=torch.float64)


def matrix(images: torch.Tensor, labels: torch.Tensor, classes: int) -> np.ndarray:
    rows = class_correlation(pixels(images[0].numel(), classes), images, labels)
    assert [(row["row"], row["column"]) for row in rows] == [
        (a, b) for a in range(classes) for b in range(classes)
    ]
    return np.array([row["correlation"] for row in rows]).reshape(classes, classes)


def test_it_is_the_correlation_of_the_class_means():
    """Classes of one, two and three images, in no order."""
    images, labels = draw("images", 6, 2, 3, 3), torch.tensor([2, 0, 1, 2, 1, 2])
    means = [images[labels == label].flatten(1).mean(0).numpy() for label in range(3)]
    np.testing.assert_allclose(matrix(images, labels, 3), np.corrcoef(means), atol=6e-6)


def test_brightness_and_contrast_of_a_class_do_not_count():
    images, labels = draw("images", 3, 1, 4, 4), torch.arange(3)
    images[1] = 3 * images[0] + 2
    images[2] = 1 - images[0]
    np.testing.assert_allclose(matrix(images, labels, 3), [[1, 1, -1], [1, 1, -1], [-1, -1, 1]], atol=1e-9)


def test_a_class_without_an_image_is_refused(refuses):
    for asked in (class_correlation, class_vendi):
        with refuses("class 1", "3 classes"):
            asked(pixels(4, 3), draw("images", 2, 1, 2, 2), torch.tensor([0, 2]))


def test_the_vendi_score_counts_what_differs_within_a_class():
    """A class of one image thrice counts 1, at whatever scale; one of three orthogonal images 3; the mean is 2."""
    same, axes = draw("same", 1, 1, 1, 4), torch.eye(4, dtype=torch.float64)[:3].view(3, 1, 1, 4)
    images, labels = torch.cat([same, axes, 2 * same, 5 * same]), torch.tensor([1, 0, 0, 0, 1, 1])
    assert class_vendi(pixels(4, 2), images, labels) == pytest.approx(2)
    assert class_vendi(
        pixels(4, 2), torch.cat([images, images]), torch.cat([labels, labels])
    ) == pytest.approx(2)


def test_in_the_plane_neighbours_are_those_of_the_features():
    """Three clusters far apart, each in two sets: the nearest image in the plane is of the same cluster."""
    centres = 50 * torch.eye(3, 5, dtype=torch.float64)
    sets = {
        name: (centres[labels].view(-1, 1, 1, 5) + draw(name, len(labels), 1, 1, 5), labels)
        for name, labels in (("real", torch.arange(1, 31) % 3), ("synthetic", torch.arange(3)))
    }
    found = plane(pixels(5, 3), sets, seed=0)
    assert [(one["set"], one["label"]) for one in found] == [
        (name, label) for name, (_, labels) in sets.items() for label in labels.tolist()
    ]
    at, labels = (
        torch.tensor([[one["x"], one["y"]] for one in found]),
        torch.tensor([one["label"] for one in found]),
    )
    nearest = (torch.cdist(at, at) + 1e9 * torch.eye(len(at))).argmin(1)
    assert torch.equal(labels[nearest], labels)


def test_the_places_are_those_of_the_seed():
    """Of noise, whose axes are as good as each other."""
    noise = {"real": (draw("noise", 30, 1, 1, 600), torch.arange(30) % 3)}
    first, again, other = (plane(pixels(600, 3), noise, seed=seed) for seed in (0, 0, 1))
    assert first == again != other


def test_three_images_have_no_neighbourhood(refuses):
    with refuses("t-SNE", "3 images"):
        plane(pixels(4, 3), {"real": (draw("images", 3, 1, 2, 2), torch.arange(3))}, seed=0)


@pytest.mark.parametrize("per_class", [1, 4])
def test_there_are_as_many_test_images_of_each_class(per_class):
    data = ddcore.load("digits", "cpu")
    images, labels = first_test_images(data, per_class)
    assert torch.equal(labels, torch.arange(10).repeat_interleave(per_class))
    assert torch.equal(images[per_class], data.x_test[data.y_test == 1][0])
