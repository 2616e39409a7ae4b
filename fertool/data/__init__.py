"""Face data: one data set type behind all readers."""

from fertool.data.dataset import FaceDataset
from fertool.data.opening import open_data
from fertool.data.options import DataOptions
from fertool.data.source import DataSource

__all__ = ["DataOptions", "DataSource", "FaceDataset", "open_data"]
