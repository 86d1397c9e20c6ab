"""How much a plugin's term weighs beside the method's loss: the same weight means different things to different methods."""

import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ddcore.data import Dataset
from ddcore.methods.match import Match, Method, Plugin, unadjusted
from ddcore.synthetic import Synthetic


def gradient_ratios(
    data: Dataset, synthetic: Synthetic, method: Method, plugins: Sequence[Plugin], *, seed: int
) -> list[float]:
    """For each plugin the norm of its term's gradient over that of the method's loss, in the stored numbers that the term depends on (a
    step size is none of them), at the first match and without the plugins' adjustments; 0 for a plugin without a term."""
    parameters = synthetic.parameters()

    def gradients(term: Callable[[Match], Tensor]) -> tuple[Tensor | None, ...]:
        """At the same match found anew: a compiled graph can be walked back once only."""
        match = next(method.matches(data, synthetic, seed=seed, start=0, look=unadjusted, memory={}))
        return torch.autograd.grad(term(match), parameters, allow_unused=True)

    def ratio(term: Callable[[Match], Tensor]) -> float:
        pairs = [pair for pair in zip(gradients(term), of_loss, strict=True) if pair[0] is not None]
        ours, theirs = (torch.stack([one.norm() for one in side]).norm() for side in zip(*pairs, strict=True))
        return float(f"{float(ours / theirs):.4g}")

    of_loss = gradients(lambda match: match.loss)
    return [
        ratio(functools.partial(plugin.loss, memory={})) if hasattr(plugin, "loss") else 0.0
        for plugin in plugins
    ]
