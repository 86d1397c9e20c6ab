"""One mark for each name in every figure: a hue and a form for a method, greys for real images, filled for the variation on it
(low-rank factors, or a real start) and hollow for the method itself."""

import dataclasses

import pandas as pd
import seaborn as sns
from matplotlib.lines import Line2D

COLORS = sns.color_palette("colorblind")
FORMS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMES = {
    "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "convnet": "ConvNet", "convnet3": "ConvNet3", "convnet-bn": "ConvNet, BN",
    "convnet3-bn": "ConvNet3, BN", "mlp": "MLP", "lenet": "LeNet", "alexnet": "AlexNet", "vgg11": "VGG11", "resnet18": "ResNet18",
    "relu": "ReLU", "leaky relu": "leaky ReLU", "tesla": "TESLA",
    "recovered": "recovered (SRe2L)", "nce, other classes": "NCE, other classes", "nce, all others": "NCE, all others",
    "infonce, other classes": "InfoNCE, other classes", "infonce, all others": "InfoNCE, all others",
}  # fmt: skip
CLASSES = {
    "fashion_mnist": (
        "T-shirt",
        "trouser",
        "pullover",
        "dress",
        "coat",
        "sandal",
        "shirt",
        "sneaker",
        "bag",
        "boot",
    ),
    "cifar10": ("plane", "car", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
}


@dataclasses.dataclass(frozen=True)
class Mark:
    """A hue and a form, hollow or filled."""

    color: object
    form: str
    filled: bool = False

    @property
    def seeds(self) -> dict:
        """The keywords of points."""
        return {
            "marker": self.form,
            "edgecolor": self.color,
            "facecolor": self.color if self.filled else "none",
        }

    @property
    def line(self) -> dict:
        """The keywords of a line with this mark at its points."""
        inside = self.color if self.filled else "white"
        return {
            "color": self.color,
            "marker": self.form,
            "markerfacecolor": inside,
            "markeredgecolor": self.color,
            "markeredgewidth": 1,
        }

    def handle(self, label: str, **style) -> Line2D:
        """Its entry in a legend."""
        return Line2D([], [], label=label, **self.line | {"markersize": 4} | style)


INDIGO = (0.30, 0.20, 0.55)
METHODS = {
    "random": Mark("0.6", "<"),
    "herding": Mark("0.35", "P"),
    "SVD": Mark("0.35", "*", True),
    "DC": Mark(COLORS[0], "o"),
    "DSA": Mark(COLORS[1], "s"),
    "DM": Mark(COLORS[2], "^"),
    "MTT": Mark(COLORS[3], "D"),
    "SRe2L": Mark(COLORS[4], "v"),
    "SRe2L, real init": Mark(COLORS[4], "v", True),
    "DWA, Gaussian": Mark(INDIGO, "p"),
    "DWA": Mark(INDIGO, "p", True),
}
SAME = {"random real": "random", "recovered": "SRe2L"}
ALONE = Mark("0.35", "<")  # the method alone, where arms are not methods


def method(name: str) -> Mark:
    """The mark of the method or control `name`; 'Lo…', a method on low-rank factors, is the method's, filled; '…, rescaled' has another
    form. An unknown name is black."""
    plain = SAME.get(name, name).removesuffix(", rescaled")
    known = METHODS.get(plain.removeprefix("Lo"), Mark("black", "o"))
    form = "d" if name.endswith(", rescaled") else known.form
    return Mark(known.color, form, known.filled or plain.startswith("Lo"))


def nth(index: int) -> Mark:
    """The mark of the arm at `index`, where arms are no methods."""
    return Mark(COLORS[index], FORMS[index])


def methods(names) -> dict[str, Mark]:
    """The marks of methods by name, each once and in this order."""
    return {name: method(name) for name in dict.fromkeys(names)}


def arms(names, *alone: str) -> dict[str, Mark]:
    """The marks of arms by name, each once and in this order, `alone` first and grey."""
    others = [name for name in dict.fromkeys(names) if name not in alone]
    return dict.fromkeys(alone, ALONE) | {name: nth(index) for index, name in enumerate(others)}


def class_names(frame: pd.DataFrame) -> tuple:
    """The names of the classes of the frame's dataset, or their numbers."""
    labels = frame["row" if "row" in frame else "label"]
    return CLASSES.get(frame.dataset.iloc[0], tuple(sorted(labels.unique())))
