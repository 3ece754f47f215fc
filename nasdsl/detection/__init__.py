"""Detectors around a decoder: backbones, FCOS and RetinaNet, postprocessing, weights."""
