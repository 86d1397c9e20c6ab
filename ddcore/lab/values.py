"""Values as people write them on a command line: those of YAML 1.2, in which 1e-3 is a number, and 010, 1:30 and 'no' are words."""

import re
from typing import ClassVar

import yaml

# The core schema of YAML 1.2 (10.3.2), but that no number begins with a superfluous 0, which is eight here and ten there.
WHOLE = r"[-+]?(?:0|[1-9][0-9]*)"
SCALARS = {
    "null": (r"~|null|Null|NULL|", [*"~nN", ""]),
    "bool": (r"true|True|TRUE|false|False|FALSE", [*"tTfF"]),
    "int": (rf"{WHOLE}|0o[0-7]+|0x[0-9a-fA-F]+", [*"-+0123456789"]),
    "float": (
        rf"(?:{WHOLE}(?:\.[0-9]*)?|[-+]?\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        [*"-+.0123456789"],
    ),
}


class Loader(yaml.SafeLoader):
    """Plain values, lists and mappings, by `SCALARS`; a name that a mapping has twice is an error."""

    yaml_implicit_resolvers: ClassVar = {}

    def construct_mapping(self, node, deep=False):
        found = super().construct_mapping(node, deep)
        if len(found) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a name is given twice", node.start_mark)
        return found


for _name, (_pattern, _first) in SCALARS.items():
    Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"(?:{_pattern})\Z"), _first)
Loader.add_constructor(
    "tag:yaml.org,2002:int", lambda loader, node: int(node.value, 0 if node.value[:2] in ("0o", "0x") else 10)
)
Loader.add_constructor(
    "tag:yaml.org,2002:float",
    lambda loader, node: float(node.value.replace(".", "", node.value[-1:] in "fFnN")),
)


def read(text: str):
    """The value that `text` stands for. Raises yaml.YAMLError."""
    return yaml.load(text, Loader)
