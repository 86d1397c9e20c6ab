"""The cells of parameters of the notebook that runs, as its kernel remembers them."""

import math
import types

import pytest

from ddcore.lab import injected as module
from ddcore.lab.injected import injected

IMPORTS = "from ddcore.lab.study import Study\nx = Study"
DEFAULTS = "preset: str = 'smoke'  # or more\nseeds: list = [0]\ndevice: str = 'auto'\nout: str = ''\nsteps: int = None"
OF_DEFAULTS = {"preset": "smoke", "seeds": [0], "device": "auto", "out": "", "steps": None}


@pytest.mark.parametrize(("cells", "found"), [
    ([], {}), ([IMPORTS], {}), ([IMPORTS, DEFAULTS], OF_DEFAULTS),
    ([IMPORTS, DEFAULTS, '# Parameters\npreset = "laptop"\nstep = 5\nlrs = [1e-3]\n'],
     OF_DEFAULTS | {"preset": "laptop", "step": 5, "lrs": [1e-3]}),
    ([IMPORTS, DEFAULTS + "\nbatch_real = 8"], OF_DEFAULTS | {"batch_real": 8}),  # a reader's own
    ([DEFAULTS + "\nold = 1", DEFAULTS], OF_DEFAULTS),  # run twice: the last one counts
    ([DEFAULTS, "mine = 3", "for x in (): pass", "a, b = 1, 2", "%time 3"], OF_DEFAULTS),  # what is none of these is the reader's
    (["# Parameters\nstep = 5", "preset = 'laptop'\nsteps = 3"], {}),  # another notebook's
    ([DEFAULTS, "# Parameters\nlr = float('nan')\n"], OF_DEFAULTS | {"lr": math.nan}),
])  # fmt: skip
def test_parameters_are_those_of_the_cells_of_parameters(monkeypatch, cells, found):
    shell = types.SimpleNamespace(user_ns={"In": ["", *cells], "seeds": "rebound", "lr": found.get("lr")})
    monkeypatch.setattr(module, "get_ipython", lambda: shell)
    assert injected() == found


def test_outside_of_a_kernel_there_are_none():
    assert injected() == {}
