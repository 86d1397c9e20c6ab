"""Methods: what is matched, and in which networks. Each one is a generator of matches (`ddcore.methods.match`)."""

from ddcore.methods.distribution import DM
from ddcore.methods.gradient import DC, DSA
from ddcore.methods.match import Match, Method, Plugin

METHODS = {"dc": DC, "dm": DM, "dsa": DSA}
__all__ = ["DC", "DM", "DSA", "METHODS", "Match", "Method", "Plugin"]
