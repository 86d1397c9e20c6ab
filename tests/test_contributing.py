"""The examples of CONTRIBUTING.md run as they stand there, and do what it says of them."""

import re

import pandas as pd
import pytest
import yaml
from typer.testing import CliRunner

import ddcore
from ddcore import figures, synthetic
from ddcore.cli import app
from ddcore.files import records
from ddcore.methods import METHODS
from ddcore.settings import build

TEXT = (records.TOP / "CONTRIBUTING.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(?:python|yaml)\n(.*?)^```", TEXT, re.S | re.M)


def example(holds: str) -> str:
    """The one block that holds these words."""
    (found,) = [block for block in BLOCKS if holds in block]
    return found


def made(holds: str) -> dict:
    """What an example defines."""
    names = {"__name__": "example"}
    exec(example(holds), names)
    return names


def test_its_plugin_smooths_what_it_is_added_to(digits):
    """The block runs as it stands, but for the size of the network."""
    small = "ddcore.DC(width=8, batch_real=16, strategy='none')"

    def steepness(weight: float) -> float:
        syn = ddcore.Pixels(digits, 1, seed=0)
        code = example("class TotalVariation").replace("ddcore.DC()", small).replace("steps=100", "steps=20")
        code = code.replace("weight=0.1", f"weight={weight}")
        assert small in code
        exec(code, {"ddcore": ddcore, "data": digits, "syn": syn, "__name__": "example"})
        return float(syn.images().detach().diff(dim=-1).abs().mean())

    assert steepness(100.0) < 0.9 * steepness(1e-6)


@pytest.mark.parametrize(
    "plugins", [[], [ddcore.MutualInformation(weight=0.1)]], ids=["alone", "with a plugin"]
)
def test_its_method_brings_the_class_means_together(digits, untouched, plugins):
    method = made("class ClassMeans")["ClassMeans"](width=8, batch_real=8)
    syn = ddcore.LowRank(digits, 1, rank=1, seed=0)
    losses = ddcore.distill(digits, syn, method, plugins=plugins, steps=30, lr_img=1.0, seed=0).losses
    assert sum(losses[-10:]) < sum(losses[:10])


def test_its_method_goes_on_from_a_step_with_the_same_draws(digits):
    method = made("class ClassMeans")["ClassMeans"](width=8, batch_real=8)
    syn = ddcore.Pixels(digits, 1, seed=0)
    whole = method.matches(digits, syn, seed=3)
    next(whole)
    assert next(whole).loss.equal(next(method.matches(digits, syn, seed=3, start=1)).loss)


def test_its_parametrization_holds_four_times_as_many_images(digits, monkeypatch, tmp_path):
    kind = made("class Coarse")["Coarse"]
    monkeypatch.setitem(synthetic.KINDS, "coarse", kind)
    syn = synthetic.create(digits, "coarse", 2, seed=0)
    assert (type(syn), syn.per_class, syn.stored_numbers) == (kind, 8, syn.budget)
    ddcore.distill(digits, syn, ddcore.DM(width=8, batch_real=8, strategy="none"), steps=2, seed=0)
    again = ddcore.load_synthetic(syn.save(tmp_path / "coarse.safetensors"))
    assert again.images().equal(syn.images())


def test_both_are_named_on_the_command_line(monkeypatch, tmp_path):
    """A parametrization without a rank is given none."""
    monkeypatch.setitem(synthetic.KINDS, "coarse", made("class Coarse")["Coarse"])
    monkeypatch.setitem(METHODS, "class_means", made("class ClassMeans")["ClassMeans"])
    out = tmp_path / "set.safetensors"
    words = f"distill --method class_means --synthetic coarse --width 8 --set batch_real=8 --steps 2 --device cpu --out {out}"
    done = CliRunner().invoke(app, words.split(), catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert ddcore.load_synthetic(out).kind == "coarse"


def test_its_figure_is_an_entry_and_a_drawing():
    ((key, entry),) = yaml.safe_load(example("lodc-loss:")).items()
    assert build(figures.Entry, {"id": key, **entry}).notebook == "11_low_rank_condensation"
    loss_by_step = made("def loss_by_step")["loss_by_step"]
    rows = [
        {"method": method, "step": step, "seed": 0, "loss": 1 / (1 + step)}
        for method in ("DM", "LoDM")
        for step in range(5)
    ]
    frame = pd.DataFrame(rows)
    (axis,) = loss_by_step(frame).axes
    assert [text.get_text() for text in axis.get_legend().texts] == ["DM", "LoDM"]
