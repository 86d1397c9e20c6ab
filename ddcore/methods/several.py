"""Batches that each go through a network of their own. In a set sorted by class with m images a class, batch j of m is the j-th image
of every class: images j, j + m, j + 2m, ..."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap

from ddcore.networks import Network


def batches(images: Tensor, many: int) -> Tensor:
    """(N, ...) -> (many, N / many, ...), a view."""
    return images.unflatten(0, (-1, many)).transpose(0, 1)


def joined(parts: Sequence[Tensor]) -> Tensor:
    """What `batches` took apart."""
    return torch.stack(tuple(parts), 1).flatten(0, 1)


class Several(Network):
    """Networks of one form; batch j goes through the j-th."""

    def __init__(self, networks: Sequence[Network]):
        nn.Module.__init__(self)
        self.networks = nn.ModuleList(networks)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        each = [network.features(batch) for network, batch in zip(self.networks, batches(x, len(self.networks)), strict=True)]
        return tuple(joined(parts) for parts in zip(*each, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return joined([network(batch) for network, batch in zip(self.networks, batches(x, len(self.networks)), strict=True)])


class _Through(nn.Module):
    """A function of a network and of other things, as a module, for `functional_call`."""

    def __init__(self, function: Callable, network: Network):
        super().__init__()
        self.function, self.network = function, network

    def forward(self, *others: Tensor) -> tuple[Tensor, ...]:
        return self.function(self.network, *others)


def each(function: Callable, networks: Sequence[Network], at_once: int, accelerate: Callable
         ) -> Callable[[Tensor, Tensor], list[tuple[Tensor, ...]]]:
    """`function(network, batch, labels)`, a tuple of tensors, as a function of all images and of the labels of one batch, which lists the
    tuples of all batches. `at_once` of them are computed by one `vmap` over stacked weights, so that `function` must be made of torch's
    own operations; 1 is a plain loop. `accelerate` (`ddcore.compute`) is given what the networks are an input of: they share what it makes.
    """
    many = len(networks)
    if at_once == 1:
        alone = accelerate(function)
        return lambda images, labels: [alone(network, batch, labels)
                                       for network, batch in zip(networks, batches(images, many), strict=True)]
    modules = [_Through(function, network) for network in networks]
    states = [stack_module_state(modules[place : place + at_once]) for place in range(0, many, at_once)]
    stacked = vmap(lambda weights, buffers, batch, labels: functional_call(modules[0], (weights, buffers), (batch, labels)),
                   in_dims=(0, 0, 0, None))
    together = accelerate(lambda *given: stacked(*given))  # a vmap itself is not compiled

    def grouped(images, labels):
        groups = [together(*state, group, labels) for state, group in zip(states, batches(images, many).split(at_once), strict=True)]
        return [one for group in groups for one in zip(*group, strict=True)]

    return grouped
