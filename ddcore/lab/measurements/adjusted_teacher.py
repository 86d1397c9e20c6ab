"""What an adjustment of the weights does to the teacher itself: to the batch it is made for, to test images, and how far batches agree."""

import functools
from collections.abc import Mapping

import torch
import torch.nn.functional as F

from ddcore import compute
from ddcore.data import Dataset
from ddcore.methods.squeeze import Squeeze, squeeze
from ddcore.plugins.weight_adjustment import WeightAdjustment
from ddcore.random import stream
from ddcore.settings import build, positive, versioned


@versioned(version=1)
def adjusted_teacher(
    data: Dataset,
    *,
    seed: int,
    teacher: Mapping,
    rhos: tuple[float, ...],
    directions: tuple[str, ...],
    steps: int,
    batches: int,
    images: int,
) -> list[dict]:
    """Of `teacher` (settings of `Squeeze`), adjusted for each of `batches` batches of one random training image a class.

    Rows, means over the batches: direction, rho, batch_loss (mean cross-entropy of the batch), accuracy (percent, of `images` test images
    at even distances), cosine (of the displacements of two batches; None for one batch).
    """
    positive("adjusted_teacher", rhos=rhos, batches=batches, images=images)
    network = squeeze(data, build(Squeeze, teacher, "teacher"))
    index = data.sample(batches, stream(seed, "adjusted_teacher", device=data.device)).unflatten(
        0, (data.classes, batches)
    )
    tested = (
        torch.linspace(0, len(data.y_test) - 1, min(images, len(data.y_test)), device=data.device)
        .round()
        .long()
    )
    table, size = [], compute.chunk(network, data.shape)
    for direction in directions:
        for rho in rhos:
            how, found, moves = WeightAdjustment(rho, steps, direction), [], []
            for place, rows in enumerate(index.T):
                batch = data.x_train[rows], data.y_train[rows]
                moves.append(
                    how.displacement(network, *batch, stream(seed, "adjusted_teacher", direction, place))
                )
                moved = {name: parameter + moves[-1][name] for name, parameter in network.named_parameters()}
                with torch.no_grad():
                    logits = functools.partial(torch.func.functional_call, network, moved)
                    loss = F.cross_entropy(compute.through(network, batch[0], logits), batch[1])
                    right = [
                        logits(data.x_test[part]).argmax(1) == data.y_test[part]
                        for part in tested.split(size)
                    ]
                found.append([float(loss), 100 * float(torch.cat(right).double().mean())])
            flat = F.normalize(
                torch.stack([torch.cat([one.flatten() for one in move.values()]) for move in moves]), dim=1
            )
            cosine = (
                (flat.sum(0).square().sum() - batches) / (batches * (batches - 1)) if batches > 1 else None
            )
            loss, accuracy = (sum(column) / batches for column in zip(*found, strict=True))
            table.append(
                {
                    "direction": direction,
                    "rho": rho,
                    "batch_loss": round(loss, 5),
                    "accuracy": round(accuracy, 3),
                    "cosine": None if cosine is None else round(float(cosine), 5),
                }
            )
    return table
