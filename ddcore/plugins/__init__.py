"""Plugins: what is added to any method (`ddcore.methods.match.Plugin`)."""

from ddcore.plugins.mutual_information import MutualInformation
from ddcore.plugins.weight_adjustment import WeightAdjustment

PLUGINS = {"mutual_information": MutualInformation, "weight_adjustment": WeightAdjustment}
__all__ = ["PLUGINS", "MutualInformation", "WeightAdjustment"]
