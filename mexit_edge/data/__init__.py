"""The data sets there are, and the split by subject. Data packages are read from, never imported."""

from mexit_edge.data.catalogue import DATASETS, DataSet, LoadedWindows, dataset, load
from mexit_edge.data.file_stream import FileStream
from mexit_edge.data.files import open_streams
from mexit_edge.data.split import HeldOutTest, Split, hold_out_test, split_by_subject

__all__ = [
    "DATASETS",
    "DataSet",
    "FileStream",
    "HeldOutTest",
    "LoadedWindows",
    "Split",
    "dataset",
    "hold_out_test",
    "load",
    "open_streams",
    "split_by_subject",
]
