"""What MTT's gradients keep: the bytes of their tapes, by the number of student steps."""

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from ddcore import augment, networks
from ddcore.bench.timing import seconds
from ddcore.bench.yardsticks import operations
from ddcore.data import Dataset
from ddcore.methods import unrolling
from ddcore.methods.experts import unflatten
from ddcore.methods.trajectory import GRADIENTS
from ddcore.random import stream
from ddcore.settings import versioned


class _Tape(torch.autograd.graph.saved_tensors_hooks):
    """The bytes that autograd keeps for a backward pass, at most at once; views count again."""

    def __init__(self):
        super().__init__(lambda tensor: _Kept(self, tensor), lambda kept: kept.tensor)
        self.held = self.most = 0


class _Kept:
    def __init__(self, tape: _Tape, tensor: Tensor):
        self.tape, self.tensor, self.size = tape, tensor, tensor.numel() * tensor.element_size()
        tape.held += self.size
        tape.most = max(tape.most, tape.held)

    def __del__(self):
        self.tape.held -= self.size


@versioned(version=1)
def tapes(
    data: Dataset, *, seed: int, width: int, ipc: int, steps: Sequence[int], lr: float, repeats: int
) -> list[dict]:
    """MTT's three gradients through T student steps on random real images, without augmentation, towards a network of another draw.

    Columns: gradient, steps, saved_bytes (at most at once, float32), operations, seconds (median, float32), error and cosine of the
    image gradient against the unrolled one, in float64.
    """
    at, rows = data.device, []
    fake = data.x_train[data.sample(ipc, stream(seed, "tapes", "fake", device=at))]
    labels = torch.arange(data.classes, device=at).repeat_interleave(ipc)
    nets = [
        networks.build(
            "convnet",
            data.shape,
            data.classes,
            width=width,
            device=at,
            generator=stream(seed, "tapes", name, device=at),
        )
        for name in ("start", "goal")
    ]
    plain = [
        unrolling.Step(
            torch.arange(len(fake), device=at), augment.draw("none", 1, stream(seed, "tapes"), each=len(fake))
        )
    ]

    def gradient(name: str, count: int, dtype: torch.dtype) -> Tensor:
        first, goal = (
            torch.cat([parameter.detach().flatten() for parameter in net.parameters()]).to(dtype)
            for net in nets
        )
        images = fake.to(dtype).requires_grad_()
        student = nets[0].to(dtype)
        loss, _ = GRADIENTS[name](
            lambda flat, x: torch.func.functional_call(student, unflatten(student, flat), (x,)),
            first,
            first + 0.05 * (goal - first),
            images,
            labels,
            torch.tensor(lr, dtype=dtype, device=at, requires_grad=True),
            plain * count,
        )
        found = torch.autograd.grad(loss, images)[0]
        nets[0].float()
        return found

    for count in steps:
        exact = gradient("unrolled", count, torch.float64)
        for name in ("unrolled", "adjoint", "tesla"):
            found = gradient(name, count, torch.float64)
            tape = _Tape()
            with tape:
                gradient(name, count, torch.float32)
            took = seconds(functools.partial(gradient, name, count, torch.float32), at, repeats)
            rows.append(
                {
                    "gradient": name,
                    "steps": count,
                    "saved_bytes": tape.most,
                    "operations": operations(functools.partial(gradient, name, count, torch.float32)),
                    "seconds": float(f"{took:.4g}"),
                    "error": float(f"{float((found - exact).norm() / exact.norm()):.3g}"),
                    "cosine": round(
                        float(torch.nn.functional.cosine_similarity(found.flatten(), exact.flatten(), dim=0)),
                        4,
                    ),
                }
            )
    return rows
