"""Methods: what is matched, and in which networks. Each one is a generator of matches (`ddcore.methods.match`)."""

from ddcore.methods.distribution import DM
from ddcore.methods.match import Match, Method, Plugin

METHODS = {"dm": DM}
__all__ = ["DM", "METHODS", "Match", "Method", "Plugin"]
