"""Files and processes: what is written is whole, what is interrupted goes on."""

from ddcore.files.writing import CACHE, OLD, alone, made, sweep, whole

__all__ = ["CACHE", "OLD", "alone", "made", "sweep", "whole"]
