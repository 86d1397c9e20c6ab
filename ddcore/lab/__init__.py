"""The laboratory: experiments, measurements and studies. It uses the library, never the other way."""

from ddcore.lab.experiment import Experiment, grid
from ddcore.lab.measurement import Measurement
from ddcore.lab.runner import Runner
from ddcore.lab.study import Study, recorded, tiles
from ddcore.lab.tables import paired, rows, summary, table

__all__ = ["Experiment", "Measurement", "Runner", "Study", "grid", "paired", "recorded", "rows", "summary", "table", "tiles"]
