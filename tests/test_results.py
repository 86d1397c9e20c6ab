"""The numbers of RESULTS.md are the recorded ones."""

import math
import re

import pandas as pd

from ddcore import figures
from ddcore.figures.drawings.marks import NAMES
from ddcore.figures.means import paired, summary
from ddcore.files import records

RESULTS = (records.TOP / "RESULTS.md").read_text(encoding="utf-8")


def row(*words: str) -> str:
    """The one table row that holds all of `words`."""
    found = [
        line for line in RESULTS.splitlines() if line.startswith("|") and all(word in line for word in words)
    ]
    assert len(found) == 1, (words, found)
    return found[0]


def spread(group) -> str:
    """'mean ± sd' of a row of `summary`."""
    return f"{group.mean:.1f} ± {group.sd:.1f}"


def signed(value: float) -> str:
    return f"{value:+.1f}".replace("-", "−")


def interval(group) -> str:
    """'difference ± half its 95 % CI' of a row of `paired`."""
    return f"{signed(group.mean)} ± {group.half:.1f}"


def apart(frame: pd.DataFrame, one: str, other: str, **keywords) -> str:
    """The same without its sign, of two arms of one cell."""
    (found,) = paired(frame, [(one, other)], ["dataset"], **keywords).itertuples()
    return f"{abs(found.mean):.1f} ± {found.half:.1f}"


def test_every_figure_named_is_one():
    named = re.findall(r"\[`([\w-]+)`\]\(figures/", RESULTS)
    assert len(set(named)) > 25
    assert set(named) <= set(figures.entries())


def test_dm_beside_its_baselines():
    rows = {int(line.split("|")[1]): line for line in RESULTS.splitlines() if re.match(r"\| \d+ \|", line)}
    frame = figures.data("lodc-same-memory")
    for group in summary(frame, ["ipc", "method"]).itertuples():
        assert spread(group) in rows[group.ipc], group
        assert f"n = {group.n} seeds" in RESULTS
    for group in paired(frame, [("LoDM", "DM")], ["ipc"]).itertuples():
        assert interval(group) in rows[group.ipc], group


def test_low_rank_factors_under_the_base_methods():
    frame = figures.data("lodc-hosts")
    for group in summary(frame, ["dataset", "ipc", "method"]).itertuples():
        cell, host = f", {NAMES[group.dataset]}, {group.ipc} |", group.method.removeprefix("Lo")
        if host in ("DC", "DSA", "DM", "MTT"):
            assert spread(group) in row(f"| {host}{cell}"), group
        elif host == "SVD":
            lines = [
                line for line in RESULTS.splitlines() if cell in line and line.startswith(("| D", "| MTT,"))
            ]
            assert len(lines) == 4
            assert all(spread(group) in line for line in lines), group
    pairs = [(f"Lo{host}", host) for host in ("DC", "DSA", "DM", "MTT")]
    for group in paired(frame, pairs, ["dataset", "ipc"]).itertuples():
        host = group.difference.split(" - ")[1]
        assert interval(group) in row(f"| {host}, {NAMES[group.dataset]}, {group.ipc} |"), group


def test_low_rank_factors_beside_the_svd_baseline():
    frame = figures.data("lodc-hosts").query("dataset == 'cifar10' and ipc == 10")
    gains = {method: apart(frame, method, "SVD") for method in ("LoDC", "LoDSA", "LoDM", "MTT", "LoMTT")}
    assert f"LoDC has {gains['LoDC']} points more, LoDSA {gains['LoDSA']}, LoDM {gains['LoDM']}." in RESULTS
    assert f"(pixels +{gains['MTT']}, low-rank +{gains['LoMTT']})" in RESULTS


def test_initialization_by_svd():
    for method, frame in figures.data("lodc-start").groupby("method"):
        noise, pixels = (apart(frame, "from SVD", other, arm="arm") for other in ("from noise", "pixels"))
        (level,) = (
            spread(group) for group in summary(frame, ["arm"]).itertuples() if group.arm == "from SVD"
        )
        side = "more" if method == "DM" else "less"
        assert (
            f"Lo{method} reaches {level} %: {noise} more than from noise, and {pixels} {side} than pixels."
            in RESULTS
        )


def test_other_ways_to_spend_the_storage_budget():
    frame = figures.data("lodc-variants")
    means = frame.groupby("variant").accuracy.mean()
    svd, adaptive, balanced, plain, shared = means[
        ["LoDM from SVD", "adaptive", "balanced", "LoDM", "shared bases"]
    ]
    assert (
        f"initialization from SVD reaches {svd:.1f} %, ranks chosen per image {adaptive:.1f}, balanced factors {balanced:.1f}; "
        f"initialization from noise has {plain:.1f}."
    ) in RESULTS
    assert f"bases shared within a class come to {shared:.1f}" in RESULTS
    assert f"(+{apart(frame, 'LoDM from SVD', 'LoDM', arm='variant')}, one of five" in RESULTS
    bits = (
        figures.data("lodc-bits")
        .query("variant == 'LoDM'")
        .groupby(["stored", "stored_bits"])
        .accuracy.mean()
    )
    equal = bits["float32"].index.min()
    assert f"{bits['float16', equal]:.1f} % where float32 reaches {bits['float32', equal]:.1f}" in RESULTS


def test_continual_learning():
    columns, gains = {}, {}
    for tasks in (5, 10):
        frame = figures.data(f"continual-{tasks}")
        hosts = [host for host in ("DM", "DSA", "DC") if f"Lo{host}" in set(frame.method)]
        for group in summary(frame[frame.classes == frame.classes.max()], ["dataset", "method"]).itertuples():
            columns.setdefault(group.method, []).append(spread(group))
        for group in paired(frame, [(f"Lo{host}", host) for host in hosts], ["dataset"]).itertuples():
            gains.setdefault((tasks, group.difference), []).append(f"{group.mean:.1f} ± {group.half:.1f}")
    for method, cells in columns.items():
        assert f"| {method} | {' | '.join(cells + ['-'] * (4 - len(cells)))} |" in RESULTS
    (of_dm, of_dsa, of_dc), of_ten = [
        [" and ".join(gain) for (many, _), gain in gains.items() if many == tasks] for tasks in (5, 10)
    ]
    assert (
        f"LoDM is {of_dm} points ahead of DM, LoDSA {of_dsa} ahead of DSA, LoDC {of_dc} ahead of DC."
        in RESULTS
    )
    assert f"Ten steps: LoDM is {of_ten[0]} points ahead of DM." in RESULTS


def test_the_base_methods():
    frame = figures.data("compare-methods")
    table = RESULTS.split("| set | random | herding")[1].split("\n\n")[0]
    lines = {line.split(" | ")[0].removeprefix("| "): line for line in table.splitlines()[2:]}
    for group in summary(frame, ["dataset", "ipc", "method"]).itertuples():
        assert spread(group) in lines[f"{NAMES[group.dataset]}, IPC = {group.ipc}"], group
    for cell in frame.dropna(subset="published").itertuples():
        assert f"({cell.published})" in lines[f"{NAMES[cell.dataset]}, IPC = {cell.ipc}"], cell


def test_images_and_labels_of_sre2l():
    for group in summary(
        figures.data("compare-relabel"), ["dataset", "ipc", "images", "labels"]
    ).itertuples():
        assert spread(group) in row(f"| {group.images}, {group.labels} labels |"), group


def test_the_contrastive_term():
    frame, place = figures.data("mim-gain"), ["method", "dataset", "ipc"]
    for group in summary(frame.query("arm == 'base'"), place).itertuples():
        assert f"| {spread(group)} |" in row(f"| {group.method} | {NAMES[group.dataset]}, {group.ipc} |")
    for group in paired(frame, [("+ MIM", "base"), ("more steps", "base")], place, arm="arm").itertuples():
        line = row(f"| {group.method} | {NAMES[group.dataset]}, {group.ipc} |").replace("*", "")
        assert interval(group) in line, group
    gains = (
        paired(frame, [("+ MIM", "base")], place, arm="arm")
        .query("dataset == 'cifar10' and ipc == 1")
        .set_index("method")["mean"]
    )
    assert (
        f"under DM ({signed(gains['DM'])}) and DC ({signed(gains['DC'])}), and in none of the other ten cells"
        in RESULTS
    )
    critics = figures.data("mim-negatives").groupby("arm").accuracy.mean().drop("method alone")
    pull = critics.pop("class means alone")
    assert (
        f"Class means alone reach {pull:.1f} %. Every critic with repulsion reaches {critics.min():.1f} or more"
        in RESULTS
    )
    strong = figures.data("mim-spread").groupby("arm")[["accuracy", "vendi"]].mean()
    assert f"from {strong.accuracy['DM alone']:.1f} to {strong.accuracy['ratio 1']:.1f} %" in RESULTS
    score = strong.vendi.round(1)
    assert (
        f"falls from {score['DM alone']} to {score['ratio 10']} (random real images: {score['random real']})"
        in RESULTS
    )
    alike = figures.data("mim-class-correlation").query("row != column").groupby("arm").correlation.mean()
    assert f"{alike['DM + MIM']:.2f} with, {alike['DM']:.2f} without" in RESULTS


def test_the_theory():
    found = figures.data("theory-memory").groupby(["arm", "stored"]).error.agg(["mean", "std"])
    named = {"teacher": "all samples", "same": "the teacher's initialization", "fresh": "unseen", "undistilled": "not distilled",
             "real": "real samples", "network": "itself", "factored": "rank 3"}  # fmt: skip
    shown = [line for line in RESULTS.splitlines() if re.search(r"\| \d\.\d{4} ± \d\.\d{4} \|", line)]
    assert len(shown) == 8
    for (arm, stored), error in found.iterrows():
        lines = [line for line in shown if f"| {stored:,} |" in line and named.get(arm, "?") in line]
        assert all(f"{error['mean']:.4f} ± {error['std']:.4f}" in line for line in lines), arm
        shown = [line for line in shown if line not in lines]
    assert not shown


def test_the_adjustment():
    frame = figures.data("dwa-factors")
    changes = (("init", ("real", "noise")), ("r_var", (11.0, 1.0)), ("adjusted", (True, False)))
    init, r_var, adjusted = (
        [interval(group) for group in paired(frame, [change], ["dataset", "ipc"], arm=name).itertuples()]
        for name, change in changes
    )
    assert f"worth {init[0]} points on Fashion-MNIST and {init[1]} on CIFAR-10" in RESULTS
    assert (
        f"`r_var` is worth {r_var[0]} and {r_var[1]}, the adjustment {adjusted[0]} and {adjusted[1]}."
        in RESULTS
    )
    plain = [[effect.split(" ")[0] for effect in effects] for effects in (init, adjusted)]
    assert (
        f"real images ({plain[0][0]} points on Fashion-MNIST, {plain[0][1]} on CIFAR-10), "
        f"not to the adjusted weights ({plain[1][0]}, {plain[1][1]})"
    ) in RESULTS
    arms = figures.data("dwa-arms").groupby(["ipc", "dataset", "arm"]).accuracy.mean().unstack("arm")
    moved = arms.drop(columns="none").sub(arms["none"], axis=0)
    down = moved.loc[1, "descent"].pop("fashion_mnist")
    assert (
        f"At IPC = 10 no direction changes the mean accuracy by more than {moved.loc[10].abs().max().max():.1f} points"
        in RESULTS
    )
    assert f"except descent on Fashion-MNIST: {signed(down)} ± " in RESULTS
    moved.loc[(1, "fashion_mnist"), "descent"] = 0
    assert f"At IPC = 1 none changes it by more than {moved.loc[1].abs().max().max():.1f} points" in RESULTS
    protocols = {"clean": "soft |", "published": "soft, as published |", "hard": "hard |"}
    for group in summary(
        figures.data("dwa-ipc").query("ipc == 10"), ["dataset", "protocol", "set"]
    ).itertuples():
        assert spread(group) in row(f"| {NAMES[group.dataset]}, {protocols[group.protocol]}"), group


def test_longer_runs_of_dwa():
    frame = figures.data("dwa-length")
    for group in summary(frame, ["length", "set"]).itertuples():
        assert spread(group) in row(f"| {group.length} |"), group
    behind = [
        interval(group) for group in paired(frame, [("DWA", "random")], ["length"], arm="set").itertuples()
    ]
    assert f"by {behind[0]} points in the shorter runs and by {behind[1]} in the longer ones" in RESULTS
    means = frame.groupby(["length", "set"], sort=False).accuracy.mean().unstack("set", sort=False)
    fall = means.iloc[1] - means.iloc[0]
    assert (fall.drop("random") < -4).all(), "lower by four points and more"
    changes = paired(frame, [tuple(reversed(means.index))], ["set"], arm="length")
    assert len(changes) == 5
    assert (changes["mean"].abs() < changes.half).all(), "the CI of each single change includes zero"
    assert abs(fall["random"]) < 1, "random real images as well as before"


def test_the_speed():
    frame = figures.data("kernels-speed")
    shown = frame[(frame["rank"] > 0) & (frame.step.notna() | frame.name.str.startswith("recover"))]
    assert len(shown) > 100
    for cell in shown.to_dict("records"):
        size = ((cell["step"].upper(), *(int(cell[one]) for one in ("classes", "batch_real", "ipc"))) if isinstance(cell["step"], str) else
                ("recover, weights adjusted" if "adjusted" in cell["name"] else "recover", 10, "-", cell["name"].split()[-1]))  # fmt: skip
        columns = row("| " + " | ".join(map(str, size)) + " |").strip("| ").split(" | ")
        rank = int(cell["rank"])
        assert columns[3 + rank] == f"{cell['ratio']:.2f}", (cell["name"], cell["provider"])
        assert rank == 3 or columns[6 + rank] == f"{cell['memory_ratio']:.1f}", (
            cell["name"],
            cell["provider"],
        )


def test_the_speed_in_words():
    frame = figures.data("kernels-speed")
    steps = frame[frame.step.notna()]
    published, eager, compiled, rounded = (steps[steps["rank"] == rank] for rank in range(4))
    reached = [
        int((found.ratio >= aim).sum()) for found, aim in ((eager, 1.0), (compiled, 1.35), (rounded, 2.4))
    ]
    assert (
        "Of the {} sizes of DM, DC and DSA, {}, {} and {} reach them.".format(len(eager), *reached) in RESULTS
    )
    lowest = (f"{math.floor(100 * found.ratio.min()) / 100:.2f}" for found in (eager, compiled, rounded))
    assert "The slowest are {}, {} and {} times as fast.".format(*lowest) in RESULTS
    medians = rounded.groupby("step").ratio.median()
    assert "{:.2f} for DM, {:.2f} for DC and {:.2f} for DSA".format(*medians[["dm", "dc", "dsa"]]) in RESULTS
    ranges = (
        number
        for found in (eager, compiled)
        for number in (found.memory_ratio.min(), found.memory_ratio.max())
    )
    assert "by {:.1f} to {:.0f} times eager, {:.1f} to {:.0f} times compiled".format(*ranges) in RESULTS
    peaks = eager.pivot_table(index=["step", "batch_real", "ipc"], columns="classes", values="peak_bytes")
    growth, most, theirs = (
        (peaks[100] / peaks[10]).max(),
        peaks.max().max() / 2**30,
        published.peak_bytes.max() / 2**30,
    )
    assert (
        f"up to {growth:.1f} times eager, to {most:.2f} GiB at most, where the published loop takes up to {theirs:.1f} GiB"
        in RESULTS
    )
