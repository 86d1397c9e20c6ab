"""The laboratory: experiments, measurements and studies. It uses the library, never the other way."""

from ddcore.figures.means import paired, summary
from ddcore.lab.experiment import Experiment, grid
from ddcore.lab.measurement import Measurement
from ddcore.lab.runner import Runner
from ddcore.lab.study import Study, made_from, recorded, show, tiles
from ddcore.lab.tables import method_name, rows, table

__all__ = [
    "Experiment",
    "Measurement",
    "Runner",
    "Study",
    "grid",
    "made_from",
    "method_name",
    "paired",
    "recorded",
    "rows",
    "show",
    "summary",
    "table",
    "tiles",
]
