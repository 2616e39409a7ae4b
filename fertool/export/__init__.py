"""ONNX files: written with everything inside, simplified, and compared with torch before anybody gets them."""

from fertool.export.onnx import ExportOptions, export_model
from fertool.export.parity import Parity, check_parity, require_parity

__all__ = ["ExportOptions", "Parity", "check_parity", "export_model", "require_parity"]
