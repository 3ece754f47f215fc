"""Search spaces: decoders with holes; their fillings as integers and as text."""

from nasdsl.spaces.space import Domain, Filled, Rejections, Space, SpaceError, load_space, loads_space

__all__ = ["Domain", "Filled", "Rejections", "Space", "SpaceError", "load_space", "loads_space"]
