import ast
import contextlib
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import matplotlib
import matplotlib.style
import numpy as np
import pandas as pd
import pytest
import seaborn
import yaml
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.figure import Figure
from PIL import Image
from typer.main import get_command

from ddcore import figures
from ddcore.cli import app
from ddcore.figures import commits, registry, style
from ddcore.figures.drawings import DRAWINGS
from ddcore.figures.drawings.dwa import DIRECTIONS, MEASURES, WAYS
from ddcore.figures.drawings.mim import BOUNDS
from ddcore.figures.drawings.theory import ARMS
from ddcore.files import records
from ddcore.files.records import Record
from ddcore.lab import batch
from ddcore.settings import canonical, digest

KEYS = list(registry.entries())
FILES = ("csv", "json", "pdf", "png", "svg")
TILES = ("lodc-images", "lodc-host-images", "dwa-images")


def record_of(seed, preset="laptop", **changed) -> Record:
    experiment = {"dataset": "digits", "data_sha256": "a" * 64, "seed": seed}
    hardware = {"cpu": "a CPU_& 100 %", "cores": 2, "threads": 1, "gpu": None}
    provenance = {"hardware": hardware, "versions": {"torch": "2.11.0"}, "seconds": 2.0, "peak_bytes": 1, "commit": "c" * 40,
                  "dirty": False, "code_sha256": "d" * 64}  # fmt: skip
    return Record(digest(experiment), preset, experiment, {"accuracy": 50.0 + seed}, provenance | changed)


def frame_of(key: str) -> pd.DataFrame:
    """The columns that the drawing of `key` reads, for two small cells and three seeds."""
    seeds = range(3)
    if key in TILES:
        pixels = bytes(range(16)).hex()
        return pd.DataFrame([{"set": name, "label": label, "index": index, "height": 4, "width": 4, "channels": 1, "pixels": pixels}
                             for name in ("real", "DM") for label in range(2) for index in range(2)])  # fmt: skip
    if key == "lodc-spectra":
        return pd.DataFrame([{"class": name, "rank": rank, "energy": 0.5 + 0.1 * rank, "energy_pixels": 0.6 + 0.1 * rank,
                              "psnr": 20.0 if rank < 2 else None, "dataset": "digits", "seed": 0}
                             for name in (0, 1, "all") for rank in (1, 2)])  # fmt: skip
    if key == "lodc-gradient-geometry":
        return pd.DataFrame(
            [
                {
                    "rank": rank,
                    "position": place / 10 + 0.05,
                    "gain": 1e-7 + max(0, rank * (6 - place)),
                    "mean_gain": 2.0 * rank,
                    "dataset": "digits",
                    "seed": 0,
                }
                for rank in (1, 2)
                for place in range(10)
            ]
        )
    cell = {"dataset": "digits", "seed": 0}
    if key == "theory-subspace":
        return pd.DataFrame(
            [
                cell
                | {"rows": name, "quantity": quantity, "index": index, "value": 0.5 / index, "seed": seed}
                for name in ("random points", "distilled points")
                for seed in seeds
                for quantity, many in (("singular value", 3), ("angle", 2), ("energy", 1))
                for index in range(1, many + 1)
            ]
        )
    if key == "theory-collapse":
        return pd.DataFrame(
            [
                cell
                | {
                    "decay": decay,
                    "steps": steps,
                    "condition": 2.0 * steps,
                    "error": 0.1 * steps,
                    "teacher": 0.05,
                    "seed": seed,
                }
                for decay in (1.0, 0.6)
                for steps in (1, 3)
                for seed in seeds
            ]
        )
    if registry.entry(key).notebook.startswith("31"):
        return pd.DataFrame(
            [
                cell
                | {
                    "d": d,
                    "r": r,
                    "L": L,
                    "N": 20 * d * d,
                    "link": "He3",
                    "activation": "relu",
                    "arm": arm,
                    "M1": points,
                    "M2": L,
                    "stored": 10 * d * points,
                    "error": 0.5 / points + 0.01 * seed,
                    "seed": seed,
                }
                for d in (8, 16)
                for r in (1, 2)
                for L in (16, 32)
                for arm in ARMS
                for points in (1, 2, 4)
                for seed in seeds
            ]
        )
    if key == "mim-bounds":
        return pd.DataFrame(
            [
                cell
                | {
                    "by": by,
                    "classes": 10,
                    "separation": separation,
                    "N": N,
                    "quantity": name,
                    "exact": 0.1 * separation,
                    "sampled": 0.1 * separation + 0.01 * seed,
                    "seed": seed,
                }
                for by in ("separation", "N")
                for separation in (1.0, 2.0)
                for N in (4, 64)
                for name in ("information", *BOUNDS)
                for seed in seeds
            ]
        )
    if key == "mim-magnitude":
        return pd.DataFrame(
            [
                cell
                | {"kind": kind, "bias": bias, "N": N, "part": part, "value": 0.5 * N + seed, "seed": seed}
                for kind in ("exact", "sampled")
                for bias in ("printed", "normalised")
                for N in (4, 64)
                for part in ("positive", "negatives", "pull", "push")
                for seed in seeds
            ]
        )
    if key == "kernels-speed":
        return pd.DataFrame(
            [
                cell
                | {
                    "name": name,
                    "provider": provider,
                    "rank": rank,
                    "ratio": ratio,
                    "ratio_p20": 0.9 * ratio,
                    "ratio_p80": 1.2 * ratio,
                    "memory_ratio": 1 / ratio,
                    "step": step,
                    "ipc": 10,
                    "batch_real": 64,
                    "classes": 10,
                }
                for name, step in (("dm step", "dm"), ("recover", None))
                for rank, (provider, ratio) in enumerate(
                    (("loop", 1.0), ("ours", 2.0), ("ours, compiled", 3.0))
                )
            ]
        )
    if key == "kernels-profile":
        return pd.DataFrame(
            [
                cell | {"name": name, "provider": provider, "kind": kind, "seconds": 0.5}
                for name in ("dm", "dc")
                for provider in ("loop", "ours")
                for kind in ("convolution", "norm", "other")
            ]
        )
    if key == "kernels-adjoint":
        return pd.DataFrame(
            [
                cell | {"gradient": name, "steps": steps, "saved_bytes": steps << 20, "error": error}
                for name, error in (("unrolled", 0.0), ("adjoint", 1e-15), ("tesla", 0.5))
                for steps in (1, 20)
            ]
        )
    if key == "time-to-accuracy":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": name,
                    "seed": seed,
                    "step": step,
                    "seconds": 0.1 * step + seed,
                    "accuracy": 50.0 + step,
                    "published": published,
                }
                for name, published in (("DC", 70.5), ("DM", None))
                for seed in seeds
                for step in (1, 10)
            ]
        )
    if key == "compare-relabel":
        return pd.DataFrame(
            [
                cell
                | {"ipc": 1, "images": images, "labels": labels, "seed": seed, "accuracy": 50.0 + seed / 3}
                for images in ("recovered", "random real")
                for labels in ("hard", "soft")
                for seed in seeds
            ]
        )
    if key == "lodc-hosts":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": method,
                    "host": host,
                    "kind": kind,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                }
                for method, host, kind in (
                    ("random", "none", "pixels"),
                    ("DC", "DC", "pixels"),
                    ("LoDC", "DC", "lowrank"),
                )
                for seed in seeds
            ]
        )
    if key in ("lodc-svd-control", "lodc-start"):
        arms = {
            "lodc-svd-control": ("SVD", "pixels", "factors"),
            "lodc-start": ("pixels", "SVD, not learned", "from noise", "from SVD"),
        }
        return pd.DataFrame(
            [
                cell
                | {"ipc": 1, "method": "DC", "arm": arm, "seed": seed, "accuracy": 50.0 + seed**2 / 3 + ahead}
                for ahead, arm in enumerate(arms[key])
                for seed in seeds
            ]
        )
    if key in ("lodc-cross-architecture", "dwa-cross-architecture"):
        return pd.DataFrame(
            [
                {"method": method, "network": network, "seed": seed, "accuracy": 50.0 + seed / 3}
                for method in ("random", "DM")
                for network in ("convnet3", "mlp")
                for seed in seeds
            ]
        )
    if key == "lodc-cost":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": method,
                    "kind": kind,
                    "images_per_class": 1,
                    "round": turn,
                    "seconds": 0.5 + turn / 8,
                    "peak_bytes": 1 << 28,
                }
                for method in ("DC", "DM")
                for kind in ("pixels", "lowrank")
                for turn in range(3)
            ]
        )
    if key == "lodc-variants":
        return pd.DataFrame(
            [
                {"variant": name, "seed": seed, "accuracy": 50.0 + seed / 3, "images_per_class": 7}
                for name in ("DM", "LoDM", "adaptive")
                for seed in seeds
            ]
        )
    if key == "lodc-bits":
        return pd.DataFrame(
            [
                {
                    "variant": "DM",
                    "stored": stored,
                    "stored_bits": bits,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                }
                for stored, bits in (("float16", 1000), ("float16", 2000), ("float32", 2000))
                for seed in seeds
            ]
        )
    if key == "mim-kernel":
        return pd.DataFrame(
            [
                {
                    "K": 1,
                    "M": M,
                    "N": 99,
                    "provider": provider,
                    "round": turn,
                    "seconds": M + turn,
                    "peak_bytes": M << 20,
                }
                for M, provider in ((10, "eager"), (10, "chunked"), (100, "chunked"))
                for turn in range(3)
            ]
        )
    if key == "mim-class-correlation":
        return pd.DataFrame(
            [
                cell
                | {
                    "arm": arm,
                    "row": row,
                    "column": column,
                    "correlation": 1.0 if row == column else 0.3,
                    "seed": seed,
                }
                for arm in ("real", "DM", "DM + MIM")
                for row in range(2)
                for column in range(2)
                for seed in seeds
            ]
        )
    if key == "mim-spread":
        return pd.DataFrame(
            [
                cell
                | {"ipc": 10, "arm": arm, "seed": seed, "accuracy": 50.0 + seed / 3, "vendi": 3.0 - seed / 9}
                for arm in ("random real", "DM alone", "ratio 1")
                for seed in seeds
            ]
        )
    if key == "mim-tsne":
        return pd.DataFrame(
            [
                cell | {"set": name, "label": label, "x": label + place / 9, "y": place / 9}
                for label in range(2)
                for place, name in enumerate(("real", "real", "DM", "DM + MIM"))
            ]
        )
    if key == "mim-curves":
        return pd.DataFrame(
            [
                cell
                | {
                    "arm": arm,
                    "step": step,
                    "block": block,
                    "information": 1 + step / 20 + seed / 10,
                    "ceiling": 2.30259,
                    "seed": seed,
                }
                for arm in ("DM", "DM + MIM")
                for step in (0, 10)
                for block in (0, 1)
                for seed in seeds
            ]
        )
    if key.startswith("mim-"):
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": "DM",
                    "arm": arm,
                    "seed": seed,
                    "accuracy": 50.0 + seed**2 / 3 + ratio,
                    "ratio": ratio,
                    "weight": ratio / 7,
                    "temperature": temperature,
                }
                for arm, ratio in (("base", 0.0), ("+ MIM", 0.5))
                for seed in seeds
                for temperature in (0.1, 1.0)
            ]
        )
    if key.startswith("continual"):
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": method,
                    "tasks": 5,
                    "classes": classes,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "stored_numbers": 64 * classes,
                }
                for method in ("random", "DM")
                for classes in (2, 4)
                for seed in seeds
            ]
        )
    if key == "compare-methods":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 1,
                    "method": method,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "images_per_class": 1,
                    "published": 70.5 if method == "DC" else None,
                }
                for method in ("random", "herding", "DC")
                for seed in seeds
            ]
        )
    if key == "dwa-theory":
        batches = [
            cell | {"quantity": name, "value": 0.4, "layer": 1, "law": law, "size": size}
            for name in ("within", "between", "expected")
            for law in ("any class", "one class", "one a class")
            for size in (1, 10)
        ]
        arrows = [
            cell | {"quantity": name, "x": 0.1 * place, "y": place % 2, "dx": 0.5, "dy": 0.1 * place}
            for name in ("mean", "variance")
            for place in range(5)
        ]
        lines = [
            cell | {"quantity": name, "value": value, "decay": decay, "arm": arm, "length": length}
            for arm in DIRECTIONS
            for decay in (0.1, 0.01)
            for name, value, length in (
                ("cosine", 0.5, None),
                ("condition", 1 / decay, None),
                ("safe", 0.8, None),
                ("change", -0.2, 0.5),
                ("change", 0.4, 1.0),
            )
        ]
        return pd.DataFrame(batches + arrows + lines)
    if key == "dwa-factors":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 2,
                    "init": init,
                    "r_var": r_var,
                    "adjusted": on,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                }
                for init in ("noise", "real")
                for r_var in (1.0, 11.0)
                for on in (False, True)
                for seed in seeds
            ]
        )
    if key == "dwa-arms":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": ipc,
                    "arm": arm,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "vendi": 1.5 if ipc > 1 else None,
                    "similarity": 0.5 if ipc > 1 else None,
                }
                for ipc in (1, 2)
                for arm in ("none", "Gaussian", "ascent (DWA)")
                for seed in seeds
            ]
        )
    if key == "dwa-decoupling":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": 2,
                    "init": init,
                    "r_var": r_var,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "within": 0.7,
                    "between": 0.2 + r_var / 50,
                    "of a class": 0.1,
                }
                for init in ("noise", "real")
                for r_var in (0.0, 1.0, 11.0)
                for seed in seeds
            ]
        )
    if key == "dwa-k-rho":
        sets = [
            cell
            | {
                "steps": K,
                "rho": rho,
                "seed": seed,
                "value": 50.0 + seed + 9 * rho,
                "quantity": "set",
                "direction": None,
            }
            for K in (1, 12)
            for rho in (0.015, 0.15)
            for seed in seeds
        ]
        return pd.DataFrame(
            sets
            + [
                cell
                | {
                    "steps": 12,
                    "rho": rho,
                    "seed": seed,
                    "value": 0.5 + rho,
                    "quantity": name,
                    "direction": way,
                }
                for name in ("accuracy", "batch_loss", "cosine")
                for way in WAYS
                for rho in (0.015, 0.15)
                for seed in seeds
            ]
        )
    if key == "dwa-diversity":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": ipc,
                    "set": name,
                    "seed": seed,
                    "quantity": quantity,
                    "layer": 0,
                    "value": 0.5 + seed / 9,
                }
                for ipc in (2, 10)
                for name in ("random", "DWA")
                for quantity in MEASURES
                for seed in seeds
            ]
        )
    if key == "dwa-tsne":
        return pd.DataFrame(
            [
                cell | {"set": name, "label": label, "x": place / 7, "y": label + place / 9}
                for name in ("real", "SRe2L", "DWA")
                for label in range(3)
                for place in range(4)
            ]
        )
    if key == "dwa-ipc":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": ipc,
                    "set": name,
                    "protocol": protocol,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "best": 51.0 if protocol == "published" else None,
                }
                for ipc in (1, 10)
                for protocol in ("clean", "published")
                for name in ("random", "SRe2L", "DWA")
                for seed in seeds
            ]
        )
    if key == "dwa-length":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": ipc,
                    "length": length,
                    "set": name,
                    "seed": seed,
                    "accuracy": 50.0 + seed / 3,
                    "published": 45.0 if ipc == 10 else None,
                }
                for ipc in (1, 10)
                for length in ("4 epochs, width 8", "20 epochs, width 8")
                for name in ("random", "DWA")
                for seed in seeds
            ]
        )
    if key == "dwa-label-cost":
        return pd.DataFrame(
            [
                cell
                | {
                    "ipc": ipc,
                    "teacher_bytes": 9999,
                    "image_bytes": 640 * ipc,
                    "label_bytes": 8000 * ipc,
                    "set": "DWA",
                    "protocol": protocol,
                    "seed": seed,
                    "accuracy": 50.0 + ipc if ipc < 50 else None,
                }
                for ipc in (1, 10, 50)
                for protocol in ("clean", "hard")
                for seed in seeds
            ]
        )
    if key == "theory-images":
        shares = {"image_share": 0.5, "average_share": 0.6, "average_pca": 0.7, "rank": 8.0}
        sets = [(name, 1, state) for name in ("DC", "LoDM") for state in ("before", "after", "change")]
        sets += [("random real", 0, state) for state in ("control", "change")]
        return pd.DataFrame(
            [
                cell | shares | {"set": name, "ipc": ipc, "state": state, "images_per_class": 1, "seed": seed}
                for name, ipc, state in sets
                for seed in seeds
            ]
        )
    return pd.DataFrame([{"ipc": ipc, "method": method, "rank": rank, "images_per_class": ipc * rank, "stored_numbers": 640 * ipc,
                          "seed": seed, "accuracy": 50 + 10 * ipc + rank + seed / 3}
                         for ipc in (1, 10) for method, rank in (("DM", 1), ("LoDM", 4)) for seed in seeds])  # fmt: skip


def save(key, folder, *, preset="laptop", seeds=range(3)):
    made_from = [record_of(seed, preset) for seed in seeds]
    for record in made_from:
        record.save(folder / "records")
    return registry.save(key, frame_of(key), made_from, folder=folder)


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with every figure of the registry. Not to be changed."""
    folder = tmp_path_factory.mktemp("figures")
    for key in KEYS:
        save(key, folder)
    return folder


@pytest.fixture
def folder(saved, tmp_path):
    """A folder of one figure, to be damaged."""
    shutil.copytree(saved / "records", tmp_path / "records")
    for form in FILES:
        shutil.copy(saved / f"lodc-rank.{form}", tmp_path)
    return tmp_path


# the registry


def test_every_entry_has_a_drawing_and_every_drawing_an_entry():
    assert set(DRAWINGS) == set(KEYS)


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_is_whole(key):
    one = registry.entry(key)
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", one.id)
    assert one.id == key
    assert one.status in ("ours", "after the paper")
    assert one.width in ("column", "page")
    assert one.seeds >= 1
    assert {one.paper, *one.hosts} <= {"", *figures.bibliography()}
    assert (batch.NOTEBOOKS / f"{one.notebook}.ipynb").is_file()
    text = (batch.NOTEBOOKS / f"{one.notebook}.ipynb").read_text(encoding="utf-8")
    assert f'"{key}"' in text.replace('\\"', '"'), "the notebook does not draw it"
    assert one.caption.strip().endswith(".")
    assert one.alt.strip()


def test_an_unknown_figure_is_refused_with_the_nearest(refuses):
    with refuses("unknown figure 'lodc-ranks'", "did you mean 'lodc-rank'"):
        registry.entry("lodc-ranks")


@pytest.mark.parametrize(
    ("changed", "word"), [({"titel": "x"}, "'titel'"), ({"seeds": "3"}, "seeds='3'"), ({"alt": None}, "alt")]
)
def test_a_bad_registry_is_refused(tmp_path, refuses, changed, word):
    entry = {"title": "t", "caption": "c", "alt": "a", "notebook": "n"} | changed
    (tmp_path / "registry.yaml").write_text(yaml.safe_dump({"a": entry}), encoding="utf-8")
    with refuses("figure a", word):
        registry.entries(tmp_path)


# saved


def test_save_writes_five_whole_files_of_each(saved):
    names = {path.name for path in saved.iterdir() if path.is_file()}
    assert names == {f"{key}.{form}" for key in KEYS for form in FILES}
    for key in KEYS:
        sidecar = registry.load(key, saved)
        assert set(sidecar["sha256"]) == set(FILES) - {"json"}
        for form, expected in sidecar["sha256"].items():
            assert hashlib.sha256((saved / f"{key}.{form}").read_bytes()).hexdigest() == expected


@pytest.mark.parametrize("key", KEYS)
def test_the_csv_is_what_was_plotted(saved, key):
    frame, found = frame_of(key), pd.read_csv(saved / f"{key}.csv", dtype={"pixels": str})
    assert list(found.columns) == list(frame.columns)
    for name in frame:
        if pd.api.types.is_float_dtype(frame[name]):
            np.testing.assert_allclose(found[name], frame[name], rtol=1e-5)
        else:
            assert list(map(str, found[name])) == list(map(str, frame[name]))


@pytest.mark.parametrize("key", KEYS)
def test_the_widths_are_those_of_the_templates(saved, key):
    with Image.open(saved / f"{key}.png") as image:
        width, dpi = image.width, image.info["dpi"][0]
    promised = style.PAGE if registry.entry(key).width == "page" else style.COLUMN
    assert width / dpi <= promised + 0.02
    assert key in TILES or width / dpi == pytest.approx(promised, abs=0.02)  # tiles have a largest size


def test_redrawn_they_are_the_same_bytes(saved, tmp_path):
    for key in ("lodc-same-memory", "lodc-images"):
        save(key, tmp_path)
        for form in FILES:
            assert (tmp_path / f"{key}.{form}").read_bytes() == (saved / f"{key}.{form}").read_bytes()


@pytest.mark.parametrize("key", ["lodc-rank"])
def test_another_process_on_another_day_draws_the_same_bytes(saved, key):
    """From the CSV, with the provenance of the sidecar, under other hash seeds, locales and dates."""
    program = (
        "import json, sys, hashlib, pathlib; from ddcore.settings import canonical; from ddcore.figures import registry; "
        "folder = pathlib.Path(sys.argv[1]); "
        "key = sys.argv[2]; sidecar = registry.load(key, folder); sidecar.pop('sha256'); "
        "drawn = registry._render(key, registry._from_csv((folder / f'{key}.csv').read_bytes()), canonical(sidecar)); "
        "print(json.dumps({form: hashlib.sha256(content).hexdigest() for form, content in drawn.items()}))"
    )
    environment = dict(os.environ) | {
        "PYTHONHASHSEED": "7",
        "SOURCE_DATE_EPOCH": "86400",
        "TZ": "Asia/Tokyo",
        "OMP_NUM_THREADS": "1",
    }
    run = subprocess.run(
        [sys.executable, "-c", program, str(saved), key],
        capture_output=True,
        encoding="utf-8",
        env=environment,
    )
    assert run.returncode == 0, run.stderr
    assert json.loads(run.stdout) == {
        form: value for form, value in registry.load(key, saved)["sha256"].items() if form != "csv"
    }


def test_a_figure_is_redrawn_from_its_data_and_records(folder, monkeypatch):
    before = {path.name: path.read_bytes() for path in folder.glob("lodc-rank.*")}
    with monkeypatch.context() as patch:
        patch.setitem(DRAWINGS, "lodc-rank", lambda frame: Figure())
        registry.redraw("lodc-rank", folder)
    changed = {name for name, content in before.items() if (folder / name).read_bytes() != content}
    assert changed == {f"lodc-rank.{form}" for form in FILES if form != "csv"}
    registry.redraw("lodc-rank", folder)
    assert {path.name: path.read_bytes() for path in folder.glob("lodc-rank.*")} == before


def test_redrawing_keeps_the_bytes_of_the_data_however_numbers_are_written_in_them(folder):
    csv, path = folder / "lodc-rank.csv", folder / "lodc-rank.json"
    csv.write_text(csv.read_text(encoding="utf-8").replace("61", "61.0"), encoding="utf-8", newline="")
    before = csv.read_bytes()
    registry.redraw("lodc-rank", folder)
    assert csv.read_bytes() == before
    assert json.loads(path.read_text(encoding="utf-8"))["csv_sha256"] == hashlib.sha256(before).hexdigest()
    assert registry.check(folder) == []


def test_what_is_not_saved_is_not_redrawn(folder, refuses):
    with refuses("lodc-bits", "not recorded yet"):
        registry.redraw("lodc-bits", folder)
    (folder / "lodc-rank.json").unlink()
    with refuses("lodc-rank.json", "missing"):
        registry.redraw("lodc-rank", folder)


def test_the_order_of_the_records_does_not_matter(folder, tmp_path):
    other = tmp_path / "other"
    save("lodc-rank", other, seeds=[2, 0, 1])
    assert (other / "lodc-rank.json").read_bytes() == (folder / "lodc-rank.json").read_bytes()


# the provenance


def embedded(path) -> str:
    """The provenance that a file carries, as any reader of its format finds it."""
    if path.suffix == ".png":
        with Image.open(path) as image:
            return image.text["Provenance"]
    content = path.read_bytes()
    if path.suffix == ".svg":
        import xml.etree.ElementTree as ElementTree

        (found,) = ElementTree.fromstring(content).iter("{http://purl.org/dc/elements/1.1/}description")
        return found.text
    text = re.search(rb"/Keywords \((.*?)(?<!\\)\)", content, re.DOTALL)[1]
    text = re.sub(rb"\\([()\\])", rb"\1", text)
    return text.decode("utf-16") if text.startswith(b"\xfe\xff") else text.decode("latin-1")


@pytest.mark.parametrize("form", ["pdf", "svg", "png"])
@pytest.mark.parametrize("key", KEYS)
def test_every_drawing_carries_its_provenance(saved, key, form):
    sidecar = registry.load(key, saved)
    assert json.loads(embedded(saved / f"{key}.{form}")) == {
        name: value for name, value in sidecar.items() if name != "sha256"
    }


def test_the_provenance_names_records_data_hardware_and_code(saved):
    sidecar = registry.load("lodc-rank", saved)
    assert sidecar["figure"] == "lodc-rank"
    assert sidecar["wasDerivedFrom"] == sorted(record_of(seed).hash for seed in range(3))
    assert sidecar["seeds"] == [0, 1, 2]
    assert sidecar["preset"] == ["laptop"]
    assert sidecar["data"] == [["digits", "a" * 16]]
    assert sidecar["seconds"] == 6.0
    assert sidecar["commits"] == ["c" * 40]
    assert sidecar["dirty"] is False
    assert sidecar["csv_sha256"] == hashlib.sha256((saved / "lodc-rank.csv").read_bytes()).hexdigest()
    assert matplotlib.__version__ in sidecar["drawn_with"]
    line = registry.provenance_line(sidecar)
    for word in ("laptop preset", "digits", "3 seeds", "3 records", "6 s", "a CPU_& 100 %, 1 thread"):
        assert word in line


def test_nothing_in_a_file_tells_when_it_was_drawn(saved):
    for path in saved.glob("lodc-rank.*"):
        content = path.read_bytes()
        if path.suffix == ".pdf":
            content += b"".join(zlib.decompress(part) for part in re.findall(rb"stream\r?\n(.*?)\r?\nendstream", content, re.DOTALL)
                                if part[:1] == b"x")  # fmt: skip
        assert b"CreationDate" not in content
        assert not re.search(rb"20[2-9]\d-[01]\d-[0-3]\d", content)


# refused


@pytest.fixture
def official(tmp_path, monkeypatch):
    monkeypatch.setattr(registry, "FOLDER", tmp_path)
    return tmp_path


def test_numbers_that_are_not_a_presets_are_refused_for_figures_and_said_elsewhere(
    official, tmp_path, refuses
):
    made_from = [record_of(seed, overrides={"images": 100} if seed else {}) for seed in range(3)]
    with refuses("lodc-rank", "images=100", "can't land in figures/"):
        registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=official)
    assert list(official.iterdir()) == []
    sidecar = registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=tmp_path / "elsewhere")
    assert sidecar["overrides"] == {"images": 100}
    assert registry.provenance_line(sidecar).startswith("laptop preset, images=100 · digits")
    plain = registry.save(
        "lodc-rank", frame_of("lodc-rank"), [record_of(seed) for seed in range(3)], folder=official
    )
    assert "overrides" not in plain
    assert registry.provenance_line(plain).startswith("laptop preset · digits")


@pytest.mark.parametrize(
    ("presets", "datasets", "said"),
    [
        (["laptop"], ["cifar10"], None),
        (["smoke"], ["digits", "digits"], "smoke, digits: not a result"),
        (["laptop", "smoke"], [""], "smoke, simulated data: not a result"),
    ],
)
def test_what_a_smoke_run_took_part_in_says_so_across_the_figure(presets, datasets, said):
    figure = matplotlib.figure.Figure()
    assert figures.mark(figure, presets, datasets) is figure
    assert [text.get_text() for text in figure.texts] == ([said] if said else [])


@pytest.mark.parametrize("presets", [["smoke"] * 3, ["laptop", "laptop", "smoke"]], ids=str)
def test_smoke_records_are_refused_for_figures(official, refuses, presets):
    made_from = [record_of(seed, preset) for seed, preset in enumerate(presets)]
    with refuses("lodc-rank", "smoke", "laptop"):
        registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=official)
    with refuses("smoke"):
        registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=official / "records" / "..")
    assert list(official.iterdir()) == []
    registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=official / "elsewhere")


def test_too_few_seeds_are_refused_for_figures(official, refuses):
    twice = [record_of(seed) for seed in (0, 1)]
    with refuses("2 seeds", "3"):
        registry.save("lodc-rank", frame_of("lodc-rank"), twice, folder=official)
    assert list(official.iterdir()) == []
    registry.save("lodc-rank", frame_of("lodc-rank"), [*twice, record_of(2)], folder=official)


def test_a_figure_of_nothing_is_refused(tmp_path, refuses):
    with refuses("lodc-rank", "11_low_rank_condensation"):
        registry.save("lodc-rank", frame_of("lodc-rank"), [], folder=tmp_path / "new")
    with refuses("lodc-rank"):
        registry.save("lodc-rank", frame_of("lodc-rank").iloc[:0], [record_of(0)], folder=tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_failed_drawing_leaves_the_old_figure(folder, monkeypatch):
    before = {path: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    with pytest.raises(KeyError):
        registry.save(
            "lodc-rank", frame_of("lodc-rank").drop(columns="accuracy"), [record_of(0)], folder=folder
        )
    assert {path: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert registry.check(folder) == []


# checked


def test_a_good_folder_has_nothing_wrong(saved):
    assert registry.check(saved) == []


def test_the_figures_of_the_repository_have_nothing_wrong():
    assert registry.check() == []


def test_a_folder_of_handwritten_files_has_nothing_wrong(tmp_path):
    for name in ("registry.yaml", "published.csv", "figures.bib"):
        (tmp_path / name).write_bytes((registry.FOLDER / name).read_bytes())
    assert registry.check(tmp_path) == []


@pytest.mark.parametrize("form", FILES)
def test_check_names_a_missing_file(folder, form):
    (folder / f"lodc-rank.{form}").unlink()
    assert any(f"lodc-rank.{form}" in line for line in registry.check(folder))


@pytest.mark.parametrize("form", FILES)
@pytest.mark.parametrize("place", [0.1, 0.5, 0.9])
def test_check_names_a_file_with_a_changed_byte(folder, form, place):
    path = folder / f"lodc-rank.{form}"
    content = bytearray(path.read_bytes())
    at = int(len(content) * place)
    content[at] = ord("7") if content[at] != ord("7") else ord("8")
    path.write_bytes(bytes(content))
    assert any("lodc-rank" in line for line in registry.check(folder))


@pytest.mark.parametrize("form", FILES)
def test_check_names_a_file_cut_short(folder, form):
    path = folder / f"lodc-rank.{form}"
    path.write_bytes(path.read_bytes()[:-20])
    assert any(f"lodc-rank.{form}" in line for line in registry.check(folder))


def test_check_names_a_figure_that_is_not_in_the_registry(folder):
    (folder / "lodc-rnak.png").write_bytes(b"")
    assert registry.check(folder) == ["lodc-rnak.png: no entry 'lodc-rnak' in registry.yaml"]


def test_check_names_a_missing_record(folder):
    (folder / "records" / f"{record_of(1).hash}.json").unlink()
    assert registry.check(folder) == [f"lodc-rank: its record {record_of(1).hash} is not in records/"]


def test_check_names_a_broken_record(folder):
    path = folder / "records" / f"{record_of(1).hash}.json"
    path.write_text(path.read_text(encoding="utf-8").replace('"seed": 1', '"seed": 5'), encoding="utf-8")
    assert any(record_of(1).hash in line for line in registry.check(folder))


def test_check_names_a_drawing_with_another_provenance_inside(folder):
    """A sidecar made to agree with files that do not carry it."""
    path = folder / "lodc-rank.json"
    sidecar = json.loads(path.read_text(encoding="utf-8")) | {"seeds": [0, 1, 2, 3, 4]}
    path.write_text(json.dumps(sidecar), encoding="utf-8")
    wrong = registry.check(folder)
    assert [line.split(":")[0] for line in wrong] == ["lodc-rank.pdf", "lodc-rank.svg", "lodc-rank.png"]
    assert all("provenance" in line for line in wrong)


def test_check_names_a_drawing_of_other_data(folder):
    """The CSV changed, and the sidecar with it."""
    csv, path = folder / "lodc-rank.csv", folder / "lodc-rank.json"
    csv.write_text(csv.read_text(encoding="utf-8").replace("61", "69"), encoding="utf-8")
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    sidecar["csv_sha256"] = sidecar["sha256"]["csv"] = hashlib.sha256(csv.read_bytes()).hexdigest()
    path.write_text(json.dumps(sidecar), encoding="utf-8")
    assert any("redrawn" in line for line in registry.check(folder))


def test_check_goes_on_after_a_drawing_that_fails(folder):
    """Columns that the drawing no longer reads: named as the others are, and no traceback."""
    csv, path = folder / "lodc-rank.csv", folder / "lodc-rank.json"
    csv.write_text(csv.read_text(encoding="utf-8").replace("accuracy", "score"), encoding="utf-8")
    sidecar = json.loads(path.read_text(encoding="utf-8"))
    sidecar["csv_sha256"] = sidecar["sha256"]["csv"] = hashlib.sha256(csv.read_bytes()).hexdigest()
    path.write_text(json.dumps(sidecar), encoding="utf-8")
    (line,) = registry.check(folder)
    assert line.startswith("lodc-rank: ")
    assert "accuracy" in line


def test_check_does_not_redraw_with_another_matplotlib(folder, monkeypatch):
    monkeypatch.setattr(matplotlib, "__version__", "9.9.9")
    monkeypatch.setattr(registry, "_render", None)
    assert registry.check(folder) == []


# its commits


@pytest.fixture
def clone(monkeypatch):
    """A clone that has commit 'c…', at which the package's sha256 is 'd…': what the records of these tests name."""
    monkeypatch.setattr(commits, "history", lambda: frozenset({"c" * 40}))
    monkeypatch.setattr(commits, "package_sha256", lambda top, commit, *file: "d" * 64)


def save_at(folder, **changed):
    made_from = [record_of(seed, **changed if seed == 2 else {}) for seed in range(3)]
    for record in made_from:
        record.save(folder / "records")
    registry.save("lodc-rank", frame_of("lodc-rank"), made_from, folder=folder)


@pytest.mark.parametrize(("changed", "words"), [
    ({}, None), ({"commit": None, "dirty": None}, None), ({"code_sha256": "e" * 64, "dirty": True}, None),
    ({"commit": "f" * 40}, ("f" * 40, "no clone")), ({"code_sha256": "e" * 64}, ("c" * 40, "e" * 16)),
], ids=str)  # fmt: skip
def test_check_names_a_commit_that_is_not_there_and_one_of_other_code(tmp_path, clone, changed, words):
    save_at(tmp_path, **changed)
    assert registry.unchecked(tmp_path) == ""
    wrong = registry.check(tmp_path)
    assert len(wrong) == bool(words)
    assert all(line.startswith("lodc-rank: ") and all(word in line for word in words) for line in wrong)


def test_what_is_stated_of_a_commit_is_taken_where_it_is_so(tmp_path, clone, official, monkeypatch):
    for name in ("registry.yaml", "figures.bib"):
        shutil.copy(records.TOP / "figures" / name, official)
    place = {"commits": ["f" * 40], "package": "c" * 40, "known": "it is at commit c"}
    (official / "commits.yaml").write_text(yaml.safe_dump({"d" * 16: place}), encoding="utf-8")
    save_at(tmp_path, commit="f" * 40)
    assert registry.check(tmp_path) == []
    assert registry.remarks("lodc-rank", tmp_path) == [
        f"records that name commit {'f' * 40}: it is at commit c"
    ]
    (official / "commits.yaml").write_text(
        yaml.safe_dump({"d" * 16: place | {"package": "e" * 40}}), encoding="utf-8"
    )
    (line,) = registry.check(tmp_path)
    assert "commits.yaml" in line


def raising(error):
    def raised():
        raise error

    return raised


@pytest.mark.parametrize(
    ("history", "word"),
    [
        (lambda: frozenset({"f" * 40}), "another history"),
        (raising(commits.NoHistory("this is no clone")), "no clone"),
    ],
)
def test_where_commits_can_not_be_looked_up_that_is_said_and_nothing_is_wrong(
    folder, capsys, monkeypatch, history, word
):
    monkeypatch.setattr(commits, "history", history)
    assert registry.check(folder) == []
    assert word in registry.unchecked(folder)
    monkeypatch.setattr(figures, "check", lambda: [])
    monkeypatch.setattr(figures, "unchecked", lambda: "word")
    with pytest.raises(SystemExit) as ended:
        get_command(app)(["figures", "check"])
    assert ended.value.code == 0
    assert "could not be checked: word" in capsys.readouterr().out


# nobody's settings

HOSTILE = {
    "font.size": 30, "font.family": "monospace", "lines.linewidth": 9, "lines.marker": "x", "axes.grid": True, "axes.facecolor": "red",
    "axes.spines.top": True, "axes.prop_cycle": matplotlib.cycler(color=["k"]), "axes.formatter.use_mathtext": True,
    "errorbar.capsize": 9, "figure.facecolor": "0.5", "figure.autolayout": True, "figure.constrained_layout.use": False,
    "figure.dpi": 31, "image.interpolation": "bicubic", "legend.fancybox": False, "mathtext.fontset": "stix", "pdf.compression": 0,
    "path.sketch": (1.0, 100.0, 2.0), "pdf.fonttype": 3, "savefig.bbox": "tight", "savefig.dpi": 31, "savefig.transparent": True,
    "svg.fonttype": "none", "svg.hashsalt": "x", "xtick.direction": "in",
}  # fmt: skip
SHOWN = ("lodc-rank", "lodc-images", "theory-l")


def written(setting) -> str:
    """As a matplotlibrc has it."""
    return ", ".join(map(str, setting)) if isinstance(setting, tuple) else str(setting)


def drawn(saved, key) -> dict[str, str]:
    sidecar = registry.load(key, saved)
    expected = sidecar.pop("sha256")
    found = registry._render(key, registry._from_csv((saved / f"{key}.csv").read_bytes()), canonical(sidecar))
    return {form: hashlib.sha256(content).hexdigest() == expected[form] for form, content in found.items()}


DRAWN_ELSEWHERE = """
import json, pathlib, sys
sys.path.insert(0, sys.argv[1])
from test_figures_registry import drawn
print(json.dumps({key: drawn(pathlib.Path(sys.argv[2]), key) for key in sys.argv[3:]}))
"""


@pytest.mark.parametrize("where", ["the current folder", "MATPLOTLIBRC"])
def test_a_matplotlibrc_changes_no_byte(saved, tmp_path, where):
    lines = ["backend: svg", *(f"{name}: {written(setting)}" for name, setting in HOSTILE.items())]
    (tmp_path / "matplotlibrc").write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = subprocess.run(
        [sys.executable, "-c", DRAWN_ELSEWHERE, str(Path(__file__).parent), str(saved), *SHOWN],
        capture_output=True,
        encoding="utf-8",
        cwd=tmp_path if where == "the current folder" else None,
        env=elsewhere() | ({"MATPLOTLIBRC": str(tmp_path)} if where == "MATPLOTLIBRC" else {}),
    )
    assert found.returncode == 0, found.stderr
    assert json.loads(found.stdout) == {key: dict.fromkeys(registry.FORMATS, True) for key in SHOWN}


def elsewhere() -> dict[str, str]:
    """The environment of another process with this package and no wish for a backend."""
    path = os.pathsep.join((str(records.TOP), os.environ.get("PYTHONPATH", "")))
    return {name: value for name, value in os.environ.items() if name != "MPLBACKEND"} | {
        "PYTHONPATH": path,
        "OMP_NUM_THREADS": "1",
    }


def by_seaborn():
    seaborn.set_theme(style="darkgrid", palette="Set2", font_scale=2)


@pytest.mark.parametrize("habit", [lambda: matplotlib.rcParams.update(HOSTILE), lambda: matplotlib.style.use("ggplot"), by_seaborn],
                         ids=["rcParams", "a style", "seaborn"])  # fmt: skip
def test_what_a_reader_has_set_changes_no_byte_and_stays_as_it_is(saved, habit):
    codes = dict(matplotlib.colors.colorConverter.colors)
    with matplotlib.rc_context():
        habit()
        before = dict(matplotlib.rcParams)
        for key in SHOWN:
            assert drawn(saved, key) == dict.fromkeys(registry.FORMATS, True)
        registry.to_png(registry.draw("lodc-rank", frame_of("lodc-rank")))
        assert dict(matplotlib.rcParams) == before
    matplotlib.colors.colorConverter.colors.update(codes)


def test_every_setting_of_a_style_is_the_default_or_ours():
    with matplotlib.rc_context():
        matplotlib.style.use(["dark_background", "seaborn-v0_8-poster", "classic", HOSTILE])
        with style.applied():
            found = dict(matplotlib.rcParams)
    with matplotlib.rc_context():
        matplotlib.style.use("default")
        matplotlib.rcParams.update(style.STYLE)
        assert found == dict(matplotlib.rcParams)


AS_IT_WAS = """
import sys
import matplotlib
before = {name: dict.__getitem__(matplotlib.rcParams, name) for name in matplotlib.rcParams}
from ddcore.figures import registry
def state():
    return {name: dict.__getitem__(matplotlib.rcParams, name) for name in matplotlib.rcParams}
assert state() == before, "by the import"
for key in sys.argv[1:]:
    registry.to_png(registry.draw(key, registry.data(key)))
    registry._render(key, registry.data(key), '{"preset": [], "data": []}')
assert state() == before, "by drawing"
import matplotlib.pyplot as plt
assert plt.get_fignums() == [], "a figure is left to pyplot"
assert state()["backend"] == before["backend"]
print(before["backend"])
"""


@pytest.mark.parametrize("backend", ["", "svg", "module://matplotlib_inline.backend_inline"])
def test_importing_and_drawing_leave_matplotlib_as_it_was(backend):
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", AS_IT_WAS, "lodc-rank", "theory-l"],
        capture_output=True,
        encoding="utf-8",
        env=elsewhere() | ({"MPLBACKEND": backend} if backend else {}),
    )
    assert found.returncode == 0, found.stderr
    assert backend in found.stdout


READERS_PLOT = """
import json
import nbformat, nbclient
cells = ["from ddcore import figures; figures.to_png(figures.draw('lodc-rank', figures.data('lodc-rank')))",
         "import matplotlib.pyplot as plt; plt.plot([1, 2]); None"]
notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
nbclient.NotebookClient(notebook, kernel_name="python3").execute()
print(json.dumps([[list(output.get("data", {})) for output in cell.outputs] for cell in notebook.cells]))
"""


def test_a_readers_own_plot_still_shows_in_jupyter():
    found = subprocess.run(
        [sys.executable, "-c", READERS_PLOT],
        capture_output=True,
        encoding="utf-8",
        env={
            name: value for name, value in (batch.environment() | elsewhere()).items() if name != "MPLBACKEND"
        },
    )
    assert found.returncode == 0, found.stderr
    assert any("image/png" in data for data in json.loads(found.stdout)[1])


# cited


def unescaped_braces(text: str) -> int:
    depth = 0
    for sign in re.findall(r"(?<!\\)[{}]", text.replace("\\\\", "")):
        depth += 1 if sign == "{" else -1
        assert depth >= 0
    return depth


def cited(monkeypatch, caption: str, alt: str = "alt", **changed) -> dict[str, str]:
    one = registry.Entry("lodc-rank", "title", caption, alt, "11", "lodc", **changed)
    with monkeypatch.context() as patch:
        patch.setattr(registry, "entry", lambda key: one)
        patch.setattr(registry, "load", lambda key: None)
        return registry.cite("lodc-rank")


@given(st.text(st.sampled_from(list("ab {}\\%&$#_^~±×²≥[]*`<\n")), min_size=1))
def test_hostile_captions_are_escaped(caption):
    with pytest.MonkeyPatch.context() as patch:
        found = cited(patch, caption, caption)
    latex = found["latex"]
    assert unescaped_braces(latex) == 0
    inside = re.search(
        r"\\caption\{(.*) Figure: \\cite\{ddcore\}\. Method: \\cite\{lodc\}\.\}\n", latex, re.DOTALL
    )[1]
    assert not re.search(r"(?<!\\)[%&#_]", inside)
    assert len(re.findall(r"(?<!\\)\$", inside)) % 2 == 0
    assert "\n" not in inside
    commands = {"textasciitilde", "textasciicircum", "textbackslash", "pm", "times", "geq"}
    assert set(re.findall(r"\\([a-z]+)", inside)) <= commands
    markdown = found["markdown"]
    assert markdown.count("\n\n") == 1
    assert not re.search(
        r"(?<!\\)[*`\[\]<]", re.sub(r"\\\\", "", markdown)[2:].replace("](figures/", "").split("\n\n")[0]
    )


def test_plain_captions_are_left_alone(monkeypatch):
    found = cited(monkeypatch, "Accuracy of G V'V + UU'G, by rank (3 seeds).")
    assert "{Accuracy of G V'V + UU'G, by rank (3 seeds). Figure: " in found["latex"]
    assert "*Accuracy of G V'V + UU'G, by rank (3 seeds). Figure: " in found["markdown"]
    assert "Gain of 5\\,\\%" not in found["latex"]


def test_a_wide_figure_takes_the_page(monkeypatch):
    narrow, wide = cited(monkeypatch, "c.")["latex"], cited(monkeypatch, "c.", width="page")["latex"]
    assert narrow.startswith("\\begin{figure}\n")
    assert "\\columnwidth" in narrow
    assert wide.startswith("\\begin{figure*}\n")
    assert "\\textwidth" in wide
    assert wide.endswith("\\end{figure*}\n")


@pytest.mark.parametrize("key", KEYS)
def test_every_figure_can_be_cited(key):
    found = registry.cite(key)
    assert set(found) == {"latex", "markdown", "bibtex"}
    assert unescaped_braces(found["latex"]) == unescaped_braces(found["bibtex"]) == 0
    assert f"\\label{{fig:{key}}}" in found["latex"]
    assert f"figures/{key}.pdf" in found["latex"]
    assert f"(figures/{key}.png)" in found["markdown"]
    keys = [key for cited in re.findall(r"\\cite\{(.*?)\}", found["latex"]) for key in cited.split(",")]
    assert list(dict.fromkeys(re.findall(r"@(\w+)", found["markdown"].split("\n\n*")[1]))) == list(
        dict.fromkeys(keys)
    )
    assert re.findall(r"^@\w+\{(.*?),", found["bibtex"], re.MULTILINE) == list(dict.fromkeys(keys))


WORDS = ("DC", "DSA", "DM", "MTT", "SRe2L", "DWA")


@pytest.mark.parametrize("key", KEYS)
def test_every_method_that_a_figure_names_is_credited(key):
    """In its caption, or in the data that it plots: LoDSA is LoDC's method on DSA."""
    frame, one = registry.data(key), registry.entry(key)
    shown = " ".join(
        [
            one.caption,
            *(
                str(value)
                for column in frame.select_dtypes(exclude="number")
                if column != "pixels"
                for value in frame[column].unique()
            ),
        ]
    )
    named = {word.lower() for word in re.findall(rf"\b(?:Lo)?({'|'.join(WORDS)})\b", shown)}
    named |= set(re.findall(r"\b(dc|dsa|dm) step\b", shown))
    named |= {"lodc"} if re.search(rf"\bLo(?:{'|'.join(WORDS)})\b", shown) else set()
    assert named <= {one.paper, *one.hosts}


@pytest.mark.parametrize("format_", ["latex", "markdown", "bibtex", "all"])
def test_several_figures_are_cited_together_and_no_entry_twice(capsys, format_):
    keys = ["lodc-hosts", "dwa-arms", "lodc-hosts", "lodc-rank", "compare-methods"]
    found, each = registry.cite(*keys), {key: registry.cite(key) for key in keys}
    for form in ("latex", "markdown"):
        assert found[form] == "\n".join(one[form] for one in each.values())
    entries = re.split(r"\n(?=@)", found["bibtex"])
    assert len(entries) == len(set(entries)) == 8
    assert set(entries) == {entry for one in each.values() for entry in re.split(r"\n(?=@)", one["bibtex"])}
    assert entries[0].startswith("@misc{ddcore,")
    with pytest.raises(SystemExit) as ended:
        get_command(app)(["figures", "cite", *keys, "--format", format_])
    assert ended.value.code == 0
    expected = registry.cite(*keys, **commits.here())
    assert capsys.readouterr().out == (
        expected[format_] if format_ in expected else "\n".join(expected.values())
    )


def test_an_unknown_figure_among_several_is_refused(refuses):
    with refuses("unknown figure 'lodc-ranks'", "did you mean 'lodc-rank'"):
        registry.cite("lodc-hosts", "lodc-ranks")


def printed(source: str) -> str | None:
    """What a cell prints that does nothing but print citations, entries or the index; None for another cell."""
    tree = ast.parse(source)
    used = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
    if not used & {"cite", "index", "bibliography"} or names != {"print", "figures"}:
        return None
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(source, {"figures": figures})
    return out.getvalue()


@pytest.mark.parametrize("notebook", batch.notebooks(), ids=lambda path: path.stem)
def test_what_a_committed_notebook_shows_of_the_registry_is_what_the_registry_says(notebook):
    """Citations and the index depend on no machine, so they are compared to the letter."""
    compared = 0
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code" and (expected := printed("".join(cell["source"]))) is not None:
            assert "".join(text for output in cell["outputs"] for text in output["text"]) == expected
            compared += 1
    assert compared >= 1 + (notebook.stem == "00_start_here")


def test_a_recorded_figure_is_cited_with_its_provenance(saved, monkeypatch):
    sidecar = registry.load("lodc-rank", saved)
    monkeypatch.setattr(registry, "load", lambda key: sidecar)
    found = registry.cite("lodc-rank")
    assert "a CPU\\_\\& 100 \\%, 1 thread" in found["latex"]
    assert "laptop preset" in found["markdown"]


# published numbers


def test_every_published_number_has_its_source():
    known = pd.read_csv(registry.FOLDER / "published.csv")
    assert list(known.columns) == ["dataset", "network", "method", "ipc", "mean", "sd", "source", "protocol"]
    assert known.source.notna().all()
    assert known.source.str.strip().ne("").all()
    assert known["mean"].between(0, 100).all()
    assert known.sd.dropna().between(0, 5).all()
    assert not known.duplicated(["dataset", "network", "method", "ipc", "source"]).any()


def test_what_is_published_is_what_the_file_says():
    known = pd.read_csv(registry.FOLDER / "published.csv", dtype=str, keep_default_na=False)
    for row in known[known.ipc != ""].itertuples():
        found = registry.published(
            row.dataset, network=row.network, methods=(row.method,), ipcs=(int(row.ipc),)
        ).to_dict("records")
        text = f"{row.mean} ± {row.sd}" if row.sd else row.mean
        assert {
            "method": row.method,
            "ipc": int(row.ipc),
            "published": text,
            "protocol": row.protocol,
            "source": row.source,
        } in found


def test_the_neighbours_of_the_first_figure():
    """Issue 2: DC 70.5/82.3, DSA 70.6/84.6."""
    found = registry.published("fashion_mnist", network="ConvNet3", methods=("DC", "DSA"), ipcs=(1, 10))
    assert list(found.published) == ["70.5 ± 0.6", "82.3 ± 0.4", "70.6 ± 0.6", "84.6 ± 0.3"]


@pytest.mark.parametrize(("dataset", "network", "method", "ipc"), [
    ("fashion_mnist", "ConvNet3", "DM", 1), ("fashion_mnist", "ConvNet3", "DC", 2), ("fashion_mnist", "ResNet18", "DC", 1),
    ("imagenet", "ConvNet3", "DC", 1), ("cifar10", "ConvNet3", "LoDM", 1),
])  # fmt: skip
def test_what_is_not_published_is_not_available(dataset, network, method, ipc):
    (found,) = registry.published(dataset, network=network, methods=(method,), ipcs=(ipc,)).to_dict("records")
    assert found == {"method": method, "ipc": ipc, "published": "not available", "protocol": "", "source": ""}


def test_saved_sidecars_are_canonical(saved):
    """What is embedded is the canonical JSON: a hash of it can be compared anywhere."""
    assert embedded(saved / "lodc-rank.png") == canonical(json.loads(embedded(saved / "lodc-rank.png")))
    assert records.read_all(saved / "records")
