"""Figures, records and the version of the code as one research object: a folder with ro-crate-metadata.json, after RO-Crate 1.1.

https://www.researchobject.org/ro-crate/specification/1.1. Nothing in it depends on when it was made, but on the commit it was made from.
"""

import hashlib
import json
import mimetypes
import shutil
from collections.abc import Iterator
from pathlib import Path

import yaml

import ddcore
from ddcore import figures
from ddcore.errors import BadInput
from ddcore.figures import commits, gallery
from ddcore.files import records
from ddcore.synthetic.export import new_folder

METADATA = "ro-crate-metadata.json"
CONTEXT = [
    "https://w3id.org/ro/crate/1.1/context",
    {"sha256": "https://w3id.org/ro/terms/workflow-run#sha256"},
]
LICENSE = {"@id": "https://spdx.org/licenses/MIT", "@type": "CreativeWork", "name": "MIT License",
           "description": "The text is in the file LICENSE."}  # fmt: skip
KINDS = {".csv": "text/csv", ".md": "text/markdown", ".yaml": "application/yaml", ".cff": "application/yaml", "": "text/plain",
         ".bib": "application/x-bibtex", ".tex": "application/x-tex", ".ipynb": "application/x-ipynb+json"}  # fmt: skip
AUTHORS = {"@id": "#authors", "@type": "Organization", "name": "The ddcore authors"}


def _to(*ids: str) -> dict | list[dict]:
    """References to entities; one alone is no list, as the specification recommends."""
    found = [{"@id": one} for one in ids]
    return found[0] if len(found) == 1 else found


def _file(path: Path, top: Path) -> dict:
    kind = KINDS.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return {
        "@id": path.relative_to(top).as_posix(),
        "@type": "File",
        "name": path.name,
        "encodingFormat": kind,
        "contentSize": str(path.stat().st_size),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def _papers(cff: dict) -> Iterator[dict]:
    for one in cff["references"]:
        names = [f"{author['given-names']} {author['family-names']}" for author in one["authors"]]
        yield {
            "@id": f"#{one['identifiers'][0]['value']}",
            "@type": "ScholarlyArticle",
            "name": one["title"],
            "datePublished": str(one["year"]),
            "identifier": " ".join(known["value"] for known in one["identifiers"]),
            "description": f"{', '.join(names)}. {one['conference']['name']}",
        }


def _code(commit: str, url: str = "") -> dict:
    """The package at one commit."""
    return {
        "@id": f"#ddcore-{commit}",
        "@type": "SoftwareSourceCode",
        "name": f"ddcore at commit {commit}",
        "version": commit,
        "programmingLanguage": "Python",
    } | ({"codeRepository": url} if url else {})


def metadata(top: Path, *, commit: str = "", url: str = "") -> dict:
    """The JSON-LD of the crate in the folder `top`: its files with their sha256, and an action for each figure, from the records that it
    was drawn from to its files, by the code of those records. `commit` and `url` as `commits.here` tells them."""
    cff = yaml.safe_load((top / "CITATION.cff").read_text(encoding="utf-8"))
    files = {
        one["@id"]: one
        for one in (
            _file(path, top) for path in sorted(top.rglob("*")) if path.is_file() and path.name != METADATA
        )
    }
    current, papers = _code(commit or ddcore.__version__, url), list(_papers(cff))
    code, actions = {current["@id"]: current | {"softwareVersion": ddcore.__version__}}, []
    for key, entry in figures.entries(top / "figures").items():
        sidecar = figures.load(key, top / "figures")
        if sidecar is None:
            continue
        made_by = [_code(one, url) for one in sidecar["commits"]]
        code = {one["@id"]: one for one in made_by} | code
        drawn = [f"figures/{key}.{form}" for form in figures.FILES]
        files[f"figures/{key}.pdf"] |= {"description": " ".join(entry.caption.split())}
        actions.append(
            {
                "@id": f"#draw-{key}",
                "@type": "CreateAction",
                "name": entry.title,
                "agent": _to("#authors"),
                "description": figures.provenance_line(sidecar),
                "instrument": _to(*(one["@id"] for one in made_by)),
                "object": _to(*(f"figures/records/{name}.json" for name in sidecar["wasDerivedFrom"])),
                "result": _to(*drawn),
            }
        )
    root = {
        "@id": "./",
        "@type": "Dataset",
        "name": cff["title"],
        "description": " ".join(cff["abstract"].split()),
        "datePublished": cff["date-released"],
        "license": _to(LICENSE["@id"]),
        "author": _to("#authors"),
        "publisher": _to("#authors"),
        "keywords": cff["keywords"],
        "version": cff["version"],
        "hasPart": _to(*files),
        "mentions": _to(*code, *(one["@id"] for one in actions)),
        "citation": _to(*(one["@id"] for one in papers)),
    }
    descriptor = {
        "@id": METADATA,
        "@type": "CreativeWork",
        "conformsTo": {"@id": "https://w3id.org/ro/crate/1.1"},
        "about": {"@id": "./"},
    }
    return {
        "@context": CONTEXT,
        "@graph": [descriptor, root, *files.values(), *actions, *code.values(), *papers, AUTHORS, LICENSE],
    }


def write(folder: Path) -> Path:
    """A new folder with the figures, the page of them, the notebooks, the records, the texts and their metadata; returns where that is.
    Raises BadInput where the folder holds something, and outside of a clone. The distilled sets stay in the repository."""
    if not records.CHECKOUT:
        raise BadInput(
            "figures export takes what a clone has, and this ddcore is installed without one; run it in a clone"
        )
    with new_folder(folder) as part:
        for name in (
            "README.md",
            "RESULTS.md",
            "CONTRIBUTING.md",
            "CITATION.cff",
            "LICENSE",
            "pyproject.toml",
            "requirements.lock",
        ):
            shutil.copyfile(records.TOP / name, part / name)
        for pattern in ("figures/*.*", "figures/records/*.json", "notebooks/*.*"):
            for path in records.TOP.glob(pattern):
                (part / pattern).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, (part / pattern).with_name(path.name))
        gallery.write(part / "figures", part / "notebooks")
        (part / METADATA).write_text(
            json.dumps(metadata(part, **commits.here()), indent=1) + "\n", encoding="utf-8"
        )
    return folder
