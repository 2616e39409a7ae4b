"""Run a model file of any kind, and measure how fast, how large and how hungry it is."""

from fertool.runtime.benchmark import BenchConfig, BenchResult, bench
from fertool.runtime.foreign import ForeignModel
from fertool.runtime.sessions import Predictor, open_predictor

__all__ = ["BenchConfig", "BenchResult", "ForeignModel", "Predictor", "bench", "open_predictor"]
