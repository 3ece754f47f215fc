"""Backbone modules: the built-in ones, their pre-trained weights, and `FeatureExtractor` to wrap any other network."""

from nasdsl.detection.backbones.extractor import IMAGENET_MEAN, IMAGENET_STD, BackboneError, FeatureExtractor
from nasdsl.detection.backbones.networks import make_backbone

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "BackboneError", "FeatureExtractor", "make_backbone"]
