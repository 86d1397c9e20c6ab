"""Our export under the real ddranking 0.2.0, which has dependencies of its own: `make test-ddranking` installs it beside this environment.

DDRANKING names the folder that it was installed into; its evaluators run in a process of their own, on data that we generate.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import ddcore
from ddcore.data import Dataset
from ddcore.random import stream
from ddcore.synthetic import export

FOLDER = os.environ.get("DDRANKING")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not FOLDER, reason="ddranking is not installed (`make test-ddranking` does it)"),
]

# Evaluates sys.argv[1] as the documentation of 0.2.0 does. Only its dataset is replaced, by the two tensors that it would have read.
EVALUATE = """
import json, sys, torch
from torchvision import transforms
import ddranking.metrics.hard_label as module
from ddranking.utils import TensorDataset
folder, way, classes = sys.argv[1], sys.argv[2], 10
images, labels, lr = (torch.load(f"{folder}/{name}.pt", weights_only=True) for name in ("images", "labels", "lr"))
class Real(TensorDataset):
    def __getitem__(self, index):
        return self.images[index], int(self.targets[index])
real = Real(*torch.load(f"{folder}-real.pt", weights_only=True))
mapping = {label: label for label in range(classes)}
mean, std = [0.4914, 0.4822, 0.4465], [0.2023, 0.1994, 0.2010]
module.get_dataset = lambda *given: (3, (8, 8), mean, std, classes, real, real, real, mapping, mapping)
as_tensors = transforms.Compose([transforms.ToTensor(), transforms.Normalize(mean, std)])
evaluator = module.LabelRobustScoreHard(dataset="CIFAR10", ipc=len(labels) // classes, model_name="ConvNet-3", data_aug_func=None,
    num_eval=1, im_size=(8, 8), num_epochs=10, step_size=10, num_workers=0, save_path=f"{folder}-scores/scores.csv", device="cpu",
    random_data_path=f"{folder}-random", eval_full_data=True, custom_train_trans=as_tensors if way == "image_path" else None)
seen, helper = [], evaluator._compute_hard_label_metrics_helper
def watch(**given):
    accuracy, rate = helper(**given)
    seen.append([accuracy, rate, given["mode"]])
    return accuracy, rate
evaluator._compute_hard_label_metrics_helper = watch
source = {"image_path": f"{folder}/images"} if way.startswith("image_path") else {"image_tensor": images, "hard_labels": labels}
failed = ""
try:
    evaluator.compute_metrics(**source, syn_lr=lr)
except Exception as error:
    failed = f"{type(error).__name__}: {error}"
print(json.dumps({"seen": seen, "failed": failed}))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Ten classes told apart by their colour, and a set of two images a class that has learned a step size, as exported."""
    pixels = (
        torch.rand(10, 3, 1, 1, generator=stream(0, "colour")).repeat_interleave(20, 0).repeat(1, 1, 8, 8)
    )
    pixels = (pixels + 0.05 * torch.rand(pixels.shape, generator=stream(0, "noise"))).clamp(0, 1)
    mean, std = (0.5071, 0.4866, 0.4409), (0.2673, 0.2564, 0.2762)
    x, y = (
        (pixels - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1),
        torch.arange(10).repeat_interleave(20),
    )
    made = ddcore.Pixels(
        Dataset("cifar10", x, y, x, y, mean, std, "0" * 64, tuple("abcdefghij")), 2, step=0.02
    )
    found = tmp_path_factory.mktemp("ddranking") / "set"
    export.ddranking(made, found)
    theirs = [torch.tensor(values).view(1, 3, 1, 1) for values in export.CIFAR]
    torch.save([(pixels - theirs[0]) / theirs[1], y], f"{found}-real.pt")
    return found


def evaluated(folder: Path, way: str) -> dict:
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", EVALUATE, str(folder), way], capture_output=True, encoding="utf-8",
                          timeout=600, cwd=folder.parent, env=dict(os.environ) | {"PYTHONPATH": str(Path(FOLDER).resolve())})  # fmt: skip
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("way", ["image_tensor", "image_path"])
def test_its_hard_evaluator_trains_on_the_export_with_the_learned_step_and_then_returns_no_score(folder, way):
    found = evaluated(folder, way)
    (accuracy, rate, _), *others = found["seen"]
    assert rate == pytest.approx(0.02)
    assert accuracy > 60, "of ten classes: images, labels and normalisation are those of its test images"
    assert [mode for _, _, mode in others] == ["real", "syn"], (
        "the whole data and random images were trained on too"
    )
    assert "same length" in found["failed"], (
        "if 0.2.0 no longer fails here, say so in ddcore.synthetic.export.ddranking"
    )


def test_images_need_a_transform_of_their_own(folder):
    assert evaluated(folder, "image_path, bare")["failed"].startswith("TypeError"), (
        "PIL images are no batch without custom_train_trans"
    )
