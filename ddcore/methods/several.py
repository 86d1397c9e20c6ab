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
        each = [
            network.features(batch)
            for network, batch in zip(self.networks, batches(x, len(self.networks)), strict=True)
        ]
        return tuple(joined(parts) for parts in zip(*each, strict=True))

    def forward(self, x: Tensor) -> Tensor:
        return joined(
            [
                network(batch)
                for network, batch in zip(self.networks, batches(x, len(self.networks)), strict=True)
            ]
        )


class InTurn(Network):
    """Networks that see the images one after another, the first one the first sizes[0] of them."""

    def __init__(self, networks: Sequence[Network], sizes: Sequence[int]):
        nn.Module.__init__(self)
        self.networks, self.sizes = nn.ModuleList(networks), list(sizes)

    def features(self, x: Tensor) -> tuple[Tensor, ...]:
        each = [
            network.features(part) for network, part in zip(self.networks, x.split(self.sizes), strict=True)
        ]
        return tuple(map(torch.cat, zip(*each, strict=True)))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat(
            [network(part) for network, part in zip(self.networks, x.split(self.sizes), strict=True)]
        )


class _Through(nn.Module):
    """A function of a network and of other things, as a module, for `functional_call`."""

    def __init__(self, function: Callable, network: Network):
        super().__init__()
        self.function, self.network = function, network

    def forward(self, *others: Tensor) -> tuple[Tensor, ...]:
        return self.function(self.network, *others)


def each(
    function: Callable, networks: Sequence[Network], accelerate: Callable
) -> Callable[..., list[tuple[Tensor, ...]]]:
    """`function(network, batch, *others)`, a tuple of tensors, as a function of the batches (m, n, ...) of m networks and of what they
    share, which lists the m tuples, computed by one `vmap` over stacked weights: `function` must be made of torch's own operations. For one
    network it is the function itself. `accelerate` (`ddcore.compute`) is given what the networks are an input of.
    """
    if len(networks) == 1:
        alone = accelerate(function)
        return lambda parts, *others: [alone(networks[0], parts[0], *others)]
    modules = [_Through(function, network) for network in networks]
    state = stack_module_state(modules)
    stacked = vmap(
        lambda weights, buffers, batch, *others: functional_call(
            modules[0], (weights, buffers), (batch, *others)
        ),
        in_dims=(0, 0, 0, None),
    )
    together = accelerate(lambda *given: stacked(*given))  # a vmap itself is not compiled
    return lambda parts, *others: list(zip(*together(*state, parts, *others), strict=True))
