"""Who computes the experiments whose records are missing: this process, or others."""

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ddcore.records import Record

if TYPE_CHECKING:
    from ddcore.experiments import Experiment, Measurement, Runner


class Executor(Protocol):
    """Hands experiments out and brings their records in."""

    def records(self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]") -> "Iterator[tuple[int, Record]]":
        """The place of each experiment and its record, as they come; missing ones are begun in the order given."""


class Here:
    """This process, one experiment after another; the first that fails ends it."""

    def records(self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]") -> "Iterator[tuple[int, Record]]":
        """As `Executor` says."""
        for place, experiment in enumerate(experiments):
            yield place, runner.run(experiment)
