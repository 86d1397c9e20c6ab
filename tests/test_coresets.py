import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import ddcore
from ddcore import networks
from ddcore.evaluation.coresets import NAMES, herding, k_center
from ddcore.random import stream

cases = st.tuples(st.integers(1, 12), st.integers(1, 4), st.integers(0, 10**6))


def cloud(many, size, seed):
    return torch.randn(many, size, generator=stream(seed, "cloud"), dtype=torch.float64)


def herding_by_force(features, count):
    chosen = []
    for _ in range(count):

        def distance(index):
            mean = sum(features[i] for i in [*chosen, index]) / (len(chosen) + 1)
            return float((mean - features.mean(0)).norm())

        chosen.append(min((index for index in range(len(features)) if index not in chosen), key=distance))
    return chosen


def k_center_by_force(features, count):
    chosen = [min(range(len(features)), key=lambda index: float((features[index] - features.mean(0)).norm()))]
    while len(chosen) < count:

        def gap(index):
            return min(float((features[index] - features[other]).norm()) for other in chosen)

        chosen.append(max((index for index in range(len(features)) if index not in chosen), key=gap))
    return chosen


@pytest.mark.parametrize(("rule", "force"), [(herding, herding_by_force), (k_center, k_center_by_force)])
@given(case=cases, data=st.data())
def test_rule_equals_brute_force(rule, force, case, data):
    features = cloud(*case)
    count = data.draw(st.integers(1, len(features)))
    assert rule(features, count).tolist() == force(features, count)


@pytest.mark.parametrize("rule", [herding, k_center])
def test_rule_takes_no_image_twice_though_all_are_alike(rule):
    for features in (torch.zeros(6, 3), torch.eye(3).repeat(2, 1)):
        assert sorted(rule(features, 6).tolist()) == list(range(6))


def test_herding_of_all_has_the_mean_and_of_one_the_nearest():
    features = cloud(9, 3, 0)
    assert sorted(herding(features, 9).tolist()) == list(range(9))
    assert herding(features, 1).tolist() == k_center(features, 1).tolist()


def test_k_center_covers_within_twice_the_best():
    features = cloud(9, 2, 3)
    distance = torch.cdist(features, features)
    best = min(
        distance[:, list(subset)].min(1).values.max()
        for subset in torch.combinations(torch.arange(9), 3).tolist()
    )
    assert distance[:, k_center(features, 3)].min(1).values.max() <= 2 * best + 1e-12


@pytest.mark.parametrize("name", [name for name in NAMES if name != "whole"])
@pytest.mark.parametrize("ipc", [1, 3])
def test_baseline_costs_its_budget_and_has_sorted_balanced_labels(name, ipc, digits):
    found = ddcore.baseline(name, digits, ipc, width=4)
    assert found.stored_numbers <= found.budget == ipc * 10 * 64
    assert torch.equal(found.labels, torch.arange(10).repeat_interleave(found.per_class))
    assert found.per_class == (2 * ipc if name == "svd" else ipc)
    assert torch.equal(found.images(), ddcore.baseline(name, digits, ipc, width=4).images())


@pytest.mark.parametrize("name", ["random", "herding", "k_center"])
def test_baseline_is_of_distinct_training_images_of_the_class(name, coloured):
    found = ddcore.baseline(name, coloured, 3, width=4)
    for label in range(3):
        same = (
            (found.images()[found.labels == label][:, None] == coloured.class_images(label)[None])
            .flatten(2)
            .all(2)
        )
        assert same.sum() == 3
        assert same.any(0).sum() == 3


@pytest.mark.parametrize(("name", "force"), [("herding", herding_by_force), ("k_center", k_center_by_force)])
def test_baseline_follows_the_rule_on_the_network_it_names(name, force, coloured):
    net = networks.build("convnet", coloured.shape, 3, width=4, generator=stream(7, "coreset"))
    with torch.no_grad():
        chosen = [
            coloured.class_images(label)[sorted(force(net.embed(coloured.class_images(label)), 2))]
            for label in range(3)
        ]
    assert torch.equal(ddcore.baseline(name, coloured, 2, width=4, seed=7).images(), torch.cat(chosen))


def test_whole_is_the_training_set(coloured):
    whole = ddcore.baseline("whole", coloured, 1)
    assert torch.equal(whole.images(), coloured.x_train)
    assert torch.equal(whole.labels, coloured.y_train)
    assert whole.stored_numbers == coloured.x_train.numel()
    assert torch.equal(whole.images(torch.tensor([3, 1])), coloured.x_train[[3, 1]])


def test_svd_baseline_is_the_set_of_that_init(digits):
    assert torch.equal(
        ddcore.baseline("svd", digits, 2, rank=3, seed=1).images(),
        ddcore.LowRank(digits, 2, rank=3, init="svd", seed=1).images(),
    )


def test_an_unknown_baseline_is_refused(digits, refuses):
    with refuses("baseline", "'hering'", "did you mean 'herding'?"):
        ddcore.baseline("hering", digits, 1)


@pytest.mark.parametrize("name", NAMES)
def test_no_budget_is_refused(name, digits, refuses):
    with refuses("budget_ipc=0", "above 0"):
        ddcore.baseline(name, digits, 0)


@pytest.mark.parametrize("name", ["random", "herding", "k_center", "svd"])
def test_more_images_than_a_class_has_are_refused(name, coloured, refuses):
    with refuses("coloured", "class a has 4 training images", "budget_ipc=6"):
        ddcore.baseline(name, coloured, 6, width=4)
