"""What is told of a teacher or expert that is there and not taken."""

from pathlib import Path

import pytest

from ddcore.files import passed_over

WANTED = {
    "lr": 0.1,
    "crop": (1, 2),
    "versions": {"squeeze": 1},
    "computed_with": {"torch": "2", "threads": 2},
}
KEPT = {
    "another was asked for": ([WANTED | {"lr": 0.2, "computed_with": {}}], None),
    "another dataset": ([WANTED | {"data": "x"}], None),
    "threads": ([WANTED | {"computed_with": {"torch": "2", "threads": 1}}], "threads 1 (here 2)"),
    "a GPU": (
        [WANTED | {"device": "cuda", "computed_with": {"torch": "2", "gpu": "H"}}],
        "device cuda (here none), gpu H (here none), threads not kept (here 2)",
    ),
    "of before it was kept": (
        [{name: value for name, value in WANTED.items() if name != "computed_with"}],
        "threads not kept (here 2), torch not kept (here 2)",
    ),
    "older code": ([WANTED | {"versions": {"squeeze": 0}}], "version of squeeze 0 (here 1)"),
    "the nearest of several": (
        [
            WANTED | {"lr": 1},
            WANTED | {"computed_with": {}},
            WANTED | {"computed_with": {"torch": "1", "threads": 2}},
        ],
        "torch 1 (here 2)",
    ),
    "none": ([], None),
}


@pytest.mark.parametrize("case", KEPT)
def test_one_line_names_what_differs_where_the_same_was_asked_for(case, capsys):
    kept, words = KEPT[case]
    passed_over.say(
        "teacher", WANTED, [(Path(str(place)), one | {"crop": [1, 2]}) for place, one in enumerate(kept)]
    )
    out, err = capsys.readouterr()
    assert out == ""
    assert (
        err == ""
        if words is None
        else err.startswith(f"teacher: {len(kept) - 1} is passed over, since it was computed with {words}; ")
    )
    assert err.count("\n") == (words is not None)
