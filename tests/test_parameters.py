"""What a parameter of a notebook may be, by its examples."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcore.lab.parameters import check, named

EXAMPLES = {
    "steps": [30, 300], "lr": [0.1], "lrs": [[1.0, 10.0]], "compiled": [False], "network": ["convnet"], "strategy": ["none"],
    "dataset": ["digits"], "device": ["auto"], "precision": ["float32"], "seeds": [[0, 1]], "also": [[], [["cifar10", 10]]],
    "places": [[["digits", 1, "dc"]]], "crop": [1], "either": [None, "convnet"],
    "teacher": [{"network": "convnet-bn", "epochs": 6, "crop": 1, "lr": 0.1, "flip": False}],
    "lr_img": [{"digits": 1.0}, {"cifar10": 10.0}],
    "hosts": [[{"dataset": "digits", "settings": {"name": "dm"}}, {"dataset": "digits", "settings": {"name": "dc", "inner": 2}}]],
    "r_vars": [{"noise": [1.0], "real": [0.0]}],
}  # fmt: skip


@pytest.mark.parametrize(("name", "value"), [
    ("steps", 1), ("lr", 1), ("lr", 1e-9), ("lrs", [1, 0.5]), ("compiled", True), ("network", "convnet3-bn"), ("network", "resnet18-bn"),
    ("strategy", "color_crop"), ("strategy", ""), ("dataset", "cifar10-zca"), ("device", "cpu"), ("precision", "bfloat16"),
    ("seeds", [7, 0]), ("also", []), ("also", [["digits", 3]]), ("places", [["cifar10", 10, "dm", "dsa"]]), ("crop", 0),
    ("either", None), ("either", 3),
    ("teacher", {"epochs": 3}), ("teacher", {"crop": 0, "lr": 1}), ("lr_img", {"mine": 2.0}),
    ("hosts", [{"dataset": "cifar10", "settings": {"inner": 1}}]), ("r_vars", {"noise": [0.0]}),
])  # fmt: skip
def test_what_is_like_an_example_is_taken(name, value):
    check("here", name, value, EXAMPLES[name])


@pytest.mark.parametrize(("name", "value", "words"), [
    ("steps", 0, ("steps=0 must be above 0",)), ("steps", -3, ("steps=-3 must be above 0",)),
    ("steps", 1.5, ("steps=1.5", "float", "int")), ("steps", "010", ("steps='010'", "int", "like 10")),
    ("steps", "1:30", ("'1:30'",)), ("steps", True, ("bool", "int")), ("lr", math.nan, ("lr=nan", "finite")),
    ("lr", math.inf, ("lr=inf", "finite")), ("lr", "1e-3", ("'1e-3'", "1e-3")), ("lrs", [], ("lrs=[]", "empty")),
    ("lrs", [0.1, -1.0], ("lrs[1]=-1.0", "above 0")), ("lrs", 0.1, ("list",)), ("compiled", 1, ("bool",)), ("compiled", "yes", ("bool",)),
    ("network", "convnt", ("did you mean 'convnet'",)), ("strategy", "crop_flop", ("'flop'",)),
    ("dataset", "digit", ("did you mean 'digits'",)), ("dataset", "no/such.npz", ("no/such.npz", "no file")),
    ("device", "cdua", ("'cdua'",)), ("precision", "float16", ("'float16'",)), ("seeds", [0, 1, 0], ("seeds=[0, 1, 0]", "twice")),
    ("seeds", [-1], ("seeds[0]=-1", "at least 0")), ("seeds", [], ("empty",)), ("seeds", 3, ("list",)),
    ("also", [5], ("also[0]=5", "list")), ("places", [["digits", 0, "dc"]], ("places[0][1]=0",)),
    ("places", [["digits", 1.5]], ("places[0][1]=1.5",)),
    ("crop", -1, ("crop=-1", "at least 0")), ("teacher", {"epoch": 3}, ("name in teacher", "did you mean 'epochs'")),
    ("teacher", {"epochs": -3}, ("teacher[epochs]=-3",)), ("teacher", {"network": "convnt-bn"}, ("'convnt-bn'",)),
    ("teacher", 3, ("teacher=3", "dict")), ("lr_img", {"digits": "a"}, ("lr_img[digits]='a'",)),
    ("lr_img", {"mine": -1.0}, ("lr_img[mine]",)),
    ("hosts", [{"datset": "digits"}], ("hosts[0]", "did you mean 'dataset'")),
    ("hosts", [{"settings": {"inner": 0}}], ("hosts[0][settings][inner]=0",)), ("r_vars", {"real": [-1.0]}, ("at least 0",)),
], ids=str)  # fmt: skip
def test_what_is_not_is_refused(refuses, name, value, words):
    with refuses(*words):
        check("here", name, value, EXAMPLES[name])


@given(
    st.recursive(
        st.integers(1) | st.floats(1e-9, 1e9) | st.booleans() | st.text("abc", min_size=1),
        lambda inner: (
            st.lists(inner, min_size=1, max_size=3)
            | st.dictionaries(st.text("xyz", min_size=1), inner, min_size=1, max_size=3)
        ),
        max_leaves=9,
    )
)
def test_an_example_is_like_itself(value):
    check("here", "any", value, [value])


def test_a_dataset_is_found_by_name_where_datasets_lie(tmp_path, monkeypatch):
    monkeypatch.setenv("DDCORE_DATA", str(tmp_path))
    (tmp_path / "one.npz").touch()
    (tmp_path / "two").mkdir()
    assert [name for name in ("digits", "svhn", "one", "two", "three") if named(name)] == [
        "digits",
        "svhn",
        "one",
        "two",
    ]
