"""Import of networks from libraries, Python files, exported programs and ONNX files as models."""

from fertool.importing.importer import ImportedModel, ImportOptions, import_model

__all__ = ["ImportOptions", "ImportedModel", "import_model"]
