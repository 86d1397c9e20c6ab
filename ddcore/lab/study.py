"""One run of one notebook: its numbers, its runner, its figures; what the second cell of every notebook makes."""

import dataclasses
import io
import math
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pandas as pd
import PIL.Image
from IPython.display import Image, Markdown, display

from ddcore import compute, figures
from ddcore.errors import BadInput, Diverged
from ddcore.evaluation.step_size import climb_together
from ddcore.files import made
from ddcore.files.records import Record, read
from ddcore.lab import batch, parameters
from ddcore.lab.asked import Asked
from ddcore.lab.executor import chosen
from ddcore.lab.experiment import Experiment
from ddcore.lab.injected import OF_ALL, injected
from ddcore.lab.measurement import Measurement
from ddcore.lab.runner import Runner
from ddcore.settings import listed
from ddcore.synthetic import Synthetic


class Study:
    """`settings` are the preset's numbers with the overrides that are not None; `seeds` (None: the preset's) and `device` as given.

    Every number of the preset can be overridden: what papermill injected, or a reader wrote in the cell of parameters, counts as given too
    (`ddcore.lab.injected`), and a name that is not there is refused. Records and figures go to `out`; where that is empty, those of the
    smoke
    preset go nowhere, those of larger ones to figures/, if they can land there (`ddcore.lab.batch.lands`). A present record is read, not
    made again. Raises BadInput before anything is computed.
    """

    def __init__(
        self, notebook: str, *, preset: str, seeds: Sequence[int] | None, device: str, out: str, **overrides
    ):
        overrides = {name: value for name, value in injected().items() if name not in OF_ALL} | overrides
        self.settings = batch.preset(preset, notebook, overrides)
        of_preset = self.settings.pop("seeds", None)
        seeds = of_preset if seeds is None else [*seeds] if isinstance(seeds, tuple | range) else seeds
        parameters.check(notebook, "seeds", seeds, [[0]])
        self.preset, self.seeds, self.device = preset, tuple(seeds), compute.device(device)
        apart = batch.lands(preset, notebook, self.settings | {"seeds": seeds})
        if apart and not out and preset != "smoke":
            raise BadInput(f"{notebook}: figures/ takes nothing {apart}; name another folder in out")
        if not apart and not out:
            made(figures.FOLDER / "records", "name another folder in out")
        self.overrides = batch.changed(preset, notebook, self.settings)
        self.figures = Path(out) / "figures" if out else None if apart else figures.FOLDER
        folder = Path(out) / "records" if out else None if apart else figures.FOLDER / "records"
        self.runner = Runner(
            preset,
            folder,
            device=device,
            report=None if preset == "smoke" else print,
            overrides=self.overrides,
            executor=chosen(),
        )
        self.asked = Asked(Path(out) if out else None if apart else batch.runs() / preset, notebook)

    def __str__(self) -> str:
        """The resolved settings, one a line."""
        lines = []
        for name, value in {"preset": self.preset, "seeds": list(self.seeds), **self.settings}.items():
            nested = value if isinstance(value, dict) else {}
            lines += [f"{name:<16}"] * bool(nested) + [
                f"  {key:<14} {inner}" for key, inner in nested.items()
            ]
            lines += [] if nested else [f"{name:<16} {value}"]
        return "\n".join(lines)

    def run(self, experiments: Sequence[Experiment | Measurement]) -> list[Record]:
        """The records of all, in order."""
        self.asked.note(self.runner.key(experiment) for experiment in experiments)
        return self.runner.run_all(experiments)

    def choose(
        self, trial: Callable[[float], Experiment], lrs: Sequence[float]
    ) -> tuple[list[Record], float]:
        """The records of trials by step size, and the most accurate one's (`ddcore.evaluation.step_size.climbing`)."""
        return self.choose_all([(trial, lrs)])[0]

    def choose_all(
        self, cells: Sequence[tuple[Callable[[float], Experiment], Sequence[float]]]
    ) -> list[tuple[list[Record], float]]:
        """The same for each of several cells, a trial and its step sizes: the trials of different cells run side by side."""
        trials: dict[tuple[int, float], Record] = {}

        def accuracies(asked: list[tuple[int, float]]) -> list[float | Diverged]:
            experiments = [cells[number][0](lr) for number, lr in asked]
            self.asked.note(self.runner.key(experiment) for experiment in experiments)
            found = self.runner.attempt_all(experiments)
            trials.update({at: one for at, one in zip(asked, found, strict=True) if isinstance(one, Record)})
            return [one.result["accuracy"] if isinstance(one, Record) else one for one in found]

        climbs = climb_together(accuracies, [lrs for _, lrs in cells])
        return [
            ([trials[number, lr] for lr in sorted(found)], top) for number, (found, top) in enumerate(climbs)
        ]

    def start(self, record: Record) -> Synthetic:
        """The set of `record` as it was before any distillation."""
        names = [field.name for field in dataclasses.fields(Experiment)]
        experiment = Experiment(
            **{
                name: record.experiment[name]
                for name in names
                if name not in ("method", "distill", "plugins")
            }
        )
        return experiment.start(self.runner.data(experiment.dataset, experiment.holdout))

    def synthetic(self, record: Record) -> Synthetic:
        """The set of `record` that was evaluated: as it was distilled, or, without a method, as it began."""
        return self.runner.synthetic(record) if record.setting("method") else self.start(record)

    def figure(self, key: str, frame: pd.DataFrame, made_from: Iterable[Record]) -> None:
        """Draw figure `key`, show it with what it was computed from, marked where that is no result (`figures.mark`), and save it where
        this study's figures go."""
        made_from = list(made_from)
        drawn = figures.mark(
            figures.draw(key, frame), [self.preset], (record.setting("dataset") or "" for record in made_from)
        )
        with PIL.Image.open(io.BytesIO(figures.to_png(drawn))) as shown:
            display(Image(_few_colours(shown.convert("RGB")), alt=figures.entry(key).alt))
        seconds = sum(record.provenance["seconds"] for record in made_from)
        preset = ", ".join(filter(None, (f"{self.preset} preset", listed(self.overrides))))
        print(f"computed here: {preset}, {len(made_from)} records, {seconds:.0f} s")
        if self.figures:
            figures.save(key, frame, made_from, folder=self.figures)


def tiles(sets: dict[str, Synthetic], *, columns: int) -> pd.DataFrame:
    """The rows of an image figure: the first `columns` images of each class of each set, as hexadecimal uint8 pixels."""
    rows = []
    for name, synthetic in sets.items():
        pixels = (synthetic.pictures() * 255).round().byte().permute(0, 2, 3, 1)
        for label in range(synthetic.classes):
            for index in range(min(columns, synthetic.per_class)):
                tile = pixels[label * synthetic.per_class + index]
                rows.append(
                    {
                        "set": name,
                        "label": label,
                        "index": index,
                        "height": tile.shape[0],
                        "width": tile.shape[1],
                        "channels": tile.shape[2],
                        "pixels": tile.numpy().tobytes().hex(),
                    }
                )
    return pd.DataFrame(rows)


def show(found: pd.DataFrame, across: str = "", digits: int = 1) -> None:
    """Print `summary` as mean ± sd, or `paired` as mean difference ± half width of its 95 % CI; `across`: a column whose values become
    columns."""
    spread, sign, what = (
        ("half", "+", "mean difference ± 95 % CI") if "half" in found else ("sd", "", "mean ± sd")
    )
    cells = [
        f"{mean:{sign}.{digits}f}" + f" ± {width:.{digits}f}" * (not math.isnan(width))
        for mean, width in zip(found["mean"], found[spread], strict=True)
    ]
    by = [*found.columns.drop(["mean", spread, "n"])]
    table = found[by].assign(**{what: cells})
    if across:
        rows = [name for name in by if name != across]
        table = table.pivot_table(
            index=rows, columns=across, values=what, aggfunc="first", sort=False, dropna=False, observed=True
        )
        table = table.dropna(how="all").rename_axis(columns=None).reset_index()
    counts = sorted({*found.n})
    print(f"{what}, n = {' or '.join(map(str, counts))}")
    print(table.to_string(index=False, na_rep="-"))


def made_from(key: str) -> list[Record]:
    """The committed records that the committed figure `key` was drawn from; none where there is no such figure yet."""
    named = (figures.load(key) or {"wasDerivedFrom": []})["wasDerivedFrom"]
    return [read(figures.FOLDER / "records" / f"{name}.json") for name in named]


def _few_colours(drawn: PIL.Image.Image) -> bytes:
    """As PNG with a palette of 64 colours: a notebook holds every image that it shows."""
    buffer = io.BytesIO()
    drawn.quantize(64, dither=PIL.Image.Dither.NONE).save(buffer, "png", optimize=True)
    return buffer.getvalue()


def recorded(key: str) -> None:
    """Show the committed figure `key` with its caption and what it was computed from, or say that there is none yet."""
    sidecar, one = figures.load(key), figures.entry(key)
    if sidecar is None:
        display(
            Markdown(
                f"*No recorded figure `{key}` yet: run notebook `{one.notebook}` at preset `laptop` or `paper`.*"
            )
        )
        return
    with PIL.Image.open(figures.FOLDER / f"{key}.png") as drawn:
        shown = _few_colours(drawn.convert("RGB").reduce(2))
    display(
        Image(shown, alt=one.alt),
        Markdown(f"**Recorded** · {figures.provenance_line(sidecar)}  \n{one.caption}"),
    )
