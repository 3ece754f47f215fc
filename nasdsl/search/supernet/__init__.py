"""Weight-sharing networks: one training for all decoders of a space."""

from nasdsl.search.supernet.spec import SupernetSpec
from nasdsl.search.supernet.training import Supernet

__all__ = ["Supernet", "SupernetSpec"]
