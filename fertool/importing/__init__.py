"""Import of networks from libraries, Python files, exported programs and ONNX files as models."""

from fertool.importing.importer import ImportedNetwork, import_network

__all__ = ["ImportedNetwork", "import_network"]
