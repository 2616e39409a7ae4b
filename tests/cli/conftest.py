"""Make `onnx_files` importable: with importlib's import mode no test folder is on the path."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "runtime"))
