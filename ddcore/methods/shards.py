"""Shards: a set cut by the place of its images within their class, so that a cluster can recover the parts as separate jobs.

SRe2L's batches share no number, and what batch j is given (its first images, rolls, real images, weights) depends on j alone: the shards
recovered apart and joined are the set recovered whole. Any other method takes a shard for a set of its own, and so does a plugin with a
loss.
"""

import copy
from collections.abc import Sequence

from ddcore.errors import BadInput
from ddcore.methods.several import batches, joined
from ddcore.synthetic import Synthetic


def part(synthetic: Synthetic, shard: int, shards: int) -> Synthetic:
    """Shard number `shard`, from 0 on, of `shards` of nearly the same size: a copy, with the settings of the whole.

    Raises BadInput for more shards than there are images a class, for a shard that is none of them, and for a set that is a shard
    itself or has numbers that belong to no image.
    """
    many = synthetic.per_class
    if not 0 < shards <= many:
        raise BadInput(f"shards={shards} of a set with {many} images a class; give 1 to {many}")
    if not 0 <= shard < shards:
        raise BadInput(f"shard={shard} of {shards}; they are numbered from 0 to {shards - 1}")
    if shared := [name for name in synthetic.tensors if name in synthetic.shared]:
        raise BadInput(
            f"a set whose images share '{shared[0]}' has no shards; make it without, or recover it whole"
        )
    if "shard" in synthetic.settings:
        raise BadInput("a shard has no shards of its own; cut the whole set into more")
    first, last = shard * many // shards, (shard + 1) * many // shards
    found = copy.copy(synthetic)
    found.labels = joined(batches(synthetic.labels, many)[first:last])
    found.tensors = {
        name: joined(batches(one.detach(), many)[first:last]).requires_grad_()
        for name, one in synthetic.tensors.items()
    }
    found.settings = synthetic.settings | {"shard": [first, last, many]}
    return found


def join(parts: Sequence[Synthetic]) -> Synthetic:
    """The whole set of all its shards, in whatever order they are given. Raises BadInput for shards that do not fit together."""
    parts = sorted(parts, key=lambda one: one.first)
    wholes = [{name: value for name, value in one.settings.items() if name != "shard"} for one in parts]
    ends = [one.settings.get("shard") for one in parts]
    if not parts or None in ends or any(whole != wholes[0] for whole in wholes):
        raise BadInput(
            f"{len(parts)} sets that are not shards of one set, distilled alike; give all parts of one "
            "(`ddcore.methods.shards.part`)"
        )
    edges = [0, *(last for _, last, _ in ends)]
    if [first for first, _, _ in ends] != edges[:-1] or edges[-1] != ends[0][2]:
        raise BadInput(
            f"shards {[f'{first} to {last - 1}' for first, last, _ in ends]} of {ends[0][2]} images a class; give each once"
        )
    found = copy.copy(parts[0])
    found.settings = wholes[0]
    found.labels = joined([row for one in parts for row in batches(one.labels, one.per_class)])
    found.tensors = {
        name: joined(
            [row for one in parts for row in batches(one.tensors[name].detach(), one.per_class)]
        ).requires_grad_()
        for name in found.tensors
    }
    return found
