"""What several test files share: small datasets, the check of a refusal, hypothesis without clocks or a database."""

import contextlib
import dataclasses
import random

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, settings

import ddcore
from ddcore.data import Dataset

settings.register_profile(
    "ddcore",
    deadline=None,
    max_examples=15,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("ddcore")


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return ddcore.load("digits", "cpu")


@pytest.fixture(scope="session")
def digits64(digits) -> Dataset:
    """The digits in float64."""
    return dataclasses.replace(digits, x_train=digits.x_train.double(), x_test=digits.x_test.double())


@pytest.fixture(scope="session")
def coloured() -> Dataset:
    """Three classes of 4, 7 and 9 random 3x6x10 images: unequal sizes, unequal sides."""
    generator = torch.Generator().manual_seed(0)
    y = torch.arange(3).repeat_interleave(torch.tensor([4, 7, 9]))
    x = torch.randn(len(y), 3, 6, 10, generator=generator)
    return Dataset("coloured", x, y, x[::2], y[::2], (0.5,) * 3, (0.25,) * 3, "0" * 64, ("a", "b", "c"))


@pytest.fixture(scope="session")
def refuses():
    """`with refuses('a.npz', 'missing'):` wants a BadInput of one sentence that holds these words."""

    @contextlib.contextmanager
    def check(*words):
        with pytest.raises(ddcore.BadInput) as caught:
            yield
        message = str(caught.value)
        assert "\n" not in message
        assert len(message) > 15
        for word in words:
            assert str(word) in message, f"'{word}' is not in: {message}"

    return check


def global_states() -> list:
    name, keys, *rest = np.random.get_state()  # noqa: NPY002
    return [torch.get_rng_state().tolist(), random.getstate(), name, keys.tolist(), rest]


@pytest.fixture
def untouched():
    """Fails the test if it changed the global random state of torch, numpy or Python."""
    before = global_states()
    yield
    assert global_states() == before


@pytest.fixture(scope="module")
def teachers(tmp_path_factory):
    """An empty data folder, so that no test finds or leaves a teacher elsewhere."""
    folder = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDCORE_DATA", str(folder))
        patch.delenv("DDCORE_CACHE", raising=False)
        yield folder / "teachers"
