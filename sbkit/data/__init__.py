"""Data sets as uint8 tensors, in memory or mapped from files, and the batches that training takes from them.

A new data set is one file here, whose `find` returns a `Dataset`, and one row in `sources.SOURCES`. From a shell,
`python -m sbkit.data NAME` fetches a data set and says what was found where.
"""

from sbkit.data.batches import AUGMENTATIONS, batches
from sbkit.data.dataset import Dataset
from sbkit.data.sources import SOURCES, data_folder, load

__all__ = ["AUGMENTATIONS", "SOURCES", "Dataset", "batches", "data_folder", "load"]
