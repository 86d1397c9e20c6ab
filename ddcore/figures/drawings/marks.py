"""One look for each name in every figure: the hue and mark of a method, greys for real images, filled for the variation on it (low-rank
factors, or a real start) and hollow for the method itself."""

import dataclasses

import seaborn as sns

COLORS = sns.color_palette("colorblind")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
NAMES = {
    "fashion_mnist": "Fashion-MNIST", "cifar10": "CIFAR-10", "convnet": "ConvNet", "convnet3": "ConvNet3", "convnet-bn": "ConvNet, BN",
    "convnet3-bn": "ConvNet3, BN", "mlp": "MLP", "lenet": "LeNet", "alexnet": "AlexNet", "vgg11": "VGG11", "resnet18": "ResNet18",
    "relu": "ReLU", "leaky relu": "leaky ReLU", "tesla": "TESLA",
    "recovered": "recovered (SRe2L)", "nce, other classes": "NCE, other classes", "nce, all others": "NCE, all others",
    "infonce, other classes": "InfoNCE, other classes", "infonce, all others": "InfoNCE, all others",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Look:
    color: object
    marker: str
    filled: bool = False

    @property
    def line(self) -> dict:
        """The keywords of a line with this mark."""
        return {"color": self.color, "marker": self.marker, "mfc": self.color if self.filled else "white"}

    @property
    def points(self) -> dict:
        """The keywords of marks without a line."""
        return {"marker": self.marker, "ls": "none", "mec": self.color, "mfc": self.color if self.filled else "none"}


INDIGO = (0.30, 0.20, 0.55)
LOOKS = {
    "random": Look("0.6", "<"), "herding": Look("0.35", "P"), "SVD": Look("0.35", "*", True),
    "DC": Look(COLORS[0], "o"), "DSA": Look(COLORS[1], "s"), "DM": Look(COLORS[2], "^"), "MTT": Look(COLORS[3], "D"),
    "SRe2L": Look(COLORS[4], "v"), "SRe2L, real init": Look(COLORS[4], "v", True),
    "DWA, Gaussian": Look(INDIGO, "p"), "DWA": Look(INDIGO, "p", True),
}  # fmt: skip
SAME = {"random real": "random", "recovered": "SRe2L"}


def look(name: str) -> Look:
    """The look of the method or control `name`; 'Lo…', a method on low-rank factors, is the method's, filled; '…, rescaled' has another
    mark. An unknown name is black."""
    plain = SAME.get(name, name).removesuffix(", rescaled")
    found = LOOKS.get(plain.removeprefix("Lo"), Look("black", "o"))
    marker = "d" if name.endswith(", rescaled") else found.marker
    return Look(found.color, marker, found.filled or plain.startswith("Lo"))


def nth(index: int) -> Look:
    """The look of the arm at `index`, where arms are no methods."""
    return Look(COLORS[index], MARKERS[index])
