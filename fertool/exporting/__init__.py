"""ONNX files that take raw pixels, simplified and compared with torch before they are written."""

from fertool.exporting.onnx_export import export_model, exported_spec
from fertool.exporting.parity import check_parity, open_onnx, require_parity

__all__ = ["check_parity", "export_model", "exported_spec", "open_onnx", "require_parity"]
