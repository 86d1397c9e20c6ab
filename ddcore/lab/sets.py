"""The distilled sets of the repository, as things to use: what is there, and one of them by its id."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

from ddcore.errors import BadInput
from ddcore.files import records
from ddcore.settings import one_of, unknown
from ddcore.synthetic import Synthetic, export, load_synthetic

FOLDER = records.SHIPPED / "figures" / "records"
FORMS: dict[str, tuple[str, Callable[[Synthetic, Path], object]]] = {
    "npz": (".npz", export.npz), "torch": (".pt", export.pt), "png": ("", export.pngs)}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Kept:
    """One set: `ipc` is its storage budget; `accuracy` in % is of networks trained on it by `protocol`, on the test set, or on the
    `holdout` of the training set if that is not 0."""

    id: str
    dataset: str
    ipc: int
    images_per_class: int
    method: str
    kind: str
    plugins: tuple[str, ...]
    seed: int
    accuracy: float
    protocol: str
    holdout: float

    @property
    def path(self) -> Path:
        return FOLDER / f"{self.id}.safetensors"


def kept(path: Path) -> Kept:
    """What the record beside a set says of it."""
    record = records.read(path.with_suffix(".json"))
    experiment, result, how = record.experiment, record.result, record.experiment["evaluate"]
    return Kept(
        record.hash,
        experiment["dataset"],
        experiment["budget_ipc"],
        result["images_per_class"],
        experiment["method"]["name"],
        experiment["synthetic"]["kind"],
        tuple(experiment.get("plugins", {})),
        experiment["seed"],
        result["accuracy"],
        f"{how['network']} x {how['width']}, {how.get('labels', 'hard')} labels",
        experiment["holdout"],
    )


def listed(**wanted) -> list[Kept]:
    """The sets whose fields are as `wanted` (None: any), by dataset, budget and method, and not by accuracy, which is of the test set.
    Raises BadInput where no set is, or none has a value that is wanted."""
    found = [kept(path) for path in sorted(FOLDER.glob("*.safetensors"))]
    if not found:
        raise BadInput(
            f"{FOLDER}: no sets are there; they are in the repository and not in an installed package, run this in a clone"
        )
    for name, value in wanted.items():
        if value is not None:
            have = {getattr(one, name) for one in found}
            if value not in have:
                raise unknown(name.replace("_", " "), value, have)
            found = [one for one in found if getattr(one, name) == value]
    return sorted(
        found,
        key=lambda one: (
            one.dataset,
            one.ipc,
            one.holdout,
            one.method,
            one.kind,
            one.plugins,
            one.seed,
            one.id,
        ),
    )


def find(key: str) -> Path:
    """The file of the set with this id, or with the only one that begins so. Raises BadInput for none and for several."""
    paths = {path.stem: path for path in FOLDER.glob("*.safetensors")}
    fitting = [name for name in paths if key and name.startswith(key)]
    if len(fitting) != 1:
        many = (
            f"{len(fitting)} ids begin so; give more of it" if fitting else "`ddcore sets list` shows all ids"
        )
        raise BadInput(f"set '{key}': not the id of a set in the repository ({many})")
    return paths[fitting[0]]


def get(key: str, form: str, out: Path | None = None) -> tuple[Path, Synthetic]:
    """Write the set with this id as one of `FORMS`, to `out` or the id with the form's suffix; returns where that is, and the set.
    Raises BadInput for an unknown id or form, and where something is in the way."""
    one_of("sets get", tuple(FORMS), form=form)
    path = find(key)
    suffix, write = FORMS[form]
    target = out or Path(path.stem + suffix)
    if target.exists() and form != "png":
        raise BadInput(f"{target}: is there already; name another file with --out, or remove it first")
    found = load_synthetic(path)
    write(found, target)
    return target, found
