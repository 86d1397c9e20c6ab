"""The commits that records name: whether every clone has them, and whether they hold the code that made the record.

A record takes both when its run begins (`ddcore.files.records.code`); older ones took the sha256 when their run first wrote a record,
a commit when they were written themselves. Where HEAD had moved in between, or the commit was rewritten before anyone else had it,
figures/commits.yaml says where the code is, and that is verified too.
"""

import dataclasses
import functools
import hashlib
import os
import subprocess
import urllib.parse
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath

import yaml

from ddcore.files import records
from ddcore.settings import build


class NoHistory(LookupError):
    """Why commits can't be looked up here, in words."""


def _git(top: Path, *arguments: str, given: bytes = b"") -> bytes:
    """What git says of the repository at `top`. Raises NoHistory if it says nothing."""
    try:
        run = subprocess.run(
            ["git", "--no-optional-locks", f"--git-dir={top / '.git'}", *arguments],
            input=given,
            capture_output=True,
            timeout=60,
            env=dict(os.environ) | {"LC_ALL": "C"},
        )
    except OSError as error:
        raise NoHistory("git is not installed") from error
    except subprocess.TimeoutExpired as error:
        raise NoHistory(f"git {arguments[0]} did not answer within a minute") from error
    if run.returncode:
        said = run.stderr.decode(errors="replace").strip().splitlines() or [f"exit code {run.returncode}"]
        raise NoHistory(f"git can't read this repository ({said[0]})")
    return run.stdout


def _blobs(top: Path, commit: str) -> dict[str, str]:
    """The package's files at `commit`: name to blob."""
    listed = _git(top, "ls-tree", "-r", "-z", f"{commit}:{records.PACKAGE.name}").decode()
    return {
        name: about.split()[2] for about, name in (line.split("\t", 1) for line in listed.split("\0") if line)
    }


@functools.cache
def package_sha256(top: Path, commit: str, file: str = "", file_at: str = "") -> str:
    """sha256 of the package at `commit` of the clone at `top`, as `records.code_sha256` takes it; its `file`, if one is named, as it
    is at commit `file_at`."""
    blobs = _blobs(top, commit)
    if file:
        blobs[file] = _blobs(top, file_at)[file]
    names = sorted((name for name in blobs if name.endswith(".py")), key=PurePosixPath)
    answer = _git(top, "cat-file", "--batch", given="".join(f"{blobs[name]}\n" for name in names).encode())
    found = hashlib.sha256()
    for name in names:
        head, answer = answer.split(b"\n", 1)
        size = int(head.split()[2])
        found.update(name.encode() + b"\0" + answer[:size])
        answer = answer[size + 1 :]
    return found.hexdigest()


def history(top: Path = records.TOP) -> frozenset[str]:
    """The commit checked out and all before it, which every clone of it has. Raises NoHistory where there is none, or a part of it."""
    if not (top / ".git").exists():
        raise NoHistory("this is no clone")
    if _git(top, "rev-parse", "--is-shallow-repository").strip() != b"false":
        raise NoHistory("this clone is shallow, git fetch --unshallow brings the rest")
    if b".promisor=true" in _git(top, "config", "--list"):
        raise NoHistory("this clone is partial, it lacks the files of earlier commits")
    return frozenset(_git(top, "rev-list", "HEAD").decode().split())


def here(top: Path = records.TOP) -> dict[str, str]:
    """'commit': the one checked out, and whether its package or figures have changed since; 'url': the address on the web that it was
    cloned from, without names and passwords. What is not known is left out."""
    found = {}
    try:
        found["commit"] = _git(top, "rev-parse", "HEAD").decode().strip()
        if _git(
            top,
            f"--work-tree={top}",
            "status",
            "--porcelain",
            "--untracked-files=no",
            "--",
            records.PACKAGE.name,
            "figures",
        ):
            found["commit"] += " with local changes"
        address = urllib.parse.urlsplit(_git(top, "config", "--get", "remote.origin.url").decode().strip())
    except (NoHistory, ValueError):
        return found
    if address.scheme in ("http", "https") and address.hostname:
        found["url"] = urllib.parse.urlunsplit(
            (address.scheme, address.netloc.rpartition("@")[2], address.path, "", "")
        )
    return found


@dataclasses.dataclass(frozen=True)
class Elsewhere:
    """Where the code of records is whose `commits` do not hold it: at commit `package`, all but its `file`, if one is named, which is
    as at commit `file_at`; `known`: the same in words."""

    commits: tuple[str, ...]
    package: str
    known: str
    file: str = ""
    file_at: str = ""


def elsewhere(path: Path) -> dict[str, Elsewhere]:
    """What figures/commits.yaml states, by the first 16 digits of a package's sha256. Raises BadInput for an unknown or missing name."""
    stated = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {key: build(Elsewhere, value, f"{key} in {path.name}") for key, value in stated.items()}


def _place(commit: str | None, sha256: str, known: Mapping[str, Elsewhere]) -> Elsewhere | None:
    place = known.get(sha256[:16])
    return place if place and commit in place.commits else None


def remarks(provenances: Iterable[Mapping], known: Mapping[str, Elsewhere]) -> list[str]:
    """What is known of those commits of records that do not hold their code, a line each place where it is."""
    named: dict[str, list[str]] = {}
    for commit, sha256 in dict.fromkeys((made["commit"], made["code_sha256"]) for made in provenances):
        if place := _place(commit, sha256, known):
            named.setdefault(place.known, []).append(commit)
    return [f"records that name commit {' or '.join(found)}: {what}" for what, found in named.items()]


def doubts(
    provenances: Iterable[Mapping],
    known: Mapping[str, Elsewhere],
    ours: frozenset[str],
    top: Path = records.TOP,
) -> list[str]:
    """What is wrong with the commits of records, a line each: not among `ours`, or of other code though the tree was clean, and `known`
    does not say where that is. A record without a commit names none."""
    found = []
    for commit, sha256, dirty in dict.fromkeys(
        (made["commit"], made["code_sha256"], made["dirty"]) for made in provenances
    ):
        if place := _place(commit, sha256, known):
            there = {place.package, place.file_at or place.package} <= ours
            if not there or package_sha256(top, place.package, place.file, place.file_at) != sha256:
                found.append(
                    f"commits.yaml says that the code of sha256 {sha256[:16]} is at commit {place.package}, and it is not"
                )
        elif commit and commit not in ours:
            found.append(
                f"its records name commit {commit}, which no clone has; make them again at one that stays"
            )
        elif commit and dirty is False and package_sha256(top, commit) != sha256:
            found.append(
                f"its records name commit {commit}, whose code (sha256 {package_sha256(top, commit)[:16]}) did not make them "
                f"(theirs is {sha256[:16]}); make them again"
            )
    return found
