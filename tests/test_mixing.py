"""Mixup and CutMix: the share of each image is what the label mix is told."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ddcore.augment import mixing
from ddcore.random import stream


def drawn(kind, shape, seed=0, alpha=1.0):
    return mixing.draw(kind, torch.empty(shape), alpha, stream(seed, "mix"), np.random.default_rng(seed))


@given(st.integers(2, 6), st.integers(1, 9), st.integers(1, 9), st.integers(0, 10**6))
def test_a_box_holds_the_partner_and_the_share_is_what_is_left(count, height, width, seed):
    mix = drawn("cutmix", (count, 1, height, width), seed)
    x = torch.arange(count, dtype=torch.float64).view(-1, 1, 1, 1).expand(-1, 1, height, width)
    found = mixing.apply(mix, x)
    assert sorted(mix.partner.tolist()) == list(range(count))
    assert 0 <= mix.share <= 1
    for number, partner in enumerate(mix.partner.tolist()):
        mine = (found[number] == number).sum() if partner != number else height * width * mix.share
        assert float(mine) == pytest.approx(height * width * mix.share)
        assert set(found[number].unique().tolist()) <= {number, partner}


def test_a_blend_is_convex():
    mix = drawn("mixup", (5, 2, 3, 3))
    x = torch.randn(5, 2, 3, 3, generator=stream(0, "x"), dtype=torch.float64)
    torch.testing.assert_close(mixing.apply(mix, x), mix.share * x + (1 - mix.share) * x[mix.partner])


def test_none_is_none():
    x = torch.ones(2, 1, 3, 3)
    assert mixing.apply(drawn("none", x.shape), x) is x


def test_shares_follow_the_beta_law():
    numbers, generator, images = np.random.default_rng(0), stream(0, "mix"), torch.empty(2, 1, 4, 4)
    shares = np.array([mixing.draw("mixup", images, 0.8, generator, numbers).share for _ in range(4000)])
    assert shares.mean() == pytest.approx(0.5, abs=0.02)
    assert shares.var() == pytest.approx(1 / (4 * (2 * 0.8 + 1)), abs=0.005)


@pytest.mark.usefixtures("untouched")
def test_a_draw_depends_on_its_seed_and_on_no_global_state():
    assert drawn("cutmix", (4, 1, 8, 8), 3).box == drawn("cutmix", (4, 1, 8, 8), 3).box
    assert drawn("mixup", (4, 1, 8, 8), 3).share != drawn("mixup", (4, 1, 8, 8), 4).share


def test_small_boxes_are_centred_where_they_were_drawn():
    boxes = {drawn("cutmix", (2, 1, 9, 9), seed, alpha=0.5).box for seed in range(200)}
    assert min(top for top, *_ in boxes) == 0
    assert max(bottom for _, bottom, *_ in boxes) == 9
    assert len(boxes) > 100
