"""Values of the command line: YAML 1.2's, and its disagreements with YAML 1.1."""

import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ddcore.lab.values import read


@pytest.mark.parametrize(("text", "value"), [
    ("1e-3", 1e-3), ("1E5", 1e5), ("-2.5e+3", -2500.0), (".5", 0.5), ("5.", 5.0), ("0", 0), ("-7", -7), ("+3", 3), ("0.25", 0.25),
    ("0x1F", 31), ("0o17", 15), (".inf", math.inf), ("-.inf", -math.inf), ("true", True), ("False", False), ("null", None), ("~", None),
    ("[1e-3, 2, x]", [1e-3, 2, "x"]), ("{1: {a: 1e2}}", {1: {"a": 100.0}}), ("'1e-3'", "1e-3"),
    # words here, numbers, truths and days in YAML 1.1
    ("010", "010"), ("01.5", "01.5"), ("1:30", "1:30"), ("1_000", "1_000"), ("0b11", "0b11"), ("yes", "yes"), ("no", "no"), ("on", "on"),
    ("2026-11-29", "2026-11-29"), ("<<", "<<"), ("inf", "inf"), ("nan", "nan"),
])  # fmt: skip
def test_what_is_written_is_what_is_meant(text, value):
    found = read(text)
    assert found == value
    assert type(found) is type(value)


@given(st.integers() | st.floats(allow_nan=False) | st.booleans() | st.none())
def test_every_number_as_python_prints_it_comes_back(value):
    text = {math.inf: ".inf", -math.inf: "-.inf", True: "true", None: "null", False: "false"}.get(
        value, repr(value)
    )
    text = repr(value) if type(value) in (int, float) and math.isfinite(value) else text
    assert read(text) == value
    assert type(read(text)) is type(value)


@pytest.mark.parametrize("text", ["[1", "{a: 1, a: 2}", "{b: {a: 1, c: 2, a: 1}}", "!!python/name:os.system"])
def test_what_is_no_value_or_names_a_thing_twice_is_an_error(text):
    with pytest.raises(yaml.YAMLError):
        read(text)
