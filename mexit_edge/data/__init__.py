"""The data sets there are, and the split by subject. Data packages are read from, never imported."""

from mexit_edge.data.catalogue import DATASETS, DataSet, LoadedWindows, dataset, load
from mexit_edge.data.split import HeldOutTest, Split, hold_out_test, split_by_subject

__all__ = [
    "DATASETS",
    "DataSet",
    "HeldOutTest",
    "LoadedWindows",
    "Split",
    "dataset",
    "hold_out_test",
    "load",
    "split_by_subject",
]
