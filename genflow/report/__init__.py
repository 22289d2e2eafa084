"""The report of a run: report.html, and the sheets of images beside it."""

from genflow.report.figures import densities, lattice
from genflow.report.images import Picture, reconstructions, samples, save_png, sheet, temperatures
from genflow.report.page import write_report

__all__ = [
    "Picture",
    "densities",
    "lattice",
    "reconstructions",
    "samples",
    "save_png",
    "sheet",
    "temperatures",
    "write_report",
]
