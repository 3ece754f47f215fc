"""Backbones as modules: those that come with the package, their pre-trained weights, and a place to plug in any other."""

from nasdsl.detection.backbones.extractor import IMAGENET_MEAN, IMAGENET_STD, BackboneError, FeatureExtractor
from nasdsl.detection.backbones.networks import make_backbone

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "BackboneError", "FeatureExtractor", "make_backbone"]
