"""What the batch norms of a network are given in a pass: SRe2L and its successors match the statistics of these inputs."""

import contextlib
from collections.abc import Iterator

from torch import Tensor, nn
from torch.overrides import TorchFunctionMode


class _Recorder(TorchFunctionMode):
    def __init__(self, found: list):
        super().__init__()
        self.found = found

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function is nn.functional.batch_norm:
            self.found.append(args[:3])
        return function(*args, **(kwargs or {}))


@contextlib.contextmanager
def recorded() -> Iterator[list[tuple[Tensor, Tensor, Tensor]]]:
    """`with recorded() as found: network(x)` leaves (input (N, C, H, W), running mean (C,), running variance (C,)) of every
    batch norm in the order of the pass.

    Calls are recorded, not modules: no hook is left on a network, and one whose weights come from elsewhere
    (`torch.func.functional_call`) is read with the statistics it is called with.
    """
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    with _Recorder(found):
        yield found


def has_batch_norm(network: nn.Module) -> bool:
    return any(isinstance(module, nn.BatchNorm2d) for module in network.modules())
