"""Evaluation: networks trained from scratch on a set, tested on real images."""

from ddcore.evaluation.protocol import (
    PROTOCOLS,
    VERSION,
    Protocol,
    Scores,
    accuracy,
    evaluate,
    network_seeds,
    right_by_class,
)

__all__ = [
    "PROTOCOLS",
    "VERSION",
    "Protocol",
    "Scores",
    "accuracy",
    "evaluate",
    "network_seeds",
    "right_by_class",
]
