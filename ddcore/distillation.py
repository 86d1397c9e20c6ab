"""The one loop: it adds the plugins' terms to the method's loss, steps the optimiser, checkpoints, reports."""

import dataclasses
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, safe_open, save_file
from torch import Tensor

from ddcore.data import Dataset
from ddcore.errors import BadInput, Broken, Diverged
from ddcore.files import checksums, whole
from ddcore.files.stopping import heed
from ddcore.methods.match import Method, Plugin, unadjusted
from ddcore.optim.adam import Adam
from ddcore.optim.sgd import SGD, cosine
from ddcore.settings import one_of, positive, stated, within
from ddcore.synthetic import Synthetic

VERSION = 1
OPTIMISERS, SCHEDULES = ("sgd", "adam"), ("constant", "cosine")
Memories = dict[str, dict[str, Tensor]]  # what the method and each plugin keep between steps


@dataclasses.dataclass(frozen=True)
class Trace:
    """losses: (steps,) the loss of each step, plugins included; seconds: of this call and of those that it went on from, with the
    experts, the teacher or the compilation that they had to wait for; resumed: the step it began at."""

    losses: tuple[float, ...]
    seconds: float
    resumed: int = 0


def check(lr_img: float, momentum: float, optimiser: str, beta2: float, schedule: str) -> None:
    """Raise BadInput for a rule of updates that is none."""
    positive("distill", lr_img=lr_img)
    within("distill", 0, torch.finfo(torch.float32).max, lr_img=lr_img)
    within("distill", 0, 1, momentum=momentum, beta2=beta2)
    one_of("distill", OPTIMISERS, optimiser=optimiser)
    one_of("distill", SCHEDULES, schedule=schedule)


def distill(
    data: Dataset,
    synthetic: Synthetic,
    method: Method,
    *,
    plugins: Sequence[Plugin] = (),
    steps: int,
    lr_img: float = 1.0,
    momentum: float = 0.5,
    optimiser: str = "sgd",
    beta2: float = 0.9,
    schedule: str = "constant",
    seed: int = 0,
    checkpoint: str | Path | None = None,
    every_seconds: float = 60.0,
    progress: Callable[[int, float], None] | None = None,
) -> Trace:
    """Update `synthetic` in place on the matches of `method`, one optimiser over all it stores: 'sgd' with `momentum`, or 'adam'
    with betas (momentum, beta2); the rate is lr_img, or falls from it to zero over the steps (schedule 'cosine').

    With `checkpoint`, the state is saved there every `every_seconds` and when a signal asks to stop, and a call with the same settings
    goes on from it, on a CPU bit for bit as if it had never stopped (with the same `ddcore.compute.bits`); the file is removed at the
    end. `progress(step, loss)` is called after each step. Raises BadInput for a checkpoint of another run, Broken for one that is not as
    it was written, Interrupted after a signal (`ddcore.files.stopping`), and Diverged as soon as a loss, a gradient or a stored number
    is not finite: the set is then left as it was when last known to be finite.
    """
    positive("distill", steps=steps)
    check(lr_img, momentum, optimiser, beta2, schedule)
    rule = {"lr_img": lr_img, "momentum": momentum}
    rule |= {} if optimiser == "sgd" else {"optimiser": optimiser, "beta2": beta2}
    rule |= {} if schedule == "constant" else {"schedule": schedule, "of_steps": steps}
    run = json.dumps(
        {
            "method": described(method),
            "plugins": [described(plugin) for plugin in plugins],
            "set": synthetic.settings,
            "seed": seed,
            "data": data.sha256,
            **rule,
        },
        sort_keys=True,
    )
    parameters = synthetic.parameters()
    updates = (
        SGD(parameters, lr=lr_img, momentum=momentum)
        if optimiser == "sgd"
        else Adam(parameters, lr=lr_img, betas=(momentum, beta2))
    )
    state = {f"set.{name}": tensor for name, tensor in synthetic.tensors.items()}
    for kind, tensors in updates.state.items():
        state |= {f"{kind}.{name}": tensor for name, tensor in zip(synthetic.tensors, tensors, strict=True)}
    losses = torch.zeros(steps, dtype=torch.float64, device=data.device)
    memories: Memories = {"method": {}} | {f"plugin {place}": {} for place in range(len(plugins))}
    start, before = _restore(Path(checkpoint), run, state, memories, losses) if checkpoint else (0, 0.0)
    updates.steps = start

    adjusting = [plugin for plugin in plugins if hasattr(plugin, "adjust")]

    def look(network, batch, labels, generator):
        for plugin in adjusting:
            network = plugin.adjust(network, batch, labels, generator)
        return network

    # Asking whether a number is finite waits for a GPU, so there it is asked of many steps at once, from a copy to go back to.
    check_every = 1 if data.device.type == "cpu" else 50
    finite = torch.ones((), dtype=torch.bool, device=data.device)

    def save(memories: Memories, done: int) -> None:
        _save(Path(checkpoint), run, state, memories, losses[:done], before + time.perf_counter() - began)

    good = (start, _copies(state), _copied(memories))
    began = saved = time.perf_counter()
    reads = [plugin.read for plugin in plugins if hasattr(plugin, "read")]
    matches = method.matches(
        data,
        synthetic,
        seed=seed,
        start=start,
        look=look if adjusting else unadjusted,
        memory=memories["method"],
        **{"reads": reads} if reads else {},
    )
    with heed() as stop:
        for step in range(start, steps):
            match = next(matches)
            loss = match.loss
            for place, plugin in enumerate(plugins):
                loss = (
                    loss + plugin.loss(match, memories[f"plugin {place}"])
                    if hasattr(plugin, "loss")
                    else loss
                )
            gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
            if unused := [
                name for name, gradient in zip(synthetic.tensors, gradients, strict=True) if gradient is None
            ]:
                raise BadInput(
                    f"{type(method).__name__} does not learn the '{unused[0]}' of this set; make the set without it"
                )
            losses[step] = loss.detach()
            if schedule == "cosine":
                updates.lr = lr_img * cosine(step, steps)
            updates.step(gradients)
            synthetic.project()
            finite &= torch.stack(
                [tensor.detach().isfinite().all() for tensor in (loss, *gradients, *parameters)]
            ).all()
            checking = step % check_every == 0 or step == steps - 1 or stop
            if checking and not finite:
                _diverge(good, state, losses, step, checkpoint, save)
            if checking:
                good = (step + 1, _copies(state), _copied(memories))
            if progress:
                progress(step + 1, float(losses[step]))
            if checkpoint and checking and time.perf_counter() - saved > every_seconds:
                save(memories, step + 1)
                saved = time.perf_counter()
            if stop and checking:
                if checkpoint:
                    save(memories, step + 1)
                where = (
                    f"the state is in {checkpoint}: the same call goes on from there"
                    if checkpoint
                    else "no checkpoint was asked for"
                )
                raise stop.interrupted(f"stopped after step {step + 1} of {steps}; {where}")
    synthetic.settings["distilled"] = {
        "method": type(method).__name__,
        **_settings(method),
        "steps": steps,
        **rule,
        "seed": seed,
        "plugins": [{"plugin": type(plugin).__name__, **_settings(plugin)} for plugin in plugins],
    }
    if checkpoint:
        Path(checkpoint).unlink(missing_ok=True)
    return Trace(tuple(losses.tolist()), before + time.perf_counter() - began, start)


def described(part: Method | Plugin) -> str:
    """The same in another process and on another machine: the default repr of what is no dataclass holds an address, and settings may
    hold the place of a file."""
    return f"{type(part).__qualname__}({_settings(part)})"


def _settings(part: Method | Plugin) -> dict:
    return stated(part) if dataclasses.is_dataclass(part) else {}


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def _diverge(
    good, state: dict[str, Tensor], losses: Tensor, step: int, checkpoint: str | Path | None, save: Callable
) -> None:
    last, tensors, memories = good
    with torch.no_grad():
        for name, tensor in tensors.items():
            state[name].copy_(tensor)
    wrong = (~losses[: step + 1].isfinite()).nonzero().flatten().tolist()
    first = wrong[0] if wrong else step
    what = (
        f"the loss became {float(losses[first])}" if wrong else "a gradient or a stored number was not finite"
    )
    kept = f"the finite state after {last} steps"
    if checkpoint and last:
        save(memories, last)
        kept += f" is in {checkpoint}"
    else:
        kept += " is left in the set"
    before = f", from {float(losses[first - 1]):.4g}" if first else ""
    raise Diverged(f"{what} at step {first + 1}{before}; {kept}; use a smaller lr_img")


def _copied(memories: Memories) -> Memories:
    return {owner: _copies(memory) for owner, memory in memories.items()}


def _save(
    path: Path, run: str, state: dict[str, Tensor], memories: Memories, losses: Tensor, seconds: float
) -> None:
    tensors = state | {
        f"{owner}.{name}": tensor for owner, memory in memories.items() for name, tensor in memory.items()
    }
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    tensors["losses"] = losses.detach().cpu().clone()
    said = {"run": run, "seconds": f"{seconds:.3f}"}
    with whole(path) as part:
        save_file(tensors, part, said | {"sha256": checksums.of_json([said, checksums.of_tensors(tensors)])})


def _restore(
    path: Path, run: str, state: dict[str, Tensor], memories: Memories, losses: Tensor
) -> tuple[int, float]:
    """The steps that the checkpoint has done, and the seconds that they took; 0 and 0 without one."""
    if not path.is_file():
        return 0, 0.0
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        tensors = load_file(path)
    except (SafetensorError, OSError, ValueError) as error:
        raise Broken(f"{path}: not a whole checkpoint ({error}); remove it to begin anew") from error
    written = metadata.pop("sha256", None)  # none before there were any
    if written and written != checksums.of_json([metadata, checksums.of_tensors(tensors)]):
        raise Broken(f"{path}: does not have the sha256 that it was written with; remove it to begin anew")
    if metadata.get("run") != run:
        raise BadInput(
            f"{path}: is the checkpoint of a run with other settings; remove it, or name another checkpoint"
        )
    past = tensors.pop("losses")
    if len(past) > len(losses):
        raise BadInput(
            f"{path}: has done {len(past)} steps, but only {len(losses)} are asked for; remove it to begin anew"
        )
    with torch.no_grad():
        for name, tensor in tensors.items():
            owner, _, rest = name.partition(".")
            if owner in memories:
                memories[owner][rest] = tensor.to(losses.device)
            else:
                state[name].copy_(tensor)
    losses[: len(past)] = past
    return len(past), float(metadata.get("seconds", 0))
