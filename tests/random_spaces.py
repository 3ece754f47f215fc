"""Random search spaces, and an obvious way to fill them: by writing.

A space is a tree of words, holes, repeats and calls of definitions with holes. Written as it is, it is the text of the space.
Filled, it is the text of a decoder without holes: repeats are written out turn by turn, with a name of its own for all that is
bound, and each call has a definition of its own.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from nasdsl.spaces import Space


@dataclass(eq=False)
class Hole:
    """One of several parts; of a range or a choice, `word` is what stands for them."""

    alternatives: Sequence[Part]
    word: str = ""


@dataclass(eq=False)
class Repeat:
    """Statements, as often as a hole or a number says."""

    count: Hole | Number | int
    body: Sequence[Part]


@dataclass(eq=False)
class Layers:
    """A layer of a head, as often as a hole says."""

    layer: Part
    count: Hole


@dataclass(eq=False)
class Name:
    """A value, or a word that a `let` binds."""

    word: str


@dataclass(eq=False)
class Bind:
    """A statement that binds a name; that of a `let` ends with the turn of a repeat."""

    name: Name
    value: Part
    is_let: bool = False


@dataclass(eq=False)
class Number:
    """A word that stands for a number: an attribute of a block, or bound by a `let`."""

    word: str


@dataclass(eq=False)
class LetNumber:
    """A `let` of a hole of numbers."""

    number: Number
    hole: Hole


@dataclass(eq=False)
class Choice:
    """Alternatives that have a name."""

    name: str
    alternatives: Sequence[Part]


@dataclass(eq=False)
class Definition:
    """An op, or a block, with holes in its body.

    Attributes:
        before, after: what stands in front of its name and behind its body, as ``op `` and a line end.
        body: operands and what is behind them.
        number: the attribute of a block, ``n``.
    """

    before: str
    body: Sequence[Part]
    after: str
    name: str
    number: Number | None = None


@dataclass(eq=False)
class Call:
    """The name of a definition, where it is called; `given` is its attribute."""

    definition: Definition
    given: Hole | None = None


@dataclass(eq=False)
class Given:
    """The attribute of a call, behind its operands."""

    call: Call


Part: TypeAlias = "str | Hole | Repeat | Layers | Name | Bind | Number | LetNumber | Call | Given | Sequence[Part]"


@dataclass
class RandomSpace:
    """A space that is made at random.

    Attributes:
        text: of the space.
    """

    definitions: Sequence[Definition | Choice]
    body: Part
    text: str = ""
    _places: dict[Hole, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for definition in self.definitions:
            if isinstance(definition, Choice):
                self.text += f"choice {definition.name} = "
                self._write_alternatives(definition.alternatives)
                self.text += "\n"
            else:
                self._write([definition.before, definition.name, definition.body, definition.after])
        self._write(self.body)

    def _write_alternatives(self, alternatives: Sequence[Part]) -> None:
        for number, alternative in enumerate(alternatives):
            self.text += " | " * (number > 0)
            self._write(alternative)

    def _write(self, part: Part) -> None:
        if isinstance(part, str):
            self.text += part
        elif isinstance(part, Hole):
            self._places[part] = len(self.text)
            if part.word:
                self.text += part.word
                return
            self.text += "?("
            self._write_alternatives(part.alternatives)
            self.text += ")"
        elif isinstance(part, Repeat):
            self.text += " repeat "
            self._write(str(part.count) if isinstance(part.count, int) else part.count)
            self.text += " { "
            self._write(part.body)
            self.text += " } "
        elif isinstance(part, Layers):
            self._write(part.layer)
            self.text += " * "
            self._write(part.count)
        elif isinstance(part, Name | Number):
            self.text += part.word
        elif isinstance(part, LetNumber):
            self._write(["let ", part.number, " = ", part.hole, "\n"])
        elif isinstance(part, Given):
            if part.call.given is not None:
                self._write([", n=", part.call.given])
        elif isinstance(part, Bind):
            self.text += f"{'let ' * part.is_let}{part.name.word} = "
            self._write(part.value)
            self.text += "\n"
        elif isinstance(part, Call):
            self.text += part.definition.name
        else:
            for one in part:
                self._write(one)

    def filled(self, space: Space, indices: Sequence[int]) -> str:
        """The text of a filling, without holes.

        Args:
            space: read from `text`.
            indices: of the decisions, in their order.
        """
        filler = _Filler(self._places, space, indices)
        body = filler.write(self.body, {}, is_there=True)
        assert not any(filler.left.values()), "decisions that no hole has"
        return "".join(filler.definitions) + body


class _Filler:
    """Writes a filling. The decisions of a hole, in their order, are those of the turns and calls in which it stands."""

    def __init__(self, places: Mapping[Hole, int], space: Space, indices: Sequence[int]) -> None:
        self.places = places
        self.left: dict[int, list[int]] = {}
        for domain, index in zip(space.domains, indices, strict=True):
            self.left.setdefault(domain.span.start, []).append(index)
        self.definitions: list[str] = []
        self._numbers: dict[Number, tuple[int, int]] = {}  # and the largest that each may be
        self._count = 0

    def choose(self, hole: Hole) -> int:
        """The index of the next decision of a hole."""
        return self.left[self.places[hole]].pop(0)

    def write(self, part: Part, names: dict[str, str], *, is_there: bool) -> str:
        """A part without holes.

        Args:
            names: those that values and words have now, which statements change.
            is_there: whether the part is one of the filling; what is not has decisions too.
        """
        if isinstance(part, str):
            return part
        if isinstance(part, Hole):
            chosen = self.choose(part)
            written = [self.write(one, names, is_there=is_there and at == chosen) for at, one in enumerate(part.alternatives)]
            return written[chosen]
        if isinstance(part, Repeat):
            turns, most = self._turns(part.count)
            return " ".join([self._turn(part.body, names, is_there=is_there and turn < turns) for turn in range(most)])
        if isinstance(part, Layers):
            turns, most = self._turns(part.count)
            return " -> ".join([self.write(part.layer, names, is_there=is_there) for _ in range(most)][:turns])
        if isinstance(part, Name):
            word = self._meant(part, names)
            return names.get(word, word)
        if isinstance(part, Bind) and part.is_let:  # another word for a name, which means what that name means where it is read
            chosen = part.value.alternatives[self.choose(part.value)] if isinstance(part.value, Hole) else part.value
            if is_there:
                names[f"let {part.name.word}"] = self._meant(chosen, names)
            return ""
        if isinstance(part, Bind):
            value = self.write(part.value, names, is_there=is_there)
            if not is_there:
                return ""
            self._count += 1
            name = names[part.name.word] = f"{part.name.word}_{self._count}"
            return f"{name} = {value}\n"
        if isinstance(part, Call):
            definition = part.definition
            self._count += 1
            name = f"{definition.name}_{self._count}"
            if definition.number is not None:
                self._numbers[definition.number] = (1, 1) if part.given is None else self._turns(part.given)
            body = self.write(definition.body, {}, is_there=is_there)
            if is_there:
                self.definitions.append(f"{definition.before}{name}{body}{definition.after}")
            return name
        if isinstance(part, Number):
            return str(self._numbers[part][0])
        if isinstance(part, LetNumber):
            self._numbers[part.number] = self._turns(part.hole)
            return ""
        if isinstance(part, Given):
            return ""
        return "".join([self.write(one, names, is_there=is_there) for one in part])

    def _turn(self, body: Sequence[Part], names: dict[str, str], *, is_there: bool) -> str:
        lets = [f"let {part.name.word}" for part in body if isinstance(part, Bind) and part.is_let]
        before = {word: names[word] for word in lets if word in names}
        written = "".join([self.write(part, names, is_there=is_there) for part in body])
        for word in lets:
            names.pop(word, None)
        names.update(before)
        return written

    @staticmethod
    def _meant(part: Part, names: Mapping[str, str]) -> str:
        """The value that a name, or a word of a `let`, stands for."""
        word = part.word if isinstance(part, Name) else part
        assert isinstance(word, str)
        return names.get(f"let {word}", word)

    def _turns(self, count: Hole | Number | int) -> tuple[int, int]:
        """A number, and the largest that it may be."""
        if isinstance(count, int):
            return count, count
        if isinstance(count, Number):
            return self._numbers[count]
        numbers = [int(str(number)) for number in count.alternatives]
        return numbers[self.choose(count)], max(numbers)


# ------------------------------------------------------------------------------------------------------ at random

OPS = "conv_1x1 conv_3x3 sep_3x3 skip relu norm dconv_3x3".split()
AGGREGATIONS = "sum add cat max weighted_add".split()


class _Maker:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.definitions: list[Definition | Choice] = []
        self.choices: list[Choice] = []
        self.numbers: list[Number] = []
        self.ops: list[Part] = []  # callees
        self.blocks: list[Definition] = []
        self.count = 0

    def new(self, word: str) -> str:
        """A name that nothing has."""
        self.count += 1
        return f"{word}{self.count}"

    def hole(self, *alternatives: Part) -> Hole | Part:
        """A hole with those of the alternatives that differ; of one, that one."""
        written = {RandomSpace((), one).text: one for one in alternatives}
        return Hole(tuple(written.values())) if len(written) > 1 else alternatives[0]

    def some(self, values: Sequence[Part]) -> Sequence[Part]:
        return self.rng.sample(values, min(len(values), self.rng.randint(2, 3)))

    def turns(self, least: int = 0) -> Hole:
        first = self.rng.randint(least, 1)
        last = first + self.rng.randint(1, 2)
        return Hole([str(n) for n in range(first, last + 1)], f"?({first}..{last})")

    def operand(self, values: Sequence[Part], depth: int = 0) -> Part:
        """Something that gives a feature."""
        kind = self.rng.random()
        if kind < 0.5 or depth > 2:
            return self.rng.choice(values)
        if kind < 0.75:
            return self.hole(*(self.operand(values, depth + 1) for _ in range(self.rng.randint(2, 3))))
        return self.call(values, depth + 1)

    def callee(self, depth: int = 0) -> Part:
        """An op of one operand."""
        kind = self.rng.random()
        if kind < 0.35 or depth > 1:
            return self.rng.choice([*OPS, *self.ops])
        if kind < 0.5 and self.choices:
            choice = self.rng.choice(self.choices)
            return Hole(choice.alternatives, f"?{choice.name}")
        return self.hole(*(self.callee(depth + 1) for _ in range(self.rng.randint(2, 3))))

    def call(self, values: Sequence[Part], depth: int = 0) -> Part:
        kind = self.rng.random()
        if kind < 0.55:
            return [self.callee(), "(", self.operand(values, depth), ")"]
        if kind < 0.8:
            op = self.hole(*self.rng.sample(AGGREGATIONS, 2)) if self.rng.random() < 0.3 else self.rng.choice(AGGREGATIONS)
            return [op, "(", self.operand(values, depth), ", ", self.operand(values, depth), ")"]
        k: Part = self.rng.choice([self.hole("1", "3"), "3", *self.numbers])
        act: Part = self.hole("relu", "none", "silu") if self.rng.random() < 0.3 else "none"
        return ["conv(", self.operand(values, depth), ", k=", k, ", act=", act, ")"]

    def statements(self, values: list[Part], count: int, depth: int = 0) -> Iterator[Part]:
        """Statements that read and bind values; `values` are those that later ones may read, and grow."""
        words = ["v", "w"]  # a body binds a word once, and may hide that of the body around it
        for _ in range(count):
            kind = self.rng.random()
            own = [value for value in values if isinstance(value, Name) and value.word[0] in "xyz"]
            if kind < 0.25 or not own or (depth == 0 and kind < 0.4):
                yield Bind(name := Name(self.new("x")), self.call(values))
                values.append(name)
            elif kind < 0.4:  # only in a repeat a name may be bound again
                yield Bind(self.rng.choice(own), self.call(values))
            elif kind < 0.7 and depth < 2:
                body = list(self.statements(list(values), self.rng.randint(1, 3), depth + 1))
                yield Repeat(self.rng.choice([self.turns(), self.turns(), self.rng.randint(1, 3), *self.numbers]), body)
            elif kind < 0.85:
                word = words.pop(self.rng.randrange(len(words))) if words else self.new("v")
                yield Bind(name := Name(word), self.hole(*self.some(values)), is_let=True)
                if self.rng.random() < 0.7:
                    target = self.rng.choice(own) if depth else Name(self.new("z"))
                    yield Bind(target, [self.rng.choice(AGGREGATIONS), "(", name, ", ", self.operand(values), ")"])
                    values += [target] * (depth == 0)
                if all(not isinstance(value, Name) or value.word != name.word for value in values):
                    values.append(name)
            elif self.blocks:
                call = Call(self.rng.choice(self.blocks), Hole(["1", "3"]) if self.rng.random() < 0.6 else None)
                yield Bind(name := Name(self.new("y")), [call, "(", self.operand(values), Given(call), ")"])
                values.append(name)
            elif depth == 0 and self.rng.random() < 0.5:
                self.numbers.append(number := Number(self.new("k")))
                yield LetNumber(number, Hole(["1", "3"]))
            elif depth == 0:
                name = self.new("s")
                yield ["shared ", name, "(x) = ", self.callee(), "(x)\n"]
                self.ops.append(name)

    def make(self) -> RandomSpace:
        rng = self.rng
        for _ in range(rng.randint(0, 2)):
            definition = Definition("op ", ["(x) = ", self.call(["x"]), "\n"], "", self.new("f"))
            self.definitions.append(definition)
            self.ops.append(Call(definition))
        for _ in range(rng.randint(0, 2)):
            if isinstance(found := self.hole(*(self.callee(1) for _ in range(3))), Hole) and not found.word:
                self.choices.append(Choice(self.new("q"), found.alternatives))
                self.definitions.append(self.choices[-1])
        for _ in range(rng.randint(0, 2)):
            ops = list(self.ops)
            self.numbers = [Number("n")]
            values: list[Part] = ["x"]
            body = [*self.statements(values, rng.randint(1, 3)), "y = ", self.call(values)]
            definition = Definition("block ", ["(x, n=1) -> (y) { ", body, " }\n"], "", self.new("b"), self.numbers[0])
            self.ops, self.numbers = ops, []
            self.definitions.append(definition)
            self.blocks.append(definition)
        values = ["c3", "c4", "c5"]
        body = list(self.statements(values, rng.randint(2, 6)))
        norm: Part = self.hole("bn", "none") if rng.random() < 0.3 else "bn"
        layer: Part = self.hole("conv_3x3", "skip", "sep_3x3") if rng.random() < 0.7 else "conv_3x3"
        head: Part = Layers(layer, self.turns(1)) if rng.random() < 0.5 else layer
        last: Part = ["output p3 = ", self.call(values), ", p4 = ", self.operand(values), "\n"]
        if rng.random() < 0.3:
            last = [last, "merge dangling into p3\n"]
        frame = ["decoder t {\ninput c3, c4, c5\nfpn(width=32, norm=", norm, ") {\n", body, last, "}\n"]
        return RandomSpace(self.definitions, [frame, "head(width=32, norm=gn) { ", head, " }\npredict fcos\n}\n"])


def random_space(seed: int) -> RandomSpace:
    """A space with holes in every place, most of them nested in others, in repeats and in definitions."""
    return _Maker(random.Random(f"space {seed}")).make()
