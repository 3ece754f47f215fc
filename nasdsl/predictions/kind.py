"""The base class of a kind of prediction, and the decorator that checks and registers one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, TypeVar

from nasdsl.layers import plugins
from nasdsl.layers.fields import FieldError, LayerField, fields_of, is_name, value_text, why_no_name
from nasdsl.layers.origins import class_path, described, is_same_class, origin

BoxForm: TypeAlias = Literal["raw", "exp", "relu"]
"""How ``bbox_reg`` comes from a result x and a level's learnt scalar s: x, exp(s * x), or relu(s * x) * stride."""

TOWERS: Final = ("cls", "box")
MAPS: Final = ("cls_logits", "bbox_reg", "centerness")
COMMON: Final = ("kernel", "conv", "share")
"""Attributes that every kind has."""


class PredictionError(ValueError):
    """A kind of prediction that breaks the contract of `PredictionKind`. The message names its package and class."""


class PredictedMap(NamedTuple):
    """One map that the head predicts at each level.

    Attributes:
        name: ``cls_logits``, ``bbox_reg`` or ``centerness``.
        tower: the tower that it reads, ``cls`` or ``box``.
        per_class, fixed: it has ``per_class * classes + fixed`` channels.
    """

    name: str
    tower: str
    per_class: int = 0
    fixed: int = 0


class PredictionKind:
    """Base class of what follows ``predict``: one decorated, frozen dataclass, whose fields are the attributes of the text.

    Fields are as those of `nasdsl.layers.CustomLayer`; ``field(metadata={"least": 1, "largest": 1000})`` bounds an int.
    ``kernel``, ``conv`` and ``share`` are no fields: every kind has them.

    Attributes:
        kind: the name that texts use.
        method: the class with options, targets, losses and detections, derived from `nasdsl.detection.method.Method`, as
            ``package.module:Class``. It needs torch, and is imported when a detector is built.
        boxes_are: what ``bbox_reg`` means; weights of it are inherited only from a kind of the same word, and the same
            `box_form`. None: the name of the kind.
        always_written: fields that the canonical text has although they have their defaults.
        origin: the package and the entry point that it comes from; empty for a class of the program itself.
    """

    kind: ClassVar[str]
    method: ClassVar[str] = ""
    boxes_are: ClassVar[str | None] = None
    always_written: ClassVar[tuple[str, ...]] = ()
    origin: ClassVar[str] = ""

    def maps(self) -> tuple[PredictedMap, ...]:
        """What is predicted: ``cls_logits`` and ``bbox_reg``, and perhaps ``centerness``."""
        raise PredictionError(f"{describe_kind(type(self))} does not say what is predicted: define maps(self)")

    @property
    def box_form(self) -> BoxForm:
        """How the head makes ``bbox_reg``."""
        return "raw"

    def method_options(self) -> dict[str, Any]:
        """Options of `method` that follow from the attributes, so that they cannot be given as well."""
        return {}

    def text(self, common: tuple[str, ...] = ()) -> str:
        """The kind as the canonical text has it: attributes that are not the defaults, and those `always_written`.

        Args:
            common: further attributes, ``kernel=1``.
        """
        shown = [
            f"{field.name}={value_text(getattr(self, field.name))}"
            for field in kind_fields(type(self))
            if field.name in self.always_written or field.required or getattr(self, field.name) != field.default
        ]
        shown += common
        return f"{self.kind}({', '.join(shown)})" if shown else self.kind


KINDS: dict[str, type[PredictionKind]] = {}
"""Registered kinds by the name that texts use."""

_K = TypeVar("_K", bound=type[PredictionKind])


def prediction(name: str) -> Callable[[_K], _K]:
    """Class decorator: register a `PredictionKind` as ``predict name(…)``.

    A package announces the module that holds such classes as an entry point of the group ``nasdsl.predictions``.

    Args:
        name: how texts call it; not the name of another kind.

    Raises:
        PredictionError: the class breaks the contract, or the name is taken.
    """

    def register(cls: _K) -> _K:
        what = f"the prediction `{name}` ({getattr(cls, '__module__', '?')}.{getattr(cls, '__qualname__', cls)!s})"
        if not (isinstance(cls, type) and issubclass(cls, PredictionKind)):
            raise PredictionError(f"{what} is no subclass of PredictionKind")
        if not is_name(name):
            raise PredictionError(f"{what}: its name is {why_no_name(name)}")
        taken = KINDS.get(name)
        if taken is not None and not is_same_class(taken, cls):
            raise PredictionError(f"{what}: the name is taken, by {class_path(taken)}")
        parameters = cls.__dict__.get("__dataclass_params__")
        if parameters is None or not (parameters.frozen and parameters.eq):
            raise PredictionError(f"{what} is no frozen dataclass: put @dataclass(frozen=True, slots=True) below @prediction")
        if cls.maps is PredictionKind.maps:
            raise PredictionError(f"{what} does not say what is predicted: define maps(self)")
        if not (isinstance(cls.method, str) and all(cls.method.partition(":"))):
            raise PredictionError(f"{what} has method={cls.method!r}; expected 'package.module:Class', with targets and losses")
        for field in kind_fields(cls):
            if field.name in COMMON:
                raise PredictionError(f"{what}: every kind has `{field.name}` already; rename the field")
        cls.kind, cls.origin = name, origin()
        KINDS[name] = cls
        return cls

    return register


def kind_fields(cls: type[PredictionKind]) -> tuple[LayerField, ...]:
    """The attributes of a kind.

    Raises:
        PredictionError: a field has a type, default or name that the language cannot express.
    """
    try:
        return fields_of(cls, PredictionKind)
    except FieldError as error:
        raise PredictionError(f"{describe_kind(cls)}: {error}") from None


def describe_kind(cls: type[PredictionKind]) -> str:
    """A kind in messages: its name in texts, its module and class, and the package and entry point it comes from."""
    return described("prediction", cls)


def find_kind(name: str) -> type[PredictionKind] | None:
    """The kind of this name: built in, or registered by an installed package or by the program itself."""
    if name not in KINDS:
        plugins.load_plugins(plugins.PREDICTIONS, KINDS)
    return KINDS.get(name)


def known_kinds() -> list[str]:
    """Names of all kinds, those of installed packages included."""
    plugins.load_plugins(plugins.PREDICTIONS, KINDS)
    return list(KINDS)


def checked_maps(kind: PredictionKind) -> tuple[PredictedMap, ...]:
    """What a kind predicts.

    Raises:
        PredictionError: it is not as `PredictionKind.maps` describes; the message names the kind.
    """
    what = describe_kind(type(kind))
    try:
        maps = tuple(PredictedMap(*each) for each in kind.maps())
    except PredictionError:
        raise
    except Exception as error:
        raise PredictionError(f"{what} fails in maps: {type(error).__name__}: {error}") from error
    names = [each.name for each in maps]
    if names not in (list(MAPS[:2]), list(MAPS)):
        raise PredictionError(
            f"{what} predicts {', '.join(map(str, names)) or 'nothing'}; expected {', '.join(MAPS[:2])}, and perhaps {MAPS[2]}"
        )
    for name, tower, per_class, fixed in maps:
        counts = (per_class, fixed)
        if tower not in TOWERS or not all(type(count) is int and count >= 0 for count in counts) or not any(counts):
            raise PredictionError(
                f"{what}: {name} reads {tower!r} and has {per_class!r} * classes + {fixed!r} channels; expected the tower cls "
                "or box, and whole numbers that are not both 0"
            )
    return maps
