"""The five tables on which autoregressive flows are compared, with their authors' own preprocessing and splits.

Reference: Papamakarios et al. (2017), Masked autoregressive flow for density estimation, arXiv:1705.07057, appendix D
  and the official code. A tenth of the rows is the test part, a tenth of the rest the validation part.
"""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from genflow.core import Spec
from genflow.data import arrays
from genflow.data.dataset import in_memory
from genflow.data.embedded import Source
from genflow.errors import UserError

HOMEPAGE = "https://zenodo.org/records/1161203"  # data.tar.gz, which holds the folders of `Table.files`
UCI = "CC BY 4.0 (UCI)"
MAX_CORRELATION = 0.98
MAX_REPEATS = 5  # of a column's smallest value; columns with more are discrete
NOISE_SEED = 42  # of POWER: the order of the rows, then the noise
TO_NPY = (
    "python -c \"import numpy, pandas; numpy.save('ethylene_CO.npy', pandas.read_pickle('ethylene_CO.pickle')"
    ".drop(columns=['Meth', 'Eth', 'Time']).to_numpy())\""
)

Rows = Float[np.ndarray, "N D"]
Parts = tuple[Rows, Rows, Rows]  # train, validation, test


class Table(NamedTuple):
    """Which files a table is read from, and how they become its three parts."""

    files: tuple[str, ...]
    read: Callable[..., Parts]
    license: str = UCI
    remedy: str = f"unpack data.tar.gz of {HOMEPAGE} and set data.data_dir to the folder 'data' that it makes"


def table(name: str, folders: list[Path]) -> Source:
    """Reads one of `TABLES` from the first of the folders that has it, as continuous vectors in float32.

    Raises:
      UserError: a file is missing, damaged or not what it should be; names it and the remedy.
    """
    wanted = TABLES[name]
    candidates = [[folder / file for file in wanted.files] for folder in folders]
    paths = next((paths for paths in candidates if all(p.is_file() for p in paths)), None)
    if paths is None:
        missing = next(p for p in candidates[0] if not p.is_file())
        raise UserError(f"data.name={name!r}: no file {missing}; {wanted.remedy}")
    parts = [part.astype(np.float32) for part in wanted.read(*paths)]
    spec = Spec(name, parts[0].shape[1:], None, source=HOMEPAGE, license=wanted.license)
    return spec, dict(zip(("train", "validation", "test"), map(in_memory, parts), strict=True))


def power(path: Path) -> Parts:
    """Household power: rows shuffled, two columns dropped, uniform noise of one unit of the last digit added."""
    rng = np.random.RandomState(NOISE_SEED)
    x = _array(path, 8)
    rng.shuffle(x)
    x = np.delete(x, (1, 3), axis=1)
    voltage, active, meters = (scale * rng.rand(len(x), n) for scale, n in ((0.01, 1), (0.001, 1), (1.0, 3)))
    x += np.hstack([active, voltage, meters, np.zeros((len(x), 1))])
    return _standardized(*_tenths(x))


def gas(path: Path) -> Parts:
    """Gas sensors: columns that correlate above 0.98 dropped one by one, standardized with the test rows included."""
    x = _array(path, 16)
    while (crowded := (np.corrcoef(x, rowvar=False) > MAX_CORRELATION).sum(1) > 1).any():
        x = np.delete(x, np.argmax(crowded), axis=1)
    return _tenths((x - x.mean(0)) / x.std(0, ddof=1))


def hepmass(train: Path, test: Path) -> Parts:
    """Particle collisions of mass 1000: signal only; standardized; columns whose smallest value recurs are dropped."""
    x, x_test = (_signal(path) for path in (train, test))
    x_test = x_test[:, : x.shape[1]]  # the test file has one column more
    mean, std = x.mean(0), x.std(0, ddof=1)
    kept = (x == x.min(0)).sum(0) <= MAX_REPEATS
    x, x_test = (((rows - mean) / std)[:, kept] for rows in (x, x_test))
    num = len(x) // 10
    return x[:-num], x[-num:], x_test


def miniboone(path: Path) -> Parts:
    """Neutrino events, whose outliers and discrete columns the authors had already removed."""
    return _standardized(*_tenths(_array(path, 43)))


def bsds300(path: Path) -> Parts:
    """8x8 patches of gray photographs with noise, mean removed, last pixel dropped; the authors' own parts."""
    try:
        import h5py
    except ImportError as error:
        raise UserError("data.name='bsds300' is an HDF5 file, which needs h5py: pip install h5py") from error
    try:
        with h5py.File(path, "r") as file:
            return tuple(_checked(path, file[part][:], 63) for part in ("train", "validation", "test"))
    except (OSError, KeyError) as error:
        raise UserError(f"{path} is damaged or lacks a part ({error}); unpack it again") from error


TABLES = {
    "power": Table(("power/data.npy",), power),
    "gas": Table(
        ("gas/ethylene_CO.npy",),
        gas,
        remedy=f"data.tar.gz of {HOMEPAGE} has it as a pickle, a program that genflow never runs; convert it: {TO_NPY}",
    ),
    "hepmass": Table(("hepmass/1000_train.csv", "hepmass/1000_test.csv"), hepmass),
    "miniboone": Table(("miniboone/data.npy",), miniboone),
    "bsds300": Table(("BSDS300/BSDS300.hdf5",), bsds300, license="non-commercial research only"),
}


def _array(path: Path, columns: int) -> Rows:
    """Reads an .npy file without pickle."""
    return _checked(path, arrays.read(path, "unpack it again")["x_train"], columns)


def _checked(path, x, columns):
    if x.ndim != 2 or x.shape[1] != columns or x.dtype.kind not in "iuf" or len(x) < 100:
        raise UserError(f"{path} holds {x.dtype} {x.shape}, wanted numbers [100 or more, {columns}]")
    return x.astype(np.float64)


def _signal(path: Path) -> Rows:
    """Rows of class 1, without the column of the class."""
    try:
        x = np.loadtxt(path, delimiter=",", skiprows=1, ndmin=2)
    except ValueError as error:
        raise UserError(f"{path} is no table of numbers below a line of names ({error}); unpack it again") from error
    return x[x[:, 0] == 1, 1:]


def _tenths(x: Rows) -> Parts:
    """The last tenth is the test part, the last tenth of what is before it the validation part."""
    rest, test = x[: -(len(x) // 10)], x[-(len(x) // 10) :]
    return rest[: -(len(rest) // 10)], rest[-(len(rest) // 10) :], test


def _standardized(train: Rows, validation: Rows, test: Rows) -> Parts:
    """Mean 0, variance 1 over the first two parts."""
    both = np.concatenate([train, validation])
    mean, std = both.mean(0), both.std(0)
    return tuple((part - mean) / std for part in (train, validation, test))
