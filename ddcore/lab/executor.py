"""Who computes the experiments whose records are missing: this process, or the workers of a scheduler (`ddcore.lab.scheduled`)."""

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from ddcore.errors import Diverged
from ddcore.files.records import Record

if TYPE_CHECKING:
    from ddcore.lab.experiment import Experiment
    from ddcore.lab.measurement import Measurement
    from ddcore.lab.runner import Runner


SCHEDULER = (
    "DDCORE_SCHEDULER"  # the address of the scheduler whose workers compute, in the environment of a notebook
)


class Executor(Protocol):
    """Hands experiments out and brings their records in."""

    def records(
        self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]"
    ) -> "Iterator[tuple[int, Record]]":
        """The place of each experiment and its record, as they come; missing ones are begun in the order given."""

    def attempts(
        self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]"
    ) -> "Iterator[tuple[int, Record | Diverged]]":
        """The same where some may diverge."""


class Here:
    """This process, one experiment after another; the first that fails ends it."""

    def records(
        self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]"
    ) -> "Iterator[tuple[int, Record]]":
        """As `Executor` says."""
        for place, experiment in enumerate(experiments):
            yield place, runner.run(experiment)

    def attempts(
        self, runner: "Runner", experiments: "Sequence[Experiment | Measurement]"
    ) -> "Iterator[tuple[int, Record | Diverged]]":
        """As `Executor` says."""
        for place, experiment in enumerate(experiments):
            try:
                yield place, runner.run(experiment)
            except Diverged as error:
                yield place, error


def chosen() -> Executor:
    """The workers of the scheduler that $DDCORE_SCHEDULER names, or this process. Raises BadInput as `connect` does."""
    if not os.environ.get(SCHEDULER):
        return Here()
    from ddcore.lab.scheduled import Scheduled, connect

    return Scheduled(connect(os.environ[SCHEDULER]))
