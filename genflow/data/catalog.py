"""The data sets that scripts/prepare_data.py can fetch, and what their authors say of them."""

from typing import NamedTuple


class Entry(NamedTuple):
    """Where a public data set comes from; for sizes and digests see `download.resources`."""

    files: tuple[str, ...]  # names of the original files
    homepage: str
    license: str
    bins: int = 256
    is_text: bool = False


def _idx(homepage: str, license: str) -> Entry:
    parts = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return Entry(tuple(f"{part}-ubyte.gz" for part in parts), homepage, license)


CATALOG = {
    "mnist": _idx("http://yann.lecun.com/exdb/mnist/", "not stated"),
    "fashion_mnist": _idx("https://github.com/zalandoresearch/fashion-mnist", "MIT"),
    "kmnist": _idx("http://codh.rois.ac.jp/kmnist/", "CC BY-SA 4.0"),
    "binarized_mnist": Entry(
        tuple(f"binarized_mnist_{part}.amat" for part in ("train", "valid", "test")),
        "http://www.cs.toronto.edu/~larocheh/public/datasets/binarized_mnist/",
        "not stated",
        bins=2,
    ),
    "cifar10": Entry(("cifar-10-binary.tar.gz",), "https://www.cs.toronto.edu/~kriz/cifar.html", "not stated"),
    "svhn_cropped": Entry(
        ("train_32x32.mat", "test_32x32.mat"), "http://ufldl.stanford.edu/housenumbers/", "non-commercial use only"
    ),
    "celeb_a": Entry(
        ("list_eval_partition.txt", "img_align_celeba.zip"),
        "http://mmlab.ie.cuhk.edu.hk/projects/CelebA.html",
        "non-commercial research only",
    ),
    "omniglot": Entry(
        ("images_background.zip", "images_evaluation.zip"), "https://github.com/brendenlake/omniglot", "MIT", bins=2
    ),
    "tiny_shakespeare": Entry(("input.txt",), "https://github.com/karpathy/char-rnn", "not stated", is_text=True),
    "text8": Entry(("text8.zip",), "http://mattmahoney.net/dc/textdata.html", "CC BY-SA", is_text=True),
    "enwik8": Entry(("enwik8.zip",), "http://mattmahoney.net/dc/textdata.html", "CC BY-SA", is_text=True),
    "spoken_digit": Entry(
        ("free-spoken-digit-dataset-1.0.9.tar.gz",),
        "https://github.com/Jakobovski/free-spoken-digit-dataset",
        "CC BY-SA 4.0",
    ),
}
