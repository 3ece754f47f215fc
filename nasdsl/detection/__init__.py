"""Detectors on top of a decoder: backbones, targets, losses, and boxes out of predictions."""
