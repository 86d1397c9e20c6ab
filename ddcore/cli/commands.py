"""The command line: `ddcore --help`. Bad input is one sentence and exit code 2; Ctrl-C saves and is 130, SIGTERM 143; divergence is 3."""

import contextlib
import dataclasses
import errno
import inspect
import json
import math
import os
import shutil
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from ddcore.cli import assignments
from ddcore.cli.terminal import forgiving
from ddcore.errors import BadInput, Diverged, Interrupted
from ddcore.files.stopping import at_once

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Dataset distillation, reproducible: distil, evaluate, run the notebooks, cite the figures.",
)
figures_app = typer.Typer(no_args_is_help=True, help="The figures: list, show, check, cite.")
sets_app = typer.Typer(no_args_is_help=True, help="The distilled sets of the repository: list, get.")
data_app = typer.Typer(no_args_is_help=True, help="The datasets: list, fetch, check.")
app.add_typer(figures_app, name="figures")
app.add_typer(sets_app, name="sets")
app.add_typer(data_app, name="data")
console, errors = (Console(stderr=stderr, markup=False, highlight=False) for stderr in (False, True))

DatasetName = Annotated[
    str,
    typer.Option(help="digits, mnist, fashion_mnist, svhn, cifar10, cifar100, an .npz, or an image folder"),
]
Size = Annotated[
    int | None,
    typer.Option(help="of an image folder: scale images by the shorter side and cut the central square"),
]
TestFraction = Annotated[
    float | None,
    typer.Option(help="of an image folder without a test split: keep so much of each class for testing"),
]
SplitSeed = Annotated[int, typer.Option(help="which images those are")]
Device = Annotated[str, typer.Option(help="auto, cpu or cuda")]
Precision = Annotated[str, typer.Option(help="float32 (exact) or bfloat16 inside the network")]
Strategy = Annotated[
    str | None,
    typer.Option(help="augmentation, e.g. color_crop_flip, or none; default: DSA's, without flip for digits"),
]
Plugins = Annotated[
    list[str] | None,
    typer.Option(
        "--plugin",
        help="mutual_information or weight_adjustment, with settings as in "
        "'mutual_information={weight: 0.1}'; as often as needed",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON on standard output")]


def _show(rows: Iterable[tuple], first: str, *columns: str, **keywords) -> None:
    """Print a table that shortens nothing: names stay on one line, the rest is broken."""
    table = Table(**keywords)
    table.add_column(first, no_wrap=True, overflow="fold")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*map(str, row))
    console.print(table)


def _given(**options) -> dict:
    """Those that were given on the command line."""
    return {name: value for name, value in options.items() if value is not None}


def _say(name: str, notes: Iterable[str]) -> None:
    """On standard error: what is to be known of how the dataset `name` is used."""
    for note in notes:
        errors.print(f"{name}: {note}", soft_wrap=True)


def _bears_flip(dataset: str) -> bool:
    """Whether a mirror image is of the same class: digits are not symmetric."""
    return dataset.partition(" (")[0].removesuffix("-zca") not in ("digits", "mnist", "svhn")


def _strategy(given: str | None, dataset: str) -> str:
    from ddcore import augment

    return given if given is not None else augment.DSA if _bears_flip(dataset) else augment.WITHOUT_FLIP


def _writable(option: str, path: Path) -> None:
    folder = path.absolute().parent
    if not folder.is_dir():
        raise BadInput(f"{option} {path}: the folder {folder} does not exist; make it first")
    if path.is_dir():
        raise BadInput(f"{option} {path}: is a folder; name a file in it")
    if not os.access(folder, os.W_OK):
        raise BadInput(f"{option} {path}: the folder {folder} can't be written to; name another one")


def _picture(option: str, path: Path) -> None:
    from ddcore.settings import one_of

    _writable(option, path)
    one_of("a picture", (".png",), **{f"suffix of {option}": path.suffix})


def _new_folder(option: str, folder: Path) -> None:
    from ddcore.synthetic.export import empty

    empty(folder)
    _writable(option, folder / "images" if folder.is_dir() else folder)


def _weights(teacher: object) -> str | None:
    """The file that settings of a teacher name."""
    return teacher.get("weights") if isinstance(teacher, dict) else None


def _plugins(given: list[str], more: Mapping[str, Mapping]) -> list:
    """Those named, in their order, with the settings of `more` by their names; settings not given have their defaults."""
    from ddcore.plugins import PLUGINS
    from ddcore.settings import build, unknown

    named = []
    for one in given:
        ((name, settings),) = assignments.read([one if "=" in one else f"{one}={{}}"], "--plugin").items()
        if name not in PLUGINS:
            raise unknown("plugin", name, PLUGINS)
        if not isinstance(settings, dict):
            raise BadInput(
                f"--plugin {one}: settings are a mapping of YAML, e.g. --plugin '{name}={{weight: 0.1}}'"
            )
        assignments.once(name, more[name], dict.fromkeys(settings, f"--plugin {one}"))
        named.append((name, settings | more[name]))
    for name, settings in more.items():
        if settings and (times := [one for one, _ in named].count(name)) != 1:
            raise BadInput(
                f"--set {name}.{next(iter(settings))}: --plugin {name} is given {times} times; give it once"
            )
    return [build(PLUGINS[name], settings, f"plugin {name}") for name, settings in named]


def _compiled_if_it_pays(method, data, synthetic, steps: int):
    """`method`, compiled where so many steps pay for it (`ddcore.compute.pays`); said where it is."""
    from ddcore import compute, networks
    from ddcore.methods import class_gradients
    from ddcore.random import stream

    source = getattr(method, "teacher", method)
    if getattr(method, "compiled", True) or not hasattr(source, "network"):
        return method
    network = networks.build(
        source.network,
        data.shape,
        data.classes,
        width=getattr(source, "width", None),
        device=data.device,
        generator=stream(0, "compiled", device=data.device),
    )
    images = steps * (sum(min(_batch_real(method), size) for size in data.sizes) + len(synthetic.labels))
    twice = hasattr(
        method, "weight_gradients"
    )  # gradient matching: torch.compile differentiates a ConvNet's alone
    if (twice and class_gradients.layers(network) is None) or not compute.pays(images, network, data.shape):
        return method
    errors.print(
        f"compiled, since {images:,} images pass the network; --compiled no leaves it out, and gives other bits",
        soft_wrap=True,
    )
    return dataclasses.replace(method, compiled=True)


def _batch_real(method) -> int:
    """Real images a class and step; 0 for a method that has no such number."""
    return getattr(method, "batch_real", None) or 0


def _step_size(given: str, method: str) -> float | None:
    """What --lr-img says; None for auto."""
    if given == "auto":
        if method == "sre2l":
            raise BadInput(
                "--lr-img auto: evaluates as dc, dsa, dm and mtt are, and sre2l is otherwise; give a number, as 0.25"
            )
        return None
    try:
        return float(given)
    except ValueError as error:
        raise BadInput(f"--lr-img {given}: is neither a number, as 0.1, nor auto") from error


def _chosen(
    data, start, method, loop: dict, strategy: str | None, seed: int, folder: Path, every_seconds: float
) -> float:
    """The step size that a holdout is for; each that is tried is said, and kept in `folder`."""
    from ddcore.evaluation.step_size import HELD_OUT, choose

    source = getattr(method, "experts", method)
    protocol = {name: getattr(source, name) for name in ("network", "width") if hasattr(source, name)}
    protocol |= {"strategy": _strategy(strategy, data.name)}
    try:
        found = choose(
            data,
            start,
            method,
            settings=loop,
            protocol=protocol,
            seed=seed,
            folder=folder,
            every_seconds=every_seconds,
            report=lambda lr, accuracy: errors.print(
                f"lr_img={lr:g}: {accuracy:.1f} % of the {HELD_OUT:.0%} of the training images that were held out",
                soft_wrap=True,
            ),
        )
    except Interrupted as error:
        raise Interrupted(
            f"{error}; the step sizes that were tried are in {folder}, and are not tried again", error.number
        ) from error
    errors.print(f"lr_img={found:g} is the best of these", soft_wrap=True)
    return found


def _options(context: typer.Context, names: Iterable[str]) -> dict[str, str]:
    """Those of `names` that the command line gives by an option of their own, and how it is written."""
    return {
        name: f"--{name.replace('_', '-')}"
        for name in names
        if context.get_parameter_source(name).name == "COMMANDLINE"
    }


@app.command()
def distill(
    context: typer.Context,
    out: Annotated[Path, typer.Option(help="where the set goes (.safetensors)")],
    dataset: DatasetName = "digits",
    size: Size = None,
    test_fraction: TestFraction = None,
    split_seed: SplitSeed = 0,
    method: Annotated[str, typer.Option(help="dc, dsa, dm, mtt or sre2l")] = "dm",
    synthetic: Annotated[str, typer.Option(help="pixels, lowrank, adaptive or tucker")] = "pixels",
    ipc: Annotated[
        int | None,
        typer.Option(
            help="memory: that of so many images a class as pixels; default: 1, or what "
            "--images-per-class takes"
        ),
    ] = None,
    images_per_class: Annotated[
        int | None,
        typer.Option(help="images a class, however they are stored; default: as many as --ipc holds"),
    ] = None,
    rank: Annotated[int | None, typer.Option(help="rank of images that are not pixels; default: 2")] = None,
    init: Annotated[
        str | None, typer.Option(help="pixels: real or noise; lowrank and tucker: noise or svd")
    ] = None,
    steps: Annotated[int, typer.Option(help="updates of the set")] = 1000,
    lr_img: Annotated[
        str,
        typer.Option(
            help="step size on what is stored, or auto: the best one for a tenth of the training images, "
            "which are held out; each that is tried costs a distillation and an evaluation"
        ),
    ] = "1.0",
    momentum: Annotated[float, typer.Option(help="of sgd; beta1 of adam")] = 0.5,
    beta2: Annotated[float, typer.Option(help="of adam")] = 0.9,
    optimiser: Annotated[str, typer.Option(help="sgd or adam")] = "sgd",
    schedule: Annotated[str, typer.Option(help="constant or cosine")] = "constant",
    soft: Annotated[
        float | None, typer.Option(help="learn labels too, logits begun at so much for the class")
    ] = None,
    step: Annotated[
        float | None, typer.Option(help="learn the size of a student's steps too, begun here (mtt)")
    ] = None,
    clip: Annotated[
        bool, typer.Option("--clip", help="keep pixels in the range of real ones (sre2l)")
    ] = False,
    batch_real: Annotated[
        int | None, typer.Option(help="real images a class and step, or all it has; default: the method's")
    ] = None,
    network: Annotated[str | None, typer.Option(help="default: the method's, a convnet")] = None,
    width: Annotated[int | None, typer.Option(help="default: the published one, 128 for a convnet")] = None,
    strategy: Strategy = None,
    precision: Annotated[str | None, typer.Option(help="float32 or bfloat16")] = None,
    compiled: Annotated[
        str, typer.Option(help="torch.compile: yes, no, or auto, where the run is long enough to pay for it")
    ] = "auto",
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            help="another setting: of the method (r_var=11, experts.epochs=5, also "
            "method.r_var=11), of what is stored (synthetic.balance=true), or of a plugin "
            "(mutual_information.beta=1); as often as needed",
        ),
    ] = None,
    plugin: Plugins = None,
    seed: int = 0,
    device: Device = "auto",
    checkpoint_every: Annotated[
        float, typer.Option(help="seconds between two checkpoints (beside --out)")
    ] = 60.0,
) -> None:
    """Distil a dataset into a small synthetic one. A stopped run goes on where it was when the command is given again."""
    from ddcore.data import load
    from ddcore.distillation import distill as run
    from ddcore.methods import METHODS
    from ddcore.plugins import PLUGINS
    from ddcore.settings import build, merge, one_of, unknown, within
    from ddcore.synthetic import KINDS, budget, create

    _writable("--out", out)
    size_of_steps = _step_size(lr_img, method)
    if method not in METHODS:
        raise unknown("method", method, METHODS)
    data = load(dataset, device, size=size, test_fraction=test_fraction, split_seed=split_seed)
    usual = {field.name: field.default for field in dataclasses.fields(METHODS[method])}
    given = assignments.grouped(set_ or [], ("method", "synthetic", *PLUGINS), usual)
    assignments.once(
        "method",
        given["method"],
        _options(context, ("network", "width", "precision", "compiled", "strategy", "batch_real")),
    )
    assignments.once(
        "synthetic",
        given["synthetic"],
        {"seed": "--seed"} | _options(context, ("rank", "init", "soft", "step", "clip", "images_per_class")),
    )
    settings = {}
    if usual.get("strategy", "none") != "none":
        settings["strategy"] = _strategy(None, data.name)
    if not _bears_flip(data.name):
        trained = {"experts": {"strategy": _strategy(strategy, data.name)}}
        trained |= {} if _weights(given["method"].get("teacher")) else {"teacher": {"flip": False}}
        settings |= {name: inner for name, inner in trained.items() if name in usual}
    one_of("distill", ("auto", "yes", "no"), compiled=compiled)
    within("distill", 0, math.inf, checkpoint_every=checkpoint_every)
    settings |= _given(
        network=network,
        width=width,
        precision=precision,
        compiled=True if compiled == "yes" else None,
        strategy=strategy,
        batch_real=batch_real,
    )
    how = build(METHODS[method], merge(settings, given["method"]), f"method {method}")
    plugins = _plugins(plugin or [], {name: given[name] for name in PLUGINS})
    extra = (
        {"rank": 2} if synthetic in KINDS and "rank" in inspect.signature(KINDS[synthetic]).parameters else {}
    )
    extra |= (
        _given(
            rank=rank, init=init, soft=soft, step=step, clip=clip or None, images_per_class=images_per_class
        )
        | given["synthetic"]
    )
    if ipc is None:
        sizes = {name: value for name, value in extra.items() if name in ("rank", "soft")}
        ipc = (
            budget(data, synthetic, extra["images_per_class"], **sizes) if "images_per_class" in extra else 1
        )
    made = create(data, synthetic, ipc, seed=seed, **extra)
    _say(data.name, data.notes)
    if few := sum(count < _batch_real(how) for count in data.sizes):
        _say(
            data.name,
            [
                f"{few} of {data.classes} classes have fewer than batch_real={how.batch_real} training images (the smallest "
                f"{min(data.sizes)}); each step draws all of theirs"
            ],
        )
    if compiled == "auto":
        how = _compiled_if_it_pays(how, data, made, steps)
    loop = {
        "plugins": plugins,
        "steps": steps,
        "momentum": momentum,
        "optimiser": optimiser,
        "beta2": beta2,
        "schedule": schedule,
    }
    trials = out.with_name(f".{out.name}.trials")
    if size_of_steps is None:
        size_of_steps = _chosen(
            data,
            lambda part: create(part, synthetic, ipc, seed=seed, **extra),
            how,
            loop,
            strategy,
            seed,
            trials,
            checkpoint_every,
        )
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("loss {task.fields[loss]:.4g}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as progress:
        what = " + ".join((method, *(type(one).__name__ for one in plugins)))
        task = progress.add_task(f"{what} on {data.name}", total=steps, loss=float("nan"))
        trace = run(
            data,
            made,
            how,
            **loop,
            lr_img=size_of_steps,
            seed=seed,
            every_seconds=checkpoint_every,
            checkpoint=out.with_name(f".{out.name}.checkpoint"),
            progress=lambda step, loss: progress.update(task, completed=step, loss=loss),
        )
    made.save(out)
    shutil.rmtree(trials, ignore_errors=True)
    resumed = f" (went on from step {trace.resumed})" if trace.resumed else ""
    errors.print(
        f"{out}: {made.per_class} images a class in {made.stored_numbers:,} of {made.budget:,} numbers, "
        f"loss {trace.losses[0]:.4g} -> {trace.losses[-1]:.4g} in {trace.seconds:.1f} s{resumed}",
        soft_wrap=True,
    )


def _served(controls: tuple[str, ...], synthetic, data) -> tuple[str, ...]:
    """Those that every class has images enough for; of the others it is said that they are left out."""
    from ddcore.evaluation.coresets import images_needed

    needed = {
        name: images_needed(name, data, synthetic.settings["budget_ipc"], synthetic.settings.get("rank", 2))
        for name in controls
    }
    for name in (name for name, many in needed.items() if many > min(data.sizes)):
        short = data.class_names[data.sizes.index(min(data.sizes))]
        errors.print(
            f"control {name} left out: it takes {needed[name]} training images a class, and class {short} has {min(data.sizes)}",
            soft_wrap=True,
        )
    return tuple(name for name in controls if needed[name] <= min(data.sizes))


@app.command()
def evaluate(
    synthetic: Annotated[Path, typer.Argument(help="a set saved by ddcore (.safetensors)")],
    dataset: DatasetName = "digits",
    size: Size = None,
    test_fraction: TestFraction = None,
    split_seed: SplitSeed = 0,
    seeds: Annotated[int, typer.Option(help="networks trained, one a seed")] = 5,
    controls: Annotated[
        str, typer.Option(help="baselines of the same memory: random,herding,k_center,svd,whole")
    ] = "",
    protocol: Annotated[
        str, typer.Option(help="synset, of DC, DSA, DM and MTT, or relabel, of SRe2L: the teacher's labels")
    ] = "synset",
    network: Annotated[
        str | None, typer.Option(help="default: the protocol's, a convnet or a resnet18-bn")
    ] = None,
    width: int | None = None,
    epochs: Annotated[int | None, typer.Option(help="default: the protocol's, 1000 or 400")] = None,
    lr: Annotated[float | None, typer.Option(help="default: the protocol's, 0.01 or 0.001")] = None,
    strategy: Strategy = None,
    precision: Precision = "float32",
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="another setting of the protocol, e.g. teacher_mode=eval"),
    ] = None,
    device: Device = "auto",
    png: Annotated[Path | None, typer.Option(help="also write the images as a grid to look at")] = None,
    ddranking: Annotated[
        Path | None, typer.Option(help="also write the set to this folder as ddranking reads it")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train networks from scratch on a set and test them on real images, by the published protocol. The teacher of relabel is the one
    that the set was recovered from, if it says so."""
    from ddcore.data import load
    from ddcore.evaluation import PROTOCOLS
    from ddcore.evaluation import evaluate as run
    from ddcore.settings import build, one_of
    from ddcore.synthetic import export as exports
    from ddcore.synthetic import load_synthetic

    if png:
        _picture("--png", png)
    data = load(dataset, device, size=size, test_fraction=test_fraction, split_seed=split_seed)
    found = load_synthetic(synthetic, data.device)
    if ddranking:
        _new_folder("--ddranking", ddranking)
        exports.takes_coloured(found)
    _say(data.name, data.notes)
    names = _served(tuple(name for name in controls.split(",") if name), found, data)
    settings = _given(
        network=network, width=width, epochs=epochs, lr=lr, strategy=strategy, precision=precision
    )
    given = assignments.read(set_ or [])
    if protocol == "synset":
        settings["strategy"] = _strategy(strategy, data.name)
    elif protocol == "relabel":
        settings["flip"] = _bears_flip(data.name)
        recovered = found.settings.get("distilled", {})
        settings |= {name: recovered[name] for name in ("teacher", "seed_teacher") if name in recovered}
        teacher = given.get("teacher")
        if _weights(teacher) and set(teacher) == {"weights"} and _weights(settings.get("teacher")):
            given["teacher"] = (
                settings["teacher"] | teacher
            )  # the set says which file, the option where it is
    one_of("evaluate", PROTOCOLS, protocol=protocol)
    used = build(PROTOCOLS[protocol], settings | given, "evaluate").lr
    if protocol == "synset" and found.step_size is not None and "lr" in settings | given:
        errors.print(
            f"lr={used:g} is not used: networks take steps of {float(found.step_size.detach()):.4g}, which the set has learned",
            soft_wrap=True,
        )
    scores = run(found, data, seeds=range(seeds), controls=names, protocol=protocol, **settings | given)
    if png:
        _say(str(png), filter(None, [exports.grid(found, png)]))
    if ddranking:
        _say(str(ddranking), exports.ddranking(found, ddranking, lr=used))
    if as_json:
        print(json.dumps(scores.to_dict()))
        return
    _show(
        (
            (name, one, one.per_class, f"{one.stored_numbers:,}")
            for name, one in {synthetic.name: scores, **scores.controls}.items()
        ),
        "set",
        "test accuracy (%)",
        "images a class",
        "stored numbers",
    )


@app.command()
def export(
    synthetic: Annotated[Path, typer.Argument(help="a set saved by ddcore (.safetensors)")],
    npz: Annotated[
        Path | None,
        typer.Option(
            help="a file of arrays: the numbers that were learned, normalised; labels; class names, mean "
            "and standard deviation"
        ),
    ] = None,
    pt: Annotated[
        Path | None, typer.Option(help="the same as a dictionary of torch, for weights_only=True")
    ] = None,
    png: Annotated[
        Path | None,
        typer.Option(
            help="a new folder: images of 8 bits in a folder a class, pixels beyond black and white clipped"
        ),
    ] = None,
    grid: Annotated[
        Path | None,
        typer.Option(help="one picture to look at, a row a class, scaled where most pixels would clip"),
    ] = None,
    ddranking: Annotated[Path | None, typer.Option(help="a new folder as ddranking 0.2.0 reads it")] = None,
    lr: Annotated[
        float, typer.Option(help="step size that goes to ddranking with a set that has learned none")
    ] = 0.01,
) -> None:
    """Write a set for others to read, without training anything."""
    from ddcore.settings import positive
    from ddcore.synthetic import export as exports
    from ddcore.synthetic import load_synthetic

    if not any((npz, pt, png, grid, ddranking)):
        raise BadInput(
            f"export {synthetic}: says nowhere to write to; name at least one of --npz, --pt, --png, --grid, --ddranking"
        )
    positive("export", lr=lr)
    for option, file in (("--npz", npz), ("--pt", pt)):
        if file:
            _writable(option, file)
    if grid:
        _picture("--grid", grid)
    for option, folder in (("--png", png), ("--ddranking", ddranking)):
        if folder:
            _new_folder(option, folder)
    found = load_synthetic(synthetic)
    if ddranking:
        exports.takes_coloured(found)
        _say(str(ddranking), exports.ddranking(found, ddranking, lr=lr))
    if npz:
        exports.npz(found, npz)
    if pt:
        exports.pt(found, pt)
    if png:
        share = exports.pngs(found, png)
        _say(
            str(png),
            [
                f"{share:.1%} of the pixels lie outside the range of real ones and are clipped"
                + ("; --npz and --pt keep the numbers" if share else "")
            ],
        )
    if grid:
        _say(str(grid), filter(None, [exports.grid(found, grid)]))
    for written in filter(None, (npz, pt, png, grid, ddranking)):
        errors.print(
            f"{written}: {found.per_class} images a class of {found.settings['dataset']}", soft_wrap=True
        )


@app.command("import")
def import_(
    file: Annotated[
        Path,
        typer.Argument(help="res_*.pt of DC, DSA or DM, or images_*.pt of MTT with labels_*.pt beside it"),
    ],
    out: Annotated[Path, typer.Option(help="where the set goes (.safetensors)")],
    dataset: DatasetName,
    size: Size = None,
    run: Annotated[int, typer.Option(help="which of the results that a file of DC, DSA or DM holds")] = 0,
) -> None:
    """Turn a set that published code saved into one of ddcore. Nothing pickled is run."""
    from ddcore.data import load
    from ddcore.synthetic.published_sets import import_published

    _writable("--out", out)
    found = import_published(file, load(dataset, "cpu", size=size), run=run)
    found.save(out)
    errors.print(f"{out}: {found.per_class} images a class of {dataset}", soft_wrap=True)


@app.command()
def reproduce(
    preset: Annotated[
        str, typer.Option(help="smoke (minutes, embedded data), laptop (real data, CPU), desk, paper (GPU)")
    ] = "smoke",
    only: Annotated[
        str, typer.Option(help="notebooks by the beginning of their names, e.g. 11 or 1,30")
    ] = "",
    jobs: Annotated[
        int | None,
        typer.Option(help="notebooks at once; unset: one a core, at most 4, at smoke, else 1", min=1),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", help="a parameter of the notebooks, or of their preset: name=value, as often as needed"
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            help="a folder for all that they write; default: runs/<preset>, and figures/ for what is "
            "larger than smoke, as its preset says"
        ),
    ] = None,
    workers: Annotated[
        int | None,
        typer.Option(
            help="so many processes of this machine compute for all notebooks, each record once", min=1
        ),
    ] = None,
    scheduler: Annotated[
        str, typer.Option(help="address of a Dask scheduler whose workers compute", envvar="DDCORE_SCHEDULER")
    ] = "",
    cluster: Annotated[
        Path | None, typer.Option(help="a YAML file that describes a cluster: notebooks/CLUSTER.md")
    ] = None,
) -> None:
    """Run the notebooks through papermill and say what came of each."""
    from ddcore import figures
    from ddcore.lab import batch, report, status

    pool, outcomes = _pool(workers, scheduler, cluster), []
    running = batch.reproduce(
        preset, only=only, jobs=jobs, given=assignments.read(set_ or []), out=out or "", pool=pool
    )
    with contextlib.closing(running):
        for outcome in running:
            what = f": {outcome.error}" if outcome.status == "stopped" else ""
            errors.print(
                f"{outcome.notebook}: {outcome.status} after {outcome.seconds:.0f} s{what}", soft_wrap=True
            )
            outcomes.append(outcome)
    _show(
        ((one.notebook, one.status, f"{one.seconds:.0f}", ", ".join(one.figures) or "-") for one in outcomes),
        "notebook",
        "status",
        "seconds",
        "figures",
        title=f"preset {preset}",
    )
    failed = [outcome for outcome in outcomes if outcome.status == "failed"]
    for outcome in failed:
        errors.print(
            f"{outcome.notebook} failed: {outcome.error}; what it had computed is in {outcome.output}",
            soft_wrap=True,
        )
    folder = outcomes[0].output.parent
    page = report.write(
        folder / "report.html",
        preset,
        outcomes,
        status.survey(preset, out),
        [folder / "figures", figures.FOLDER],
    )
    errors.print(f"report: {page}", soft_wrap=True)
    raise typer.Exit(1 if failed else 0)


def _pool(
    workers: int | None, scheduler: str, cluster: Path | None
) -> contextlib.AbstractContextManager | None:
    """Who computes for a batch; None: the notebooks themselves."""
    if (
        many := [
            name
            for name, value in (("--workers", workers), ("--scheduler", scheduler), ("--cluster", cluster))
            if value
        ]
    )[1:]:
        raise BadInput(f"{' and '.join(many)} are given, and each says who computes; give one of them")
    if not many:
        return None
    from ddcore.lab import cluster as clusters

    return clusters.pool(
        workers=workers,
        scheduler=scheduler,
        file=cluster,
        say=lambda line: errors.print(line, soft_wrap=True),
    )


@app.command()
def run(
    what: Annotated[
        str,
        typer.Argument(
            help='the hash of a record, or a file of JSON: {"kind": "experiment", ...its settings}'
        ),
    ],
    records: Annotated[
        Path | None, typer.Option(help="the folder of that record; default: figures/records")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="the folder of the new one; default: runs/<preset>/records")
    ] = None,
    preset: Annotated[
        str | None, typer.Option(help="that the new record names; default: that of the record, or smoke")
    ] = None,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Compute one experiment, for those who submit them by other means; where its record was named, say whether the result is the same."""
    from ddcore import figures
    from ddcore.lab import batch, single
    from ddcore.settings import one_of

    if preset is not None:
        one_of("run", batch.PRESETS, preset=preset)
    experiment, before = single.find(what, records or figures.FOLDER / "records")
    name = preset or (before.preset if before else "smoke")
    found = single.run(experiment, name, out or batch.runs() / name / "records", device)
    if as_json:
        print(json.dumps(dataclasses.asdict(found)))
        return
    accuracy = f", {found.result['accuracy']:.2f} %" if "accuracy" in found.result else ""
    same = "" if before is None else f"; {single.compared(before, found)}"
    print(f"{found.hash}{accuracy}, {found.provenance['seconds']:.0f} s{same}")


@app.command()
def status(
    preset: Annotated[str, typer.Option(help="smoke, laptop, desk or paper")] = "laptop",
    out: Annotated[Path | None, typer.Option(help="of a batch that was given this folder")] = None,
    scheduler: Annotated[
        str, typer.Option(help="of a batch that runs: what its workers do now", envvar="DDCORE_SCHEDULER")
    ] = "",
    as_json: Json = False,
) -> None:
    """By notebook: figures, records that are there, those known to be missing, core hours spent and estimated for what is missing."""
    from ddcore.lab import status as states

    lines, now = states.survey(preset, out), {}
    if scheduler:
        from ddcore.lab.scheduled import connect

        with contextlib.closing(connect(scheduler)) as client:
            now = states.running(client)
        now["hours left"] = states.hours_left(lines, now["workers"])
    if as_json:
        print(
            json.dumps(
                {"preset": preset, "notebooks": [dataclasses.asdict(line) for line in lines], "now": now}
            )
        )
        return
    _show(
        (
            (
                line.notebook,
                f"{line.drawn} of {line.figures}",
                line.recorded,
                line.missing,
                f"{line.core_hours:.1f}",
                "-" if line.hours_missing is None else f"{line.hours_missing:.1f}",
            )
            for line in lines
        ),
        "notebook",
        "figures",
        "recorded",
        "missing",
        "core hours",
        "hours missing",
        title=f"preset {preset}",
    )
    if now:
        left = now.pop("hours left")
        counts = ", ".join(f"{count} {name}" for name, count in now.items())
        console.print(f"{counts}, hours left: {'unknown' if left is None else f'{left:.1f}'}", soft_wrap=True)


@app.command()
def refresh(only: str = "") -> None:
    """Execute the committed notebooks in place at their defaults, so that what they show is what the code does; then `figures numbers`."""
    from ddcore.lab import batch

    failed = False
    with contextlib.closing(batch.refresh(only)) as running:
        for outcome in running:
            failed |= outcome.status == "failed"
            console.print(
                f"{outcome.notebook}: {outcome.status} after {outcome.seconds:.0f} s {outcome.error}"
            )
    renew_numbers()
    raise typer.Exit(1 if failed else 0)


def _whole_numbers(option: str, given: str) -> list[int]:
    parts = given.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise BadInput(f"{option} {given}: needs whole numbers, separated by commas, e.g. {option} 1,10")
    return [int(part) for part in parts]


@app.command()
def bench(
    dataset: DatasetName = "fashion_mnist",
    width: int = 128,
    batch_real: Annotated[str, typer.Option(help="real images a class, one number or several")] = "64,256",
    ipc: Annotated[str, typer.Option(help="images per class, likewise")] = "1,10,50",
    classes: Annotated[
        str, typer.Option(help="numbers of classes; images are generated where the dataset has another")
    ] = "10,100",
    rounds: int = 5,
    compiled: Annotated[
        bool, typer.Option("--compiled/--eager", help="with or without what torch.compile makes of the steps")
    ] = True,
    device: Device = "auto",
    as_json: Json = False,
) -> None:
    """Time each step against the published structure, in one run on this machine."""
    from ddcore.bench import speed as benchmarks
    from ddcore.data import load

    sizes = {
        "batches": _whole_numbers("--batch-real", batch_real),
        "ipcs": _whole_numbers("--ipc", ipc),
        "classes": _whole_numbers("--classes", classes),
    }
    rows = benchmarks.speed(
        load(dataset, device), seed=0, width=width, rounds=rounds, compiled=compiled, **sizes
    )
    if as_json:
        print(json.dumps(rows, indent=1))
        return
    heads = {
        "name": "step",
        "provider": "provider",
        "ratio": "ratio",
        "ratio_p20": "p20",
        "ratio_p80": "p80",
        "memory_ratio": "memory",
        "operations": "ops",
        "fraction_of_ceiling": "ceiling",
        "max_rel_error": "error",
        "seconds": "s",
    }
    _show((["-" if row[name] is None else row[name] for name in heads] for row in rows), *heads.values())


@app.command()
def doctor(as_json: Json = False) -> None:
    """Say what this machine can do."""
    from ddcore.cli.doctor import examine

    found = examine()
    if as_json:
        print(json.dumps(found, indent=1))
        return
    _show(found.items(), "what", "found", show_header=False)


@app.command()
def cite(
    used: Annotated[
        list[str],
        typer.Argument(
            help="methods, parametrizations, plugins, datasets, keys of figures.bib, or saved sets "
            "(.safetensors), which say themselves what made them"
        ),
    ],
) -> None:
    """BibTeX for exactly what was used, and for this companion."""
    from ddcore.figures import commits, references

    print(references.bibtex(used, **commits.here()), end="")


@sets_app.command("list")
def list_sets(
    dataset: Annotated[str | None, typer.Option(help="only those of it, e.g. cifar10")] = None,
    ipc: Annotated[
        int | None, typer.Option(help="only those of this storage budget, in images per class")
    ] = None,
    method: Annotated[str | None, typer.Option(help="only those of it: dc, dsa, dm, mtt or sre2l")] = None,
    kind: Annotated[
        str | None, typer.Option(help="only those of it: pixels, lowrank, adaptive or tucker")
    ] = None,
    as_json: Json = False,
) -> None:
    """Every distilled set, by dataset, budget and method."""
    from ddcore.lab import sets

    found = sets.listed(dataset=dataset, ipc=ipc, method=method, kind=kind)
    if as_json:
        print(json.dumps([dataclasses.asdict(one) for one in found], indent=1))
        return
    _show(
        (
            (
                one.id,
                one.dataset,
                one.ipc,
                one.images_per_class,
                " + ".join((one.method, *one.plugins)),
                one.kind,
                f"{one.accuracy:.1f}" + (f" (of {one.holdout:.0%} held out)" if one.holdout else ""),
                one.protocol,
                one.seed,
            )
            for one in found
        ),
        "id",
        "dataset",
        "IPC",
        "images a class",
        "method",
        "stored as",
        "accuracy (%)",
        "networks",
        "seed",
    )


@sets_app.command("get")
def get_set(
    key: Annotated[str, typer.Argument(metavar="ID", help="an id of `ddcore sets list`, or its beginning")],
    form: Annotated[
        str,
        typer.Option(
            "--as",
            help="npz or torch: the learned numbers, labels, class names, mean and standard deviation; "
            "png: images of 8 bits in a folder a class",
        ),
    ] = "npz",
    out: Annotated[Path | None, typer.Option(help="where it goes; default: the id, here")] = None,
) -> None:
    """Write one set for others to read."""
    from ddcore.lab import sets

    if out:
        (_new_folder if form == "png" else _writable)("--out", out)
    path, found = sets.get(key, form, out)
    print(f"{path}: {found.per_class} images a class of {found.settings['dataset']}")


@figures_app.command("list")
def list_figures() -> None:
    """Every figure of the registry, and whether it is recorded."""
    from ddcore import figures

    rows = []
    for key, one in figures.entries().items():
        sidecar = figures.load(key)
        rows.append((key, " + ".join(sidecar["preset"]) if sidecar else "-", one.notebook, one.title))
    _show(rows, "id", "recorded", "notebook", "title")


@figures_app.command("index")
def index_figures() -> None:
    """The table of figures/README.md: figure, notebook, what is recorded, in Markdown."""
    from ddcore import figures

    print(figures.index(*figures.LINKED))


@figures_app.command("show")
def show_figure(figure: str) -> None:
    """Caption, files and provenance of one figure."""
    from ddcore import figures

    one, sidecar = figures.entry(figure), figures.load(figure)
    print(f"{one.id}: {one.title}\n\n{one.caption}\n\nmade by notebook {one.notebook} ({one.status})")
    if not sidecar:
        print("not recorded yet")
        return
    print("\n".join(f"{figures.FOLDER / one.id}.{form}: {holds}" for form, holds in figures.FILES.items()))
    print(
        "\n".join((figures.provenance_line(sidecar), *figures.remarks(figure), json.dumps(sidecar, indent=1)))
    )


@figures_app.command("numbers")
def renew_numbers() -> None:
    """Where a record has changed, draw its figures anew from it; then renew numbers.tex, numbers.csv and figures.tex."""
    from ddcore.figures import agreement, numbers

    for name in (*(f"{key}.csv" for key in agreement.follow()), *numbers.write()):
        print(f"figures/{name} is renewed")


@figures_app.command("page")
def figures_page() -> None:
    """figures/index.html: every figure on one page to look at, search and copy from; and the notebooks that it links, as HTML."""
    from ddcore.figures import gallery

    for path, size in gallery.write().items():
        print(f"{path}: {size / 2**20:.1f} MiB")


@figures_app.command("export")
def export_figures(
    folder: Annotated[Path, typer.Argument(help="a new folder")],
) -> None:
    """Figures, page, notebooks, records and the version of the code as an RO-Crate, to be deposited."""
    from ddcore.figures import crate

    _new_folder("figures export", folder)
    print(
        f"{crate.write(folder)}: {sum(path.is_file() for path in folder.rglob('*'))} files, described in {crate.METADATA}"
    )


@figures_app.command("check")
def check_figures() -> None:
    """Every recorded figure is whole, carries its provenance, names commits that are there, has its records' numbers, and is drawn again
    from its data with the same bytes; the numbers and macros to cite are those of the figures."""
    from ddcore import figures
    from ddcore.figures import agreement, numbers

    wrong, unchecked = figures.check(), figures.unchecked()
    wrong = wrong or [*map(str, agreement.departed()), *numbers.stale()]
    for line in wrong:
        errors.print(line, soft_wrap=True)
    if not wrong:
        print(
            f"{sum(figures.load(key) is not None for key in figures.entries())} recorded figures, nothing wrong"
        )
    if unchecked:
        print(f"the commits of their records could not be checked: {unchecked}")
    raise typer.Exit(1 if wrong else 0)


@figures_app.command("redraw")
def redraw_figures(
    figure: Annotated[
        list[str] | None, typer.Argument(help="one id or several; none: every recorded one")
    ] = None,
) -> None:
    """Draw recorded figures anew from their data and records, after a drawing was changed."""
    from ddcore import figures

    for key in figure or [key for key in figures.entries() if figures.load(key)]:
        figures.redraw(key)


@figures_app.command("cite")
def cite_figure(
    figure: Annotated[list[str], typer.Argument(help="one id or several")],
    form: Annotated[str, typer.Option("--format", help="latex, markdown, bibtex or all")] = "all",
) -> None:
    """The LaTeX blocks, the Markdown blocks and the BibTeX entries of figures, no entry twice."""
    from ddcore import figures
    from ddcore.figures import commits
    from ddcore.settings import one_of

    one_of("figures cite", ("all", "latex", "markdown", "bibtex"), format=form)
    found = figures.cite(*figure, **commits.here())
    print("\n".join(text for name, text in found.items() if form in ("all", name)), end="")


@data_app.command("list")
def list_data() -> None:
    """The named datasets, and where they are."""
    from ddcore.cli.doctor import present
    from ddcore.data import TORCHVISION

    _show(((name, present(name)) for name in ("digits", *TORCHVISION)), "dataset", "where")


@data_app.command("fetch")
def fetch_data(names: list[str]) -> None:
    """Download datasets through torchvision into $DDCORE_DATA (default ~/.cache/ddcore)."""
    check_data(names)


@data_app.command("check")
def check_data(
    names: list[str], size: Size = None, test_fraction: TestFraction = None, split_seed: SplitSeed = 0
) -> None:
    """Read datasets (names, .npz files, folders), compare their content with the known sha256 where there is one, and say what was found
    and what was left out."""
    from ddcore.data import KNOWN_SHA256, load, numbered

    for name in names:
        data = load(name, "cpu", size=size, test_fraction=test_fraction, split_seed=split_seed)
        known = KNOWN_SHA256.get(data.name)
        if known and known != data.sha256:
            raise BadInput(
                f"{name}: content sha256 {data.sha256} differs from the known {known}; fetch it again"
            )
        print(
            f"{name}: {len(data.x_train):,} + {len(data.x_test):,} images of {data.shape}, {data.classes} classes, "
            f"sha256 {data.sha256[:16]}… {'as known' if known else 'computed'}"
        )
        if data.class_names != numbered(data.classes):
            print(f"  classes: {', '.join(data.class_names)}")
        if min(data.sizes) < max(data.sizes):
            print(f"  training images a class: {min(data.sizes):,} to {max(data.sizes):,}")
        print(f"  mean {', '.join(map(str, data.mean))}; standard deviation {', '.join(map(str, data.std))}")
        for note in data.notes:
            print(f"  {note}")


def main() -> None:
    """The console script."""
    forgiving()
    from ddcore.compute import keep_memory

    keep_memory()
    try:
        with at_once():
            app()
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT):
            raise
        errors.print(
            f"ddcore: {error.filename or 'a file'}: {error.strerror}; name another place, or make room",
            soft_wrap=True,
        )
        sys.exit(2)
    except (BadInput, Diverged, Interrupted) as error:
        errors.print(f"ddcore: {error}", soft_wrap=True)
        sys.exit(
            128 + error.number if isinstance(error, Interrupted) else {BadInput: 2, Diverged: 3}[type(error)]
        )
