"""The table of datasets: what is known of each before any file is opened.

`content` is the hash of the pixels and labels in canonical order (see load.py). It stands here
so that a run's id can be computed without the data, and so that a damaged or different copy is
recognised when it is loaded. Adding a dataset that torchvision parses is one entry.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Dataset:
    """One dataset's facts.

    reader: how load.py reads it. size: side length in pixels. mean, std: per channel, of the
    training images scaled to [0, 1]. train, test: number of images. where: its place under
    HYPERSPHERE_DATA. content: sha256 over labels and pixels in canonical order.
    """

    reader: str
    classes: tuple[str, ...]
    size: int
    channels: int
    train: int
    test: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    where: str
    content: str
    citation: str

    @property
    def num_classes(self) -> int:
        return len(self.classes)


DATASETS: dict[str, Dataset] = {
    "digits": Dataset(
        reader="digits",
        classes=tuple("0123456789"),
        size=8,
        channels=1,
        train=1442,
        test=355,
        mean=(0.3059,),
        std=(0.3759,),
        where="(inside scikit-learn)",
        content="03d4481c555ef2f0bab7c81e47eacaca549e2d61b3f35afd31a3b1e8c8c9d825",
        citation="Alpaydin and Kaynak 1998, UCI optical recognition of handwritten digits",
    ),
    "mnist": Dataset(
        reader="torchvision.MNIST",
        classes=tuple("0123456789"),
        size=28,
        channels=1,
        train=60_000,
        test=10_000,
        mean=(0.1307,),
        std=(0.3081,),
        where="MNIST/raw",
        content="92fad6d7eece4ce1ad78c4b5f3eefce6298b6761126ea8852c529e5d0e3ef09d",
        citation="LeCun et al. 1998, Gradient-based learning applied to document recognition",
    ),
    "fashion_mnist": Dataset(
        reader="torchvision.FashionMNIST",
        classes=(
            "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
            "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
        ),
        size=28,
        channels=1,
        train=60_000,
        test=10_000,
        mean=(0.2860,),
        std=(0.3530,),
        where="FashionMNIST/raw",
        content="3044aab548cd084a3957c64fda540ee2c9fd2979db96d6f8c6826b75015b6f37",
        citation="Xiao et al. 2017, Fashion-MNIST",
    ),
    "cifar10": Dataset(
        reader="torchvision.CIFAR10",
        classes=(
            "airplane", "automobile", "bird", "cat", "deer",
            "dog", "frog", "horse", "ship", "truck",
        ),
        size=32,
        channels=3,
        train=50_000,
        test=10_000,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2470, 0.2435, 0.2616),
        where="cifar-10-batches-py (official) or cifar10/{train,test}/<class>/*.png",
        content="888f3050437ccdfa1d6885bd5e1b5a742fbbac06e774c1525c96ba7348a58294",
        citation="Krizhevsky 2009, Learning multiple layers of features from tiny images",
    ),
}  # fmt: skip
