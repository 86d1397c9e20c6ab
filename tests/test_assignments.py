"""What stands behind --set: whose setting it is, and what is refused."""

import pytest

from ddcore.cli import assignments

GROUPS, BARE = ("method", "synthetic", "mutual_information"), ("r_var", "teacher", "width")
GIVEN = {
    "nothing": ([], {}),
    "of the method": (["r_var=11"], {"method": {"r_var": 11}}),
    "of the method in full": (["method.r_var=11"], {"method": {"r_var": 11}}),
    "nested": (
        ["teacher.epochs=5", "method.teacher.width=8"],
        {"method": {"teacher": {"epochs": 5, "width": 8}}},
    ),
    "nested in words of YAML": (
        ["teacher={epochs: 5}", "teacher.width=8"],
        {"method": {"teacher": {"epochs": 5, "width": 8}}},
    ),
    "of the set": (
        ["synthetic.balance=true", "synthetic.step_rate=1e-3"],
        {"synthetic": {"balance": True, "step_rate": 1e-3}},
    ),
    "of a plugin": (["mutual_information.layers=[0, 1]"], {"mutual_information": {"layers": [0, 1]}}),
    "a whole group": (["synthetic={balance: true}"], {"synthetic": {"balance": True}}),
    "unknown to the method, which refuses it": (["r_bar=1"], {"method": {"r_bar": 1}}),
}
REFUSED = {
    "no value": (["r_var"], ("--set r_var", "name=value")),
    "twice": (["r_var=1", "r_var=1"], ("r_var is given twice",)),
    "twice in other words": (["r_var=1", "method.r_var=1"], ("--set method.r_var", "given twice")),
    "twice, nested": (
        ["teacher={epochs: 5}", "teacher.epochs=6"],
        ("--set teacher.epochs", "epochs is given twice"),
    ),
    "a value and its parts": (["teacher=5", "teacher.epochs=6"], ("teacher is given twice",)),
    "parts and the value": (["teacher.epochs=6", "teacher=5"], ("teacher is given twice",)),
    "no YAML": (["r_var=[1"], ("'[1'", "YAML")),
    "a group alone": (["synthetic=lowrank"], ("--set synthetic=lowrank", "--set synthetic.SETTING=value")),
    "of nothing": (
        ["sintetic.balance=true"],
        ("--set sintetic.balance", "'sintetic'", "did you mean 'synthetic'", "mutual_information"),
    ),
}


@pytest.mark.parametrize("case", GIVEN)
def test_a_name_is_of_the_group_that_it_begins_with_or_of_the_first(case):
    pairs, expected = GIVEN[case]
    assert assignments.grouped(pairs, GROUPS, BARE) == {name: {} for name in GROUPS} | expected


@pytest.mark.parametrize("case", REFUSED)
def test_what_can_not_be_meant_is_one_sentence(case, refuses):
    pairs, words = REFUSED[case]
    with refuses(*words):
        assignments.grouped(pairs, GROUPS, BARE)


def test_what_an_option_gives_is_not_set_again(refuses):
    assignments.once("method", {"r_var": 1}, {"width": "--width"})
    with refuses("--set method.width", "--width gives it too"):
        assignments.once("method", {"r_var": 1, "width": 3}, {"width": "--width"})
