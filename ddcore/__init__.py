"""ddcore: dataset distillation, reproducible. Four verbs: `load` a dataset, `distill` it, `evaluate` the result, `figure` it."""

from ddcore.data import Dataset, load
from ddcore.distillation import distill
from ddcore.errors import BadInput, Diverged, Interrupted
from ddcore.evaluation import Protocol, Scores, evaluate
from ddcore.evaluation.coresets import baseline
from ddcore.methods import DC, DM, DSA, MTT, SRe2L
from ddcore.methods.experts import Experts
from ddcore.methods.squeeze import Squeeze
from ddcore.plugins import MutualInformation, WeightAdjustment
from ddcore.synthetic import LowRank, Pixels, Synthetic, load_synthetic
from ddcore.synthetic.adaptive import Adaptive
from ddcore.synthetic.tucker import Tucker

__version__ = "0.1.0"
__all__ = [
    "DC",
    "DM",
    "DSA",
    "MTT",
    "Adaptive",
    "BadInput",
    "Dataset",
    "Diverged",
    "Experts",
    "Interrupted",
    "LowRank",
    "MutualInformation",
    "Pixels",
    "Protocol",
    "SRe2L",
    "Scores",
    "Squeeze",
    "Synthetic",
    "Tucker",
    "WeightAdjustment",
    "baseline",
    "distill",
    "evaluate",
    "load",
    "load_synthetic",
]
