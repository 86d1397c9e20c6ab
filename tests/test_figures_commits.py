"""The commits that records name, in small repositories made here, and those that figures/commits.yaml speaks of."""

import os
import shutil
import subprocess

import pytest
import yaml

from ddcore import figures
from ddcore.figures import commits
from ddcore.files import records

needs_git = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
pytestmark = needs_git
NOBODY = {"GIT_AUTHOR_NAME": "a", "GIT_AUTHOR_EMAIL": "a", "GIT_COMMITTER_NAME": "a", "GIT_COMMITTER_EMAIL": "a",
          "GIT_CONFIG_GLOBAL": os.devnull}  # fmt: skip


def git(top, *arguments: str) -> str:
    run = subprocess.run(
        ["git", "-C", str(top), *arguments],
        capture_output=True,
        encoding="utf-8",
        env=dict(os.environ) | NOBODY,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


def commit(top, **files: str) -> str:
    """A commit of these files of the package, by name without '.py'."""
    for name, content in files.items():
        (top / "ddcore" / f"{name}.py").write_text(content, encoding="utf-8")
    git(top, "add", "-A")
    git(top, "commit", "-q", "--allow-empty", "-m", "x")
    return git(top, "rev-parse", "HEAD")


@pytest.fixture
def top(tmp_path):
    """A repository with a package of two modules, one of a folder."""
    found = tmp_path / "top"
    (found / "ddcore" / "methods").mkdir(parents=True)
    (found / "figures").mkdir()
    (found / "ddcore" / "methods" / "dc.py").write_text("z\n", encoding="utf-8")
    git(found, "init", "-q")
    commit(found, a="one\n")
    return found


def made(commit, sha256, dirty=False) -> dict:
    return {"commit": commit, "code_sha256": sha256, "dirty": dirty}


def on_disk(top, monkeypatch) -> str:
    """What a record made now would state."""
    monkeypatch.setattr(records, "PACKAGE", top / "ddcore")
    return records.code_sha256()


# the package of a commit


def test_the_package_of_a_commit_is_what_a_record_made_at_it_states(top, monkeypatch):
    first, before = git(top, "rev-parse", "HEAD"), on_disk(top, monkeypatch)
    second = commit(top, a="two\r\n", methods_b="b\n", Z="é\0x")
    assert (
        on_disk(top, monkeypatch)
        == commits.package_sha256(top, second)
        != before
        == commits.package_sha256(top, first)
    )


def test_one_file_may_be_that_of_another_commit(top, monkeypatch):
    first = git(top, "rev-parse", "HEAD")
    second = commit(top, a="two\n", b="b\n")
    mixed = commits.package_sha256(top, second, "a.py", first)
    commit(top, a="one\n")
    assert mixed == on_disk(top, monkeypatch) != commits.package_sha256(top, second)


# which commits every clone has


def test_a_commit_that_was_amended_is_not_in_the_history(top):
    lost = commit(top, a="two\n")
    git(top, "commit", "-q", "--amend", "-m", "y")
    assert git(top, "cat-file", "-t", lost) == "commit", "the object is still there, here"
    assert lost not in commits.history(top)
    assert git(top, "rev-parse", "HEAD") in commits.history(top)
    assert len(commits.history(top)) == 2


def test_a_worktree_has_the_history_of_its_own_branch(top, tmp_path):
    git(top, "worktree", "add", "-q", "-b", "other", str(tmp_path / "other"))
    there = commit(tmp_path / "other", a="there\n")
    assert there in commits.history(tmp_path / "other")
    assert there not in commits.history(top)


def test_a_variable_of_git_does_not_lead_to_another_repository(top, tmp_path, monkeypatch):
    git(tmp_path, "init", "-q", "elsewhere")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere" / ".git"))
    assert len(commits.history(top)) == 1


def a_folder(top, tmp_path):
    shutil.rmtree(top / ".git")
    git(
        tmp_path, "init", "-q"
    )  # a clone around the folder, such as one that has an environment in it, is not its clone
    (tmp_path / "ddcore").mkdir()
    commit(tmp_path, a="x")
    return top


def shallow(top, tmp_path):
    commit(top, a="two\n")
    git(tmp_path, "clone", "-q", "--depth", "1", f"file://{top}", "shallow")
    return tmp_path / "shallow"


def partial(top, tmp_path):
    git(top, "config", "uploadpack.allowFilter", "true")
    git(tmp_path, "clone", "-q", "--filter=blob:none", f"file://{top}", "partial")
    return tmp_path / "partial"


def empty(top, tmp_path):
    git(tmp_path, "init", "-q", "empty")
    return tmp_path / "empty"


@pytest.mark.parametrize(("make", "word"), [(a_folder, "no clone"), (shallow, "git fetch --unshallow"), (partial, "partial"),
                                            (empty, "git can't read")])  # fmt: skip
def test_why_commits_can_not_be_looked_up(top, tmp_path, make, word):
    with pytest.raises(commits.NoHistory, match=word):
        commits.history(make(top, tmp_path))


def test_without_git(top, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(commits.NoHistory, match="not installed"):
        commits.history(top)
    assert commits.here(top) == {}


# what is wrong with the commits of records


def test_doubts(top):
    first = git(top, "rev-parse", "HEAD")
    second = commit(top, a="two\n")
    of_first, of_second, lost = (
        commits.package_sha256(top, first),
        commits.package_sha256(top, second),
        "c" * 40,
    )
    ours, known = (
        commits.history(top),
        {of_second[:16]: commits.Elsewhere((lost, first), second, "it is there")},
    )

    def doubts(one, known=known):
        return commits.doubts([one, one], known, ours, top)

    for one in (made(first, of_first), made(second, of_second), made(lost, of_second), made(first, of_second), made(None, of_first),
                made(first, "d" * 64, dirty=True), made(first, "d" * 64, dirty=None)):  # fmt: skip
        assert doubts(one) == [], one
    for one, words in ((made(lost, of_first), (lost, "no clone has")), (made(lost, of_first, dirty=True), (lost, "no clone has")),
                       (made(second, of_first), (second, of_second[:16], of_first[:16])),
                       (made(first, "d" * 64), (first, "d" * 16))):  # fmt: skip
        (found,) = doubts(one)
        assert all(word in found for word in words), found
    for place in (
        commits.Elsewhere((lost,), first, ""),
        commits.Elsewhere((lost,), "e" * 40, ""),
        commits.Elsewhere((lost,), second, "", "a.py", first),
        commits.Elsewhere((lost,), second, "", "a.py", "e" * 40),
    ):
        (found,) = doubts(made(lost, of_second), {of_second[:16]: place})
        assert "commits.yaml" in found


def test_remarks_are_of_the_records_that_need_one():
    known = {"a" * 16: commits.Elsewhere(("c" * 40, "d" * 40), "e" * 40, "its code is elsewhere")}
    (line,) = commits.remarks(
        [made("c" * 40, "a" * 64), made("d" * 40, "a" * 64), made("c" * 40, "a" * 64)], known
    )
    assert line == f"records that name commit {'c' * 40} or {'d' * 40}: its code is elsewhere"
    assert (
        commits.remarks([made("e" * 40, "a" * 64), made("c" * 40, "b" * 64), made(None, "a" * 64)], known)
        == []
    )


@pytest.mark.parametrize(
    ("changed", "word"),
    [({"pakage": "x"}, "'pakage'"), ({"commits": "x"}, "commits='x'"), ({"known": None}, "known")],
)
def test_a_bad_statement_is_refused(tmp_path, refuses, changed, word):
    path = tmp_path / "commits.yaml"
    path.write_text(
        yaml.safe_dump({"a" * 16: {"commits": ["c"], "package": "e", "known": "k"} | changed}),
        encoding="utf-8",
    )
    with refuses(f"{'a' * 16} in commits.yaml", word):
        commits.elsewhere(path)


# the figures of the repository


def test_the_eight_figures_whose_commit_no_clone_has_say_where_their_code_is():
    lost = "6895d2b4f1c2a7836fd1c96cabc2b6e9492bf4e7"
    keys = [key for key in figures.entries() if lost in (figures.load(key) or {"commits": []})["commits"]]
    assert len(keys) == 8
    for key in keys:
        (line,) = (line for line in figures.remarks(key) if lost in line.split(":")[0])
        assert "6b635b54813d468a65082db46195c2fc7c549fbe" in line
    assert figures.remarks("lodc-spectra") == []


def test_what_commits_yaml_states_is_so():
    try:
        ours = commits.history()
    except commits.NoHistory as why:
        pytest.skip(str(why))
    for key, place in commits.elsewhere(figures.FOLDER / "commits.yaml").items():
        assert {place.package, place.file_at or place.package} <= ours
        assert commits.package_sha256(records.TOP, place.package, place.file, place.file_at).startswith(key)
        assert place.package in place.known
        assert not [
            one
            for one in place.commits
            if one in ours and commits.package_sha256(records.TOP, one).startswith(key)
        ]


# what a citation says of the clone


def test_the_commit_of_a_citation_and_whether_anything_has_changed(top):
    head = git(top, "rev-parse", "HEAD")
    assert commits.here(top) == {"commit": head}
    (top / "figures" / "new.png").write_text("not tracked", encoding="utf-8")
    assert commits.here(top) == {"commit": head}
    (top / "ddcore" / "a.py").write_text("changed\n", encoding="utf-8")
    assert commits.here(top) == {"commit": f"{head} with local changes"}


@pytest.mark.parametrize(("origin", "url"), [
    ("https://example.org/a/ddcore.git", "https://example.org/a/ddcore.git"), ("http://example.org:8080/x", "http://example.org:8080/x"),
    ("https://me:secret@example.org/a", "https://example.org/a"), ("https://token@example.org/a?b=c", "https://example.org/a"),
    ("/a/folder", None), ("file:///a/folder", None), ("git@example.org:a/ddcore.git", None), ("https:///a", None), ("https://[", None),
])  # fmt: skip
def test_the_address_of_a_citation_is_one_of_the_web_without_secrets(top, origin, url):
    git(top, "config", "remote.origin.url", origin)
    assert commits.here(top).get("url") == url


def test_a_folder_without_git_has_neither(tmp_path):
    assert commits.here(tmp_path) == {}
