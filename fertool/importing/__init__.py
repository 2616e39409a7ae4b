"""Networks of other people as models of fertool: libraries, Python files, exported programs, ONNX files."""

from fertool.importing.imported import Imported, ImportOptions, import_model

__all__ = ["ImportOptions", "Imported", "import_model"]
