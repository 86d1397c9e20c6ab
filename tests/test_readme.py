"""The README says what is so: its generated table, its numbers, its commands."""

import re
import shlex

from typer.main import get_command

import ddcore
from ddcore import figures, records
from ddcore.cli import app
from ddcore.experiments import paired, summary
from ddcore.figures.drawings.marks import NAMES

README = (records.TOP / "README.md").read_text(encoding="utf-8")


def test_the_table_of_figures_is_the_generated_one():
    assert README.split("`ddcore figures index` -->\n")[1].split("\n<!-- end -->")[0] == figures.index()


def test_every_command_it_shows_parses():
    blocks = re.findall(r"^```\w*\n(.*?)^```", README, re.S | re.M)
    shown = [line.split("#")[0] for block in blocks for line in block.replace("\\\n", "").splitlines() if line.startswith("ddcore ")]
    assert len(shown) >= 5
    for line in shown:
        command, words = get_command(app), shlex.split(line)[1:]
        while hasattr(command, "commands"):
            command, words = command.commands[words[0]], words[1:]
        command.make_context(command.name, words)


def test_its_plugin_smooths_what_it_is_added_to(digits):
    """The block runs as it stands, but for the size of the network."""
    block = next(block for block in re.findall(r"^```python\n(.*?)^```", README, re.S | re.M) if "class TotalVariation" in block)
    small = "ddcore.DC(width=8, batch_real=16, strategy='none')"

    def steepness(weight: float) -> float:
        syn = ddcore.Pixels(digits, 1, seed=0)
        code = block.replace("ddcore.DC()", small).replace("steps=100", "steps=20").replace("weight=0.1", f"weight={weight}")
        assert small in code
        exec(code, {"ddcore": ddcore, "data": digits, "syn": syn})
        return float(syn.images().detach().diff(dim=-1).abs().mean())

    assert steepness(100.0) < 0.9 * steepness(1e-6)


def test_every_file_it_names_is_there():
    for name in re.findall(r"`((?:figures|notebooks|tests)/[\w./-]+|[\w-]+\.(?:lock|yml|cff|toml))`", README):
        assert (records.TOP / name).exists(), name


def test_its_accuracies_are_the_recorded_ones():
    rows = {int(line.split("|")[1]): line for line in README.splitlines() if re.match(r"\| \d+ \|", line)}
    frame = figures.data("lodc-same-memory")
    for one in summary(frame, ["ipc", "method"]).itertuples():
        assert f"{one.mean:.1f} ± {one.sd:.1f}" in rows[one.ipc], (one.ipc, one.method)
        assert f"n = {one.n} seeds" in README
    for one in paired(frame, [("LoDM", "DM")], ["ipc"]).itertuples():
        assert f"{one.mean:+.1f} ± {one.half:.1f}".replace("-", "−") in rows[one.ipc]


def row(*words: str) -> str:
    """The one table row of the README that holds all of `words`."""
    found = [line for line in README.splitlines() if line.startswith("|") and all(word in line for word in words)]
    assert len(found) == 1, (words, found)
    return found[0]


def test_its_base_methods_are_the_recorded_ones():
    frame = figures.data("compare-methods")
    for one in summary(frame, ["dataset", "ipc", "method"]).itertuples():
        assert f"{one.mean:.1f} ± {one.sd:.1f}" in row(f"| {NAMES[one.dataset]}, {one.ipc} image", "a class |"), one
    for one in frame.dropna(subset="published").itertuples():
        assert f"({one.published})" in row(f"| {NAMES[one.dataset]}, {one.ipc} image", "a class |"), one


def test_its_hosts_are_the_recorded_ones():
    frame = figures.data("lodc-hosts")
    for one in summary(frame, ["dataset", "ipc", "method"]).itertuples():
        cell, text = f", {NAMES[one.dataset]}, {one.ipc} |", f"{one.mean:.1f} ± {one.sd:.1f}"
        host = one.method.removeprefix("Lo")
        if host in ("DC", "DSA", "DM", "MTT"):
            assert text in row(f"| {host}{cell}"), one
        elif host == "SVD":
            assert all(text in line for line in README.splitlines() if cell in line and line.startswith(("| D", "| MTT,"))), one
    pairs = [(f"Lo{host}", host) for host in ("DC", "DSA", "DM", "MTT")]
    for one in paired(frame, pairs, ["dataset", "ipc"]).itertuples():
        host = one.difference.split(" - ")[1]
        assert f"{one.mean:+.1f} ± {one.half:.1f}".replace("-", "−") in row(f"| {host}, {NAMES[one.dataset]}, {one.ipc} |"), one


def test_its_variants_are_the_recorded_ones():
    means = figures.data("lodc-variants").groupby("variant").accuracy.mean()
    svd, adaptive, balanced, plain, shared = means[["LoDM from SVD", "adaptive", "balanced", "LoDM", "shared bases"]]
    assert f"a start from SVD reaches {svd:.1f} %, ranks chosen\nby image {adaptive:.1f}, balanced factors {balanced:.1f}" in README
    assert f"beside {plain:.1f} from noise" in README
    assert f"bases shared within a class come to {shared:.1f}" in README
    bits = figures.data("lodc-bits").query("variant == 'LoDM'").groupby(["stored", "stored_bits"]).accuracy.mean()
    equal = bits["float32"].index.min()
    assert f"{bits['float16', equal]:.1f} % where float32 reaches {bits['float32', equal]:.1f}" in README


def test_its_continual_learning_is_the_recorded_one():
    columns, apart = {}, {}
    for tasks in (5, 10):
        frame = figures.data(f"continual-{tasks}")
        hosts = [host for host in ("DM", "DSA", "DC") if f"Lo{host}" in set(frame.method)]
        for one in summary(frame[frame.classes == frame.classes.max()], ["dataset", "method"]).itertuples():
            columns.setdefault(one.method, []).append(f"{one.mean:.1f} ± {one.sd:.1f}")
        for one in paired(frame, [(f"Lo{host}", host) for host in hosts], ["dataset"]).itertuples():
            apart.setdefault((tasks, one.difference), []).append(f"{one.mean:.1f} ± {one.half:.1f}")
    for method, cells in columns.items():
        assert f"| {method} | {' | '.join(cells + ['-'] * (4 - len(cells)))} |" in README
    (of_dm, of_dsa, of_dc), of_ten = [[" and ".join(gains) for (many, _), gains in apart.items() if many == tasks] for tasks in (5, 10)]
    assert f"LoDM is {of_dm} points ahead of DM, LoDSA {of_dsa} of DSA, LoDC {of_dc} of DC; over ten steps\nLoDM {of_ten[0]}." in README


def test_its_term_is_the_recorded_one():
    frame, place = figures.data("mim-gain"), ["method", "dataset", "ipc"]
    for one in summary(frame.query("arm == 'base'"), place).itertuples():
        assert f"| {one.mean:.1f} ± {one.sd:.1f} |" in row(f"| {one.method} | {NAMES[one.dataset]}, {one.ipc} |")
    for one in paired(frame, [("+ MIM", "base"), ("more steps", "base")], place, arm="arm").itertuples():
        line = row(f"| {one.method} | {NAMES[one.dataset]}, {one.ipc} |").replace("*", "")
        assert f"{one.mean:+.1f} ± {one.half:.1f}".replace("-", "−") in line, one
    critics = figures.data("mim-negatives").groupby("arm").accuracy.mean().drop("method alone")
    pull = critics.pop("class means alone")
    assert f"alone come to {pull:.1f} %, and every critic that pushes away to {critics.min():.1f} or more" in README
    spread = figures.data("mim-spread").groupby("arm")[["accuracy", "vendi"]].mean()
    assert f"from {spread.accuracy['DM alone']:.1f} to {spread.accuracy['ratio 1']:.1f} %" in README
    score = spread.vendi.round(1)
    assert f"score {score['ratio 10']} after {score['DM alone']}; random real images {score['random real']})" in README
    alike = figures.data("mim-class-correlation").query("row != column").groupby("arm").correlation.mean()
    assert f"{alike['DM + MIM']:.2f} with, {alike['DM']:.2f} without" in README


def test_its_labels_are_the_recorded_ones():
    for one in summary(figures.data("compare-relabel"), ["dataset", "ipc", "images", "labels"]).itertuples():
        assert f"{one.mean:.1f} ± {one.sd:.1f}" in row(f"| {one.images}, {one.labels} labels |"), one


def test_its_adjustment_is_the_recorded_one():
    frame = figures.data("dwa-factors")
    init, r_var, adjusted = ([f"{one.mean:+.1f} ± {one.half:.1f}".replace("-", "−")
                              for one in paired(frame, [change], ["dataset", "ipc"], arm=name).itertuples()]
                             for name, change in (("init", ("real", "noise")), ("r_var", (11.0, 1.0)), ("adjusted", (True, False))))
    assert f"worth {init[0]} points on Fashion-MNIST and {init[1]} on CIFAR-10" in README
    assert f"`r_var` {r_var[0]} and\n{r_var[1]}, the adjustment {adjusted[0]} and {adjusted[1]}" in README
    arms = figures.data("dwa-arms").groupby(["ipc", "dataset", "arm"]).accuracy.mean().unstack("arm")
    apart = arms.drop(columns="none").sub(arms["none"], axis=0)
    down = apart.loc[1, "descent"].pop("fashion_mnist")
    assert f"by more than {apart.loc[10].abs().max().max():.1f} points (`dwa-arms`)" in README
    assert f"on Fashion-MNIST: {down:+.1f} ± " in README
    apart.loc[(1, "fashion_mnist"), "descent"] = 0
    assert f"at one image a class by more than {apart.loc[1].abs().max().max():.1f}\n(" in README
    protocols = {"clean": "soft |", "published": "soft, as published |", "hard": "hard |"}
    for one in summary(figures.data("dwa-ipc").query("ipc == 10"), ["dataset", "protocol", "set"]).itertuples():
        assert f"{one.mean:.1f} ± {one.sd:.1f}" in row(f"| {NAMES[one.dataset]}, {protocols[one.protocol]}"), one


def test_its_theory_is_the_recorded_one():
    found = figures.data("theory-memory").groupby(["arm", "stored"]).error.agg(["mean", "std"])
    named = {"teacher": "all samples", "same": "the teacher's initialisation", "fresh": "unseen", "undistilled": "not distilled",
             "real": "real samples", "network": "itself", "factored": "rank 3"}
    shown = [line for line in README.splitlines() if re.search(r"\| \d\.\d{4} ± \d\.\d{4} \|", line)]
    assert len(shown) == 8
    for (arm, stored), one in found.iterrows():
        lines = [line for line in shown if f"| {stored:,} |" in line and named.get(arm, "?") in line]
        assert all(f"{one['mean']:.4f} ± {one['std']:.4f}" in line for line in lines), arm
        shown = [line for line in shown if line not in lines]
    assert not shown


def test_its_ratios_are_the_recorded_ones():
    frame = figures.data("kernels-speed")
    shown = frame[(frame["rank"] > 0) & (frame.step.notna() | frame.name.str.startswith("recover"))]
    assert len(shown) > 50
    for one in shown.itertuples():
        size = (one.step.upper(), int(one.batch_real), int(one.ipc)) if isinstance(one.step, str) else (
            "recover, weights adjusted" if "adjusted" in one.name else "recover", "-", one.name.split()[-1])
        assert f"| {one.ratio:.2f} |" in row("| " + " | ".join(map(str, size)) + " |"), (one.name, one.provider)


def test_no_placeholder_is_left():
    assert not re.search(r"[A-Z]+_TIME|[A-Z]+_TABLE|^RESULTS$|TODO", README, re.M)
