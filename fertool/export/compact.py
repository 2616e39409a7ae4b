from __future__ import annotations
import onnx
def compacted(model): return model
