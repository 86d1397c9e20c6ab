"""ddcore: dataset distillation, reproducible. Four verbs: `load` a dataset, `distill` it, `evaluate` the result, `figure` it."""

from ddcore.adaptive import Adaptive
from ddcore.coresets import baseline
from ddcore.data import Dataset, load
from ddcore.distill import distill
from ddcore.errors import BadInput, Diverged, Interrupted
from ddcore.evaluate import Protocol, Scores, evaluate
from ddcore.methods import DC, DM, DSA, MTT, SRe2L
from ddcore.plugins import MutualInformation, WeightAdjustment
from ddcore.squeeze import Squeeze
from ddcore.synthetic import LowRank, Pixels, Synthetic, load_synthetic
from ddcore.trajectories import Experts
from ddcore.tucker import Tucker

__version__ = "0.1.0"
__all__ = ["DC", "DM", "DSA", "MTT", "Adaptive", "BadInput", "Dataset", "Diverged", "Experts", "Interrupted", "LowRank",
           "MutualInformation", "Pixels", "Protocol", "SRe2L", "Scores", "Squeeze", "Synthetic", "Tucker", "WeightAdjustment",
           "baseline", "distill", "evaluate", "load", "load_synthetic"]
