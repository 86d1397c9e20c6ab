"""Methods: what is matched, and in which networks. Each one is a generator of matches (`ddcore.methods.match`)."""

from collections.abc import Mapping

from ddcore.methods.distribution import DM
from ddcore.methods.gradient import DC, DSA
from ddcore.methods.match import Match, Method, Plugin
from ddcore.methods.statistics import SRe2L
from ddcore.methods.trajectory import MTT
from ddcore.settings import build

METHODS = {"dc": DC, "dm": DM, "dsa": DSA, "mtt": MTT, "sre2l": SRe2L}
__all__ = ["DC", "DM", "DSA", "METHODS", "MTT", "Match", "Method", "Plugin", "SRe2L", "method_of"]


def method_of(given: Mapping) -> Method:
    """The method of {"name": one of `METHODS`, ...its settings}. Raises BadInput as `build` does."""
    settings = {name: value for name, value in given.items() if name != "name"}
    return build(METHODS[given["name"]], settings, f"method {given['name']}")
