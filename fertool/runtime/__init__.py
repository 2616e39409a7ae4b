"""Run a model file of any kind, and measure its latency, size and memory."""

from fertool.config.benchmark import BenchConfig
from fertool.results import BenchResult
from fertool.runtime.benchmark import bench
from fertool.runtime.opening import open_predictor
from fertool.runtime.predictor import Predictor

__all__ = ["BenchConfig", "BenchResult", "Predictor", "bench", "open_predictor"]
