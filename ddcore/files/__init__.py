"""Files and processes: what is written is whole, what is interrupted goes on."""

from ddcore.files.writing import CACHE, alone, made, whole

__all__ = ["CACHE", "alone", "made", "whole"]
