"""The mutual information between the features of synthetic and of real images while a set is distilled, with and without MIM4DD."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor

from ddcore.data import Dataset
from ddcore.distillation import distill
from ddcore.methods import Match, method_of
from ddcore.plugins import PLUGINS, MutualInformation
from ddcore.settings import build, versioned
from ddcore.synthetic import create


@versioned(version=1)
def information_curve(
    data: Dataset,
    *,
    seed: int,
    synthetic: Mapping,
    method: Mapping,
    plugins: Mapping,
    budget_ipc: int,
    steps: Sequence[int],
    lr_img: float,
) -> list[dict]:
    """`MutualInformation().information` of one match at each of `steps`, whatever the plugins' own critic.

    Columns: step (updates made before); block; information, in nats; ceiling, log classes.
    """
    chosen = method_of(method)
    terms = [build(PLUGINS[name], settings, f"plugin {name}") for name, settings in sorted(plugins.items())]
    rows, observer, ceiling = [], MutualInformation(), round(math.log(data.classes), 5)

    class Watch:
        def loss(self, match: Match, memory: dict[str, Tensor]) -> Tensor:
            if match.step in steps:
                rows.extend(
                    {
                        "step": match.step,
                        "block": block,
                        "information": round(float(nats), 5),
                        "ceiling": ceiling,
                    }
                    for block, nats in enumerate(observer.information(match))
                )
            return match.loss.new_zeros(())

    found = create(
        data,
        synthetic["kind"],
        budget_ipc,
        seed=seed,
        **{name: value for name, value in synthetic.items() if name != "kind"},
    )
    distill(data, found, chosen, plugins=[*terms, Watch()], steps=max(steps) + 1, lr_img=lr_img, seed=seed)
    return rows
