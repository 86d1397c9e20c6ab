"""Methods: what is matched, and in which networks. Each one is a generator of matches (`ddcore.methods.match`)."""

from ddcore.methods.distribution import DM
from ddcore.methods.gradient import DC, DSA
from ddcore.methods.match import Match, Method, Plugin
from ddcore.methods.statistics import SRe2L
from ddcore.methods.trajectory import MTT

METHODS = {"dc": DC, "dm": DM, "dsa": DSA, "mtt": MTT, "sre2l": SRe2L}
__all__ = ["DC", "DM", "DSA", "METHODS", "MTT", "Match", "Method", "Plugin", "SRe2L"]
