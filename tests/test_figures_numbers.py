"""Numbers to be cited: what is averaged, how a key is made, that files follow the figures, and that LaTeX takes them."""

import re
import shutil
import statistics
import subprocess

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ddcore import cli, figures
from ddcore.figures import agreement, numbers
from ddcore.figures.numbers import Number, Reported
from ddcore.files import records

PDFLATEX = shutil.which("pdflatex")
FOUND = numbers.numbers()


def frame(**columns) -> pd.DataFrame:
    """Two cells of three seeds."""
    rows = [{"ipc": 1, "method": method, "seed": seed, "accuracy": 50.0 + seed * seed + ahead}
            for method, ahead in (("DM", 0.0), ("LoDM", 2.5)) for seed in range(3)]  # fmt: skip
    return pd.DataFrame(rows).assign(**columns)


OF = Reported(by=("ipc", "method"), differ="method", pairs=(("LoDM", "DM"),))


def test_a_number_is_the_mean_over_its_seeds_with_sd_and_n():
    dm, lodm, apart = numbers.numbers_of("a", frame(), OF)
    values = [50.0, 51.0, 54.0]
    assert (dm.key, dm.kind, dm.n) == ("a/ipc-1/DM/accuracy", "mean", 3)
    assert (dm.mean, dm.spread) == pytest.approx((statistics.mean(values), statistics.stdev(values)))
    assert lodm.mean == pytest.approx(dm.mean + 2.5)
    assert (apart.key, apart.kind, apart.n) == ("a/ipc-1/LoDM-minus-DM/accuracy", "difference", 3)
    assert (apart.mean, apart.spread) == pytest.approx((2.5, 0.0), abs=1e-9)


def test_one_seed_is_no_mean():
    assert [one.n for one in numbers.numbers_of("a", frame().query("seed > 0"), OF)] == [2, 2, 2]
    assert list(numbers.numbers_of("a", frame().query("seed == 0"), OF)) == []


@pytest.mark.parametrize(
    ("changed", "what", "words"),
    [
        ({}, Reported(by=("method", "ipcs")), ("ipcs", "ipc, method")),
        ({}, Reported(by=("ipc",)), ("seed 0", "twice", "ipc-1")),
        ({}, Reported(by=("ipc", "method"), differ="method", pairs=(("LoDM", "DC"),)), ("DC", "method")),
        (
            {"method": ["a b"] * 3 + ["a+b"] * 3},
            Reported(by=("ipc", "method")),
            ("'a b' and 'a+b'", "method"),
        ),
        (
            {"seed": range(6), "method": ["a b"] * 3 + ["a+b"] * 3},
            Reported(by=("ipc", "method")),
            ("'a b' and 'a+b'", "method"),
        ),
        (
            {"one": ["a"] * 3 + [None] * 3, "two": [None] * 3 + ["a"] * 3},
            Reported(by=("one", "two")),
            ("two of its cells", "a/a/accuracy"),
        ),
    ],
    ids=[
        "no such column",
        "too few columns",
        "no such arm",
        "one key for two",
        "one key for two of other seeds",
        "one key for two columns",
    ],
)
def test_what_would_be_a_wrong_number_is_refused(refuses, changed, what, words):
    with refuses("figure a", *words):
        list(numbers.numbers_of("a", frame(**changed), what))


@given(
    st.one_of(
        st.floats(allow_nan=False, allow_infinity=False), st.integers(), st.booleans(), st.text(min_size=1)
    )
)
def test_a_slug_is_letters_digits_dots_and_hyphens(value):
    assert re.fullmatch(r"[A-Za-z0-9.]*(-+[A-Za-z0-9.]+)*", numbers.slug(value))


@pytest.mark.parametrize(("value", "made"), [("fashion_mnist", "fashion-mnist"), ("DWA, Gaussian", "DWA-Gaussian"), (64.0, "64"),
                                             (-1, "minus1"), (0.015, "0.015")])  # fmt: skip
def test_a_slug_reads_as_its_value(value, made):
    assert numbers.slug(value) == made


@pytest.mark.parametrize(("quantity", "kind", "mean", "spread", "printed"), [
    ("accuracy", "mean", 75.4267, 0.1026, ("75.4", "0.1")), ("accuracy", "difference", 4.27, 2.2, ("+4.3", "2.2")),
    ("accuracy", "difference", -0.02, 0.4, ("+0.0", "0.4")), ("error", "mean", 0.0106632, 0.00123, ("0.0107", "0.0012")),
    ("condition", "mean", 12345.6, 678.9, ("12350", "680")), ("value", "mean", 1.0, 0.0, ("1.000", "0.000")),
    ("value", "mean", 0.0, 0.0, ("0.0", "0.0"))])  # fmt: skip
def test_what_is_printed_ends_at_the_second_digit_of_the_spread(quantity, kind, mean, spread, printed):
    assert Number("k", "f", quantity, kind, mean, spread, 3).texts == printed


# the committed files


def test_no_key_is_there_twice_and_every_figure_is_spoken_of():
    assert len({one.key for one in FOUND}) == len(FOUND) > 500
    assert all(re.fullmatch(r"[A-Za-z0-9.-]+(/[A-Za-z0-9.-]+)+", one.key) for one in FOUND)
    stated = numbers.reported()
    assert set(stated) == set(figures.entries())
    assert {one.figure for one in FOUND} == {key for key, what in stated.items() if not what.none}
    assert all(bool(what.none) != bool(what.by) for what in stated.values())


def test_the_committed_files_are_those_of_the_figures():
    assert numbers.stale() == []
    assert agreement.departed() == []


def test_the_texts_print_the_numbers_that_can_be_cited():
    """The tables of `lodc-hosts` in RESULTS.md; test_results has the others, from the same functions."""
    text = (records.TOP / "RESULTS.md").read_text(encoding="utf-8").replace("−", "-")
    hosts = ("DC", "DSA", "DM", "MTT")
    arms = {*hosts, "SVD", *(f"Lo{host}" for host in hosts), *(f"Lo{host}-minus-{host}" for host in hosts)}
    printed = [
        " ± ".join(one.texts)
        for one in FOUND
        if one.figure == "lodc-hosts" and one.key.split("/")[-2] in arms
    ]
    assert len(printed) == 4 * len(arms)
    assert not [one for one in printed if f"| {one} |" not in text.replace("*", "")]


def test_the_readme_shows_numbers_as_they_are():
    text = (figures.FOLDER / "README.md").read_text(encoding="utf-8")
    shown = re.findall(r"\\ddNumber\{(.+?)\} +% (.+)", text)
    known = {one.key: " ± ".join(one.texts) for one in FOUND}
    assert shown
    assert all(known[key] == printed for key, printed in shown)


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """figures/ of one figure, lodc-rank, with its records, to be changed."""
    for path in (
        *figures.FOLDER.glob("lodc-rank.*"),
        figures.FOLDER / "registry.yaml",
        figures.FOLDER / "numbers.yaml",
    ):
        shutil.copy(path, tmp_path)
    (tmp_path / "records").mkdir()
    for name in figures.load("lodc-rank")["wasDerivedFrom"]:
        shutil.copy(figures.FOLDER / "records" / f"{name}.json", tmp_path / "records")
    numbers.write(tmp_path)
    return tmp_path


def test_a_changed_record_is_seen_and_followed_to_the_number(copied):
    assert (agreement.departed(copied), numbers.stale(copied)) == ([], [])
    before = {one.key: one.mean for one in numbers.numbers(copied)}
    frame = figures.data("lodc-rank", copied)
    record = records.read(copied / "records" / f"{frame.record[0]}.json")
    record.result["accuracy"] += 3.0
    record.save(copied / "records")
    (departure,) = agreement.departed(copied)
    assert (departure.row, departure.column, departure.record) == (0, "accuracy", record.hash)
    assert f"{record.result['accuracy']:.6g}" in str(departure)
    assert agreement.follow(copied) == ["lodc-rank"]
    assert agreement.departed(copied) == []
    assert [line.split(":")[0] for line in numbers.stale(copied)] == ["numbers.csv", "numbers.tex"]
    assert numbers.write(copied) == ["numbers.csv", "numbers.tex"]
    assert numbers.stale(copied) == []
    after = {one.key: one.mean for one in numbers.numbers(copied)}
    assert {key: round(after[key] - mean, 6) for key, mean in before.items() if after[key] != mean} == {
        "lodc-rank/ipc-1/rank-1/accuracy": 1.0
    }


@pytest.mark.parametrize("name", numbers.GENERATED)
def test_check_names_a_file_that_was_changed_by_hand(copied, name):
    (copied / name).write_bytes((copied / name).read_bytes() + b"\n")
    (line,) = numbers.stale(copied)
    assert line.startswith(f"{name}: ")


def test_the_command_says_what_is_stale(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["ddcore", "figures", "check"])
    monkeypatch.setattr(figures, "check", list)
    monkeypatch.setattr(agreement, "departed", list)
    monkeypatch.setattr(numbers, "stale", lambda: ["numbers.tex: is not what"])
    with pytest.raises(SystemExit) as left:
        cli.main()
    assert left.value.code == 1
    assert "numbers.tex: is not what" in capsys.readouterr().err


# LaTeX


def compiled(folder, body: str) -> subprocess.CompletedProcess:
    """The document `body` with both files of macros, through pdflatex twice, at its first error."""
    for name in ("numbers.tex", "figures.tex"):
        shutil.copy(figures.FOLDER / name, folder)
    preamble = (
        r"\documentclass[10pt]{article}\usepackage{graphicx}\extrafloats{200}\input{numbers}\input{figures}"
        rf"\renewcommand\ddFolder{{{figures.FOLDER}}}\begin{{document}}"
    )
    (folder / "paper.tex").write_text(preamble + body + "\\end{document}\n", encoding="utf-8")
    command = [PDFLATEX, "-halt-on-error", "-interaction=nonstopmode", "paper.tex"]
    subprocess.run(command, cwd=folder, capture_output=True)
    return subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", errors="replace")


needs_latex = pytest.mark.skipif(
    PDFLATEX is None, reason="pdflatex is not installed (Debian: apt install texlive-latex-base)"
)


@needs_latex
def test_latex_takes_every_macro(tmp_path):
    cells = "\n\n".join(
        rf"\texttt{{{one.key}}} \ddNumber{{{one.key}}}, $\ddNumber{{{one.key}}}$, n \ddN{{{one.key}}}"
        for one in FOUND
    )
    shown = "\n".join(rf"\ddFigure{{{key}}}\clearpage" for key in figures.entries() if figures.load(key))
    one = FOUND[0]
    kept = (
        rf"\section{{\ddNumber{{{one.key}}}}}\ifdim\ddMean{{{one.key}}}pt>\ddSpread{{{one.key}}}pt above\fi"
    )
    done = compiled(tmp_path, rf"\tableofcontents\listoffigures {kept} {cells} {shown}")
    assert done.returncode == 0, done.stdout[-2000:]
    assert (tmp_path / "paper.pdf").is_file()
    log = (tmp_path / "paper.log").read_text(encoding="utf-8", errors="replace")
    assert "Missing character" not in log
    assert not re.search(r"Reference .* undefined", log)


@needs_latex
@pytest.mark.parametrize("body", [r"\ddNumber{no/such}", r"\ddMean{no/such}", r"\ddFigure{no-such}"])
def test_latex_stops_at_a_key_that_is_not_there(tmp_path, body):
    done = compiled(tmp_path, f"a {body}")
    assert done.returncode != 0
    assert "ddcore: there is no" in done.stdout
