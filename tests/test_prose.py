"""What the notebooks say in numbers is what their checked cells print, from the committed records (`test_notebooks` runs those cells)."""

import json
import re

import pytest

from ddcore.lab import batch

NUMBER = re.compile(r"(?<![\w.,^])([+−]?)(\d+\.\d+)(?: ± (\d+\.\d+))?(?![\w^]|\.\d)")

QUOTED = {  # numbers of no record, with where they come from
    "30_multi_index_theory": {
        "4.2": "number of a theorem of Chen, Huang and Weng",
        "2603.14830": "identifier on arXiv",
    },
    "41_directed_weight_adjustment": {
        "65.4": "table of results in the paper's repository",
        "73.5": "test of the teacher, in no record",
    },
}


def sections(cells):
    """(heading, prose, what its checked cells print) of each '## ' section; what stands before the first may say what any prints."""
    found = [["", "", ""]]
    for cell in cells:
        text = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            for part in re.split(r"^(?=## )", text, flags=re.M):
                if part.startswith("## "):
                    found.append([part.splitlines()[0], "", ""])
                found[-1][1] += part + "\n"
        elif "nbval-check-output" in cell["metadata"].get("tags", []):
            outputs = [
                "".join(output.get("text") or output.get("data", {}).get("text/plain", ""))
                for output in cell["outputs"]
            ]
            found[-1][2] += "\n".join(outputs) + "\n"
    found[0][2] = "\n".join(printed for _, _, printed in found)
    return found


def unprinted(cells):
    """The numbers with a decimal point that the prose has and no checked cell of its section prints; settings in code or formulas are no
    results. A number with a sign, and one with a spread, are looked for with them."""
    missing = []
    for heading, prose, printed in sections(cells):
        for number in NUMBER.finditer(re.sub(r"`[^`]*`|\$\$.*?\$\$|\$[^$]*\$", " ", prose, flags=re.S)):
            sign, value, spread = number.groups()
            wanted = {"−": "-", "+": r"\+", "": "[+-]?" if spread is None else r"\+?"}[sign] + re.escape(
                value
            )
            wanted += f" ± {re.escape(spread)}" if spread else ""
            if not re.search(rf"(?<![\d.\w-]){wanted}(?!\d)", printed):
                missing.append(f"{heading}: {number.group()}")
    return missing


@pytest.mark.parametrize("notebook", batch.notebooks(), ids=lambda path: path.stem)
def test_every_number_of_the_prose_is_printed_by_a_checked_cell_of_its_section(notebook):
    missing = unprinted(json.loads(notebook.read_text(encoding="utf-8"))["cells"])
    assert [line for line in missing if line.split(": ")[1] not in QUOTED.get(notebook.stem, {})] == []


PRINTED = "DM  LoDM - DM\n80.7 ± 0.5  +4.3 ± 2.2\n79.1 ± 0.5  -1.6 ± 0.7\n"


@pytest.mark.parametrize(
    ("prose", "found"),
    [
        ("It gains +4.3 ± 2.2 points.", []),
        ("It gains 4.3 ± 2.2 points.", []),
        ("It loses −1.6.", []),
        ("At 80.7 %.", []),
        ("With `rho` `0.015` and $0.5$.", []),
        ("It gains 4.4 ± 2.2.", ["4.4 ± 2.2"]),
        ("It gains 4.3 ± 2.3.", ["4.3 ± 2.3"]),
        ("It loses −4.3 ± 2.2.", ["−4.3 ± 2.2"]),
        ("It loses 1.6 ± 0.7.", ["1.6 ± 0.7"]),
        ("At 80.71 %.", ["80.71"]),
        ("At 0.8.", ["0.8"]),
        ("## B\nAt 80.7 %.", ["80.7"]),
    ],
)
def test_a_number_that_drifts_is_found(prose, found):
    code = {
        "cell_type": "code",
        "source": [],
        "metadata": {"tags": ["nbval-check-output"]},
        "outputs": [{"text": [PRINTED]}],
    }
    title, text = (
        {"cell_type": "markdown", "source": [source]} for source in ("# Title\nAt 80.7 %.\n## A\n", prose)
    )
    assert [line.split(": ")[1] for line in unprinted([title, code, text])] == found
