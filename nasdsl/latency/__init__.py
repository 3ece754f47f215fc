"""Latency of detectors: the protocol (`timing`), and sessions of torch, onnxruntime and OpenVINO that it times.

`measure_latency` times any function, `measure_latencies` several that are to be compared. `open_session` makes a file ready
to be timed. This module imports no runtime.
"""

from nasdsl.latency.timing import Latency, Protocol, measure_latencies, measure_latency, wall_timer

__all__ = ["Latency", "Protocol", "measure_latencies", "measure_latency", "wall_timer"]
