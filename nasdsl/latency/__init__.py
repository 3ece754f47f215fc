"""Latency of detectors: measured (`timing`, sessions of torch, onnxruntime and OpenVINO) and predicted (`prediction`).

`measure_latency` times any function, `measure_latencies` several that are to be compared. `open_session` makes a file ready
to be timed. `predict_latency` and `LatencyPredictor` add up the times of a detector's parts, from a table that they fill. This
module imports no runtime.
"""

from nasdsl.latency.prediction import LatencyPredictor, PredictedLatency, predict_latency
from nasdsl.latency.timing import Latency, Protocol, measure_latencies, measure_latency, wall_timer

__all__ = [
    "Latency",
    "LatencyPredictor",
    "PredictedLatency",
    "Protocol",
    "measure_latencies",
    "measure_latency",
    "predict_latency",
    "wall_timer",
]
