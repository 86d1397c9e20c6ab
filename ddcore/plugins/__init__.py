"""Plugins: what is added to any method (`ddcore.methods.match.Plugin`)."""

from ddcore.plugins.mutual_information import MutualInformation

PLUGINS = {"mutual_information": MutualInformation}
__all__ = ["PLUGINS", "MutualInformation"]
