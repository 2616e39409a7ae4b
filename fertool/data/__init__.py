"""Face data: one data set type behind all readers."""

from fertool.data.dataset import FaceDataset
from fertool.data.source import DataOptions, DataSource, open_data

__all__ = ["DataOptions", "DataSource", "FaceDataset", "open_data"]
