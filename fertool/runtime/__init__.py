"""Run a model file of any kind, and measure its latency, size and memory."""

from fertool.runtime.bench_result import BenchResult
from fertool.runtime.benchmark import BenchConfig, bench
from fertool.runtime.foreign import ForeignModel
from fertool.runtime.predictor import Predictor
from fertool.runtime.sessions import open_predictor

__all__ = ["BenchConfig", "BenchResult", "ForeignModel", "Predictor", "bench", "open_predictor"]
