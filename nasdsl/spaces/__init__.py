"""Search spaces: decoders with holes, and the ways between holes, integers and filled text."""

from nasdsl.spaces.space import Domain, Filled, Space, SpaceError, load_space, loads_space

__all__ = ["Domain", "Filled", "Space", "SpaceError", "load_space", "loads_space"]
