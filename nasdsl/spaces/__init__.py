"""Search spaces: decoders with holes; their fillings as integers and as text."""

from nasdsl.spaces.condition import Condition
from nasdsl.spaces.domain import Domain
from nasdsl.spaces.space import Filled, Rejections, Space, SpaceError, load_space, load_space_source, loads_space

__all__ = [
    "Condition",
    "Domain",
    "Filled",
    "Rejections",
    "Space",
    "SpaceError",
    "load_space",
    "load_space_source",
    "loads_space",
]
