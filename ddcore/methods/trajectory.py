"""MTT: training trajectories matched (Cazenavette et al., *Dataset Distillation by Matching Training Trajectories*, CVPR 2022).

A student starts from an expert's parameters after epoch s and takes `syn_steps` steps of SGD on the synthetic set, of the size that
the set has learned; the loss is its squared distance from the expert after epoch s + expert_epochs, over the distance
between the expert's two (eq. 3). The steps are in `ddcore.methods.unrolling`, the experts in `ddcore.methods.experts`.
"""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.func import functional_call

from ddcore import augment, compute
from ddcore.data import Dataset
from ddcore.errors import BadInput
from ddcore.methods import experts as trajectories
from ddcore.methods import unrolling
from ddcore.methods.experts import Experts
from ddcore.methods.match import Batch, Features, Look, Match, Read, in_parts, looked_through, unadjusted
from ddcore.networks import Network
from ddcore.random import stream
from ddcore.settings import later, one_of, positive
from ddcore.synthetic import Synthetic

GRADIENTS = {"adjoint": unrolling.adjoint, "unrolled": unrolling.unrolled, "tesla": unrolling.tesla}


@dataclasses.dataclass(frozen=True)
class MTT:
    """`batch_syn`: images of a student's step, the whole set if None. `gradient`: 'adjoint' and 'unrolled' are the same numbers, 'tesla'
    is the published approximation, `tesla_factor` 1 its published code and 2 its formula. 'unrolled' keeps the tape of all steps; the other
    two pass at most `chunk` images at once (`ddcore.compute`).

    `Match.network` is the expert after epoch s + expert_epochs, `Match.student` the student after its last step; plugins see
    `batch_real` real images a class and the synthetic ones, not augmented, and a plugin's `adjust` changes the network they
    look through, not the goal of the student. A set with soft labels is labelled by the first expert at its last epoch before step 0.
    """

    version: ClassVar[int] = 1
    versions: ClassVar[dict[str, int]] = {"trajectories": trajectories.VERSION}

    experts: Experts = dataclasses.field(default_factory=Experts)
    expert_epochs: int = 3
    max_start_epoch: int = 20
    syn_steps: int = 20
    batch_syn: int | None = None
    batch_real: int = 64
    strategy: str = augment.DSA
    gradient: str = "adjoint"
    tesla_factor: int = 2
    seed_experts: int = 0
    chunk: int | None = later(None)

    def __post_init__(self):
        positive(
            "MTT",
            expert_epochs=self.expert_epochs,
            max_start_epoch=self.max_start_epoch,
            syn_steps=self.syn_steps,
            batch_syn=self.batch_syn,
            batch_real=self.batch_real,
            chunk=self.chunk,
        )
        one_of("MTT", GRADIENTS, gradient=self.gradient)
        if self.tesla_factor not in (1, 2):
            raise BadInput(
                f"MTT: tesla_factor={self.tesla_factor} must be 2 (the formula of TESLA) or 1 (its published code)"
            )
        augment.families(self.strategy)
        last = self.max_start_epoch - 1 + self.expert_epochs
        if last > self.experts.epochs:
            raise BadInput(
                f"MTT: max_start_epoch={self.max_start_epoch} and expert_epochs={self.expert_epochs} reach epoch {last}, but "
                f"the experts have {self.experts.epochs} epochs; train them longer, or start earlier"
            )

    def matches(
        self,
        data: Dataset,
        synthetic: Synthetic,
        *,
        seed: int,
        start: int = 0,
        look: Look = unadjusted,
        memory: dict[str, Tensor] | None = None,
        reads: Sequence[Read] = (),
    ) -> Iterator[Match]:
        if synthetic.step_size is None:
            raise BadInput(
                "MTT learns the size of a student's steps, and this set has none; make the set with one, e.g. step=0.01"
            )
        if data.classes < 2:
            raise BadInput(
                "MTT: the cross-entropy of one class trains no expert; give two classes or more, or use DM"
            )
        device, dtype = data.device, data.x_train.dtype
        paths = trajectories.experts(data, self.experts, self.seed_experts)
        expert, student = (
            self.experts.network_for(data, torch.Generator(device)).requires_grad_(False) for _ in range(2)
        )
        size = self.images_at_once(student, data, synthetic)
        loss_of = functools.partial(
            GRADIENTS[self.gradient],
            **{
                "unrolled": {},
                "adjoint": {"size": size},
                "tesla": {"size": size, "factor": self.tesla_factor},
            }[self.gradient],
        )

        def forward(flat, x):
            return functional_call(student, trajectories.unflatten(student, flat), (x,))

        def parameters(number, epoch):
            return torch.from_numpy(paths[number][epoch].copy()).to(device, dtype)

        if start == 0 and "soft" in synthetic.tensors:
            synthetic.label_by(trajectories.fill(expert, parameters(0, self.experts.epochs)))
        for step in itertools.count(start):
            generator = stream(seed, "mtt", "trajectory", step)
            number = int(torch.randint(len(paths), (), generator=generator))
            epoch = int(torch.randint(self.max_start_epoch, (), generator=generator))
            first, goal = parameters(number, epoch), parameters(number, epoch + self.expert_epochs)
            images = synthetic.images()
            loss, last = loss_of(
                forward,
                first,
                goal,
                images,
                synthetic.targets(),
                synthetic.step_size,
                self._steps(len(images), stream(seed, "mtt", "steps", step, device=device)),
            )
            index, sizes = data.sample_up_to(
                self.batch_real, stream(seed, "mtt", "real", step, device=device)
            )
            batch = Batch(data, index, sizes)
            trajectories.fill(expert, goal)
            seen = looked_through(look, expert, batch, stream(seed, "mtt", "look", step))
            trajectories.fill(student, last)
            of_real = Features(
                lambda read, seen=seen, batch=batch: in_parts(read, seen.features, batch, size or len(batch))
            )
            yield Match(
                step,
                seen,
                student,
                batch,
                images,
                synthetic.labels,
                of_real,
                Features.of(student.features, images, size or len(images)),
                loss,
            )

    def images_at_once(self, network: Network, data: Dataset, synthetic: Synthetic) -> int | None:
        """Images of a student's step that pass it together; None for all, which a batch norm needs."""
        return compute.chunk(network, data.shape, self.chunk) if compute.divisible(network) else None

    def _steps(self, images: int, generator: torch.Generator) -> list[unrolling.Step]:
        """The batches of one student: random orders of the set, each used up before the next is drawn, and their augmentation."""
        steps, batches = [], []
        for _ in range(self.syn_steps):
            if not batches:
                order = torch.randperm(images, generator=generator, device=generator.device)
                batches = list(order.split(self.batch_syn or images))
            rows = batches.pop()
            steps.append(unrolling.Step(rows, augment.draw(self.strategy, 1, generator, each=len(rows))))
        return steps
