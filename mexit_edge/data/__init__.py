"""The data sets there are, and the split by subject. Data packages are read from, never imported."""

from mexit_edge.data.catalogue import DATASETS, DataSet, LoadedWindows, dataset, load
from mexit_edge.data.split import Split, split_by_subject

__all__ = ["DATASETS", "DataSet", "LoadedWindows", "Split", "dataset", "load", "split_by_subject"]
