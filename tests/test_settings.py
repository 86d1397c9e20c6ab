import contextlib
import dataclasses
import typing

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcore import settings
from ddcore.errors import BadInput
from ddcore.settings import build, one_of, positive, unknown


@dataclasses.dataclass(frozen=True)
class Some:
    constant: typing.ClassVar[int] = 3

    steps: int
    rate: float = 0.5
    name: str = "a"
    deep: bool = False
    sizes: tuple[int, ...] = ()
    rates: tuple[float, ...] = ()
    width: int | None = None
    decay: float | None = None
    anything: typing.Any = None
    extra: dict[str, int] = dataclasses.field(default_factory=dict)


def test_defaults_are_filled_in():
    assert build(Some, {"steps": 3}) == Some(3)


def test_an_unknown_name_is_refused_with_the_nearest(refuses):
    with refuses("Some", "'stepps'", "rate", "did you mean 'steps'?"):
        build(Some, {"stepps": 3})
    with refuses("setting of distill", "'constant'"):
        build(Some, {"steps": 1, "constant": 3}, "distill")


def test_a_missing_name_is_refused(refuses):
    with refuses("Some", "'steps' is missing"):
        build(Some, {"rate": 1.0})


@pytest.mark.parametrize(
    ("name", "value", "needs"),
    [
        ("steps", True, "int"),
        ("steps", 1.0, "int"),
        ("steps", "3", "int"),
        ("steps", None, "int"),
        ("rate", "0.5", "float"),
        ("rate", True, "float"),
        ("name", 3, "str"),
        ("deep", 1, "bool"),
        ("deep", "yes", "bool"),
        ("sizes", 3, "tuple[int"),
        ("sizes", (1, "a"), "tuple[int"),
        ("sizes", [1, 2.0], "tuple[int"),
        ("sizes", "12", "tuple[int"),
        ("rates", [True], "tuple[float"),
        ("width", "8", "int | None"),
        ("width", True, "int | None"),
        ("decay", "0", "float | None"),
        ("extra", [1], "dict"),
    ],
)
def test_an_ill_typed_value_is_refused(name, value, needs, refuses):
    with refuses("Some", f"{name}={value!r}", type(value).__name__, f"needs {needs}"):
        build(Some, {"steps": 1, name: value})


@given(st.integers(-(2**50), 2**50))
def test_an_int_stands_for_a_float(value):
    found = build(Some, {"steps": 1, "rate": value, "decay": value, "rates": [value]})
    for given_back in (found.rate, found.decay, *found.rates):
        assert given_back == value
        assert type(given_back) is float


@given(st.lists(st.integers(), max_size=4))
def test_a_list_stands_for_a_tuple(values):
    assert build(Some, {"steps": 1, "sizes": values}) == build(Some, {"steps": 1, "sizes": tuple(values)})
    assert type(build(Some, {"steps": 1, "sizes": values}).sizes) is tuple


anything = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.integers())


@given(st.dictionaries(st.sampled_from([*Some.__annotations__, "other"]), anything))
def test_nothing_but_bad_input_is_raised(given_settings):
    with contextlib.suppress(BadInput):
        build(Some, {"steps": 1} | given_settings)


def test_none_is_a_value_where_the_type_says_so():
    assert build(Some, {"steps": 1, "width": None, "decay": None}) == Some(1)
    assert build(Some, {"steps": 1, "width": 8}).width == 8


def test_a_bool_stays_a_bool():
    assert build(Some, {"steps": 1, "deep": True}).deep is True


@pytest.mark.parametrize("value", [0, -1, 0.0, -0.5, float("nan")])
def test_positive_refuses(value, refuses):
    with refuses("distill", f"steps={value}", "above 0"):
        positive("distill", lr=1.0, steps=value)


def test_positive_and_one_of_pass_what_is_allowed():
    positive("distill", steps=1, lr=1e-9)
    one_of("Pixels", ("real", "noise"), init="real")


@pytest.mark.parametrize("value", ["reel", None, 3, ["real"]])
def test_one_of_refuses(value, refuses):
    with refuses("init of Pixels", value, "noise, real"):
        one_of("Pixels", (name for name in ("real", "noise")), init=value)


def test_a_far_name_gets_no_suggestion():
    assert "did you mean" not in str(unknown("network", "zzzz", ["convnet"]))
    assert "did you mean 'convnet'?" in str(unknown("network", "convnett", ["convnet", "mlp"]))


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 2
    wide: bool = settings.later(False)


@dataclasses.dataclass(frozen=True)
class Outer:
    inner: Inner = dataclasses.field(default_factory=Inner)
    lr: float = 0.1
    rule: str = settings.later("sgd")


def test_a_mapping_stands_for_a_dataclass(refuses):
    assert settings.build(Outer, {"inner": {"depth": 3}}) == Outer(Inner(3))
    assert settings.build(Outer, {"inner": Inner(3)}) == Outer(Inner(3))
    with refuses("Inner", "'dept'", "did you mean 'depth'"):
        settings.build(Outer, {"inner": {"dept": 3}})
    with refuses("inner=3", "Inner"):
        settings.build(Outer, {"inner": 3})


def test_a_later_field_is_stated_where_it_differs_from_its_default():
    assert settings.stated(Outer()) == {"inner": {"depth": 2}, "lr": 0.1}
    assert settings.stated(Outer(Inner(wide=True), rule="adam")) == {
        "inner": {"depth": 2, "wide": True},
        "lr": 0.1,
        "rule": "adam",
    }
