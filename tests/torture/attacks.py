"""Ways to attack a file: what a stranger, a bad disk or a broken program may have left in its place."""

from __future__ import annotations

import json
import os
import pickle
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from data_folders import voc_object, voc_xml

WAS_RUN = "was_run"
"""Name of the file that a payload makes when it is run."""


class Payload:
    """Runs code when it is unpickled."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def payloads(marker: Path) -> list[Payload]:
    """Ways to run code from a pickle; each makes the file `marker`."""
    return [
        Payload(os.system, f"touch '{marker}'"),
        Payload(Path.touch, marker),
        Payload(exec, f"open({str(marker)!r}, 'w').close()"),
        Payload(eval, f"open({str(marker)!r}, 'w').close()"),
        Payload(getattr, Payload(__import__, "os"), "system"),
    ]


NASTY: list[Any] = [
    None, True, -1, 0, 2**63, 10**300, 1e308, float("inf"), float("nan"), "", "x" * 100_000, "../../etc/passwd", "/etc/passwd",
    "\x00", "\ud800", "<script>", [], {}, [[]], [None] * 1000, {"": 0}, "nan", "1e999", [1, 2, 3, 4],
]  # fmt: skip


def _nasty_json(value: Any, rng: random.Random) -> Any:
    """A value with one of its parts replaced, or left out."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(list(value))
        if rng.random() < 0.15:
            return {name: inner for name, inner in value.items() if name != key}
        return {**value, key: _nasty_json(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], _nasty_json(value[at], rng), *value[at + 1 :]]
    return rng.choice(NASTY)


def on_json(path: Path, rng: random.Random, marker: Path) -> str:
    if rng.random() < 0.3:
        depth = rng.choice([500, 100_000])
        begin, end = rng.choice([("[", "]"), ('{"a":', "}")])
        path.write_text(begin * depth + "1" + end * depth + rng.choice(["", "\n"]))
        return f"JSON {depth} deep"
    if rng.random() < 0.1:
        path.write_text('{"images": ' + "9" * 5000 + "}\n")
        return "a number of 5000 digits"
    text = path.read_text()
    lines = text.splitlines()
    at = rng.randrange(len(lines))
    made = json.dumps(_nasty_json(json.loads(lines[at]), rng))
    path.write_text("\n".join([*lines[:at], made, *lines[at + 1 :]]) + "\n" * text.endswith("\n"))
    return f"JSON with a nasty value: {made[:300]}"


def on_torch(path: Path, rng: random.Random, marker: Path) -> str:
    kind = rng.choice(["pickle", "torch", "old torch", "npz", "compressed", "repeated", "shape", "lists", "members"])
    payload = rng.choice(payloads(marker))
    if kind == "pickle":
        path.write_bytes(pickle.dumps({"step": 1, "model": payload}, protocol=rng.choice([0, 2, 4])))
    elif kind in ("torch", "old torch"):
        torch.save({"step": 1, "conv1.weight": payload, "model": payload}, path, _use_new_zipfile_serialization=kind == "torch")
    elif kind == "npz":
        with path.open("wb") as file:
            np.savez(file, **{"conv1.weight": np.array([payload], dtype=object)})
    elif kind == "compressed":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("archive/data.pkl", pickle.dumps({"step": 1}, protocol=2))
            with archive.open("archive/data/0", "w") as part:
                for _ in range(40):
                    part.write(bytes(1_000_000))
    elif kind == "repeated":
        torch.save({"step": 1, "conv1.weight": torch.zeros(1).expand(10**12)}, path)
    elif kind == "shape":
        empty = torch.sparse_coo_tensor(torch.zeros((1, 0), dtype=torch.int64), torch.zeros(0), (2**40,), check_invariants=True)
        torch.save({"step": 1, "conv1.weight": empty}, path)
    elif kind == "lists":
        value: Any = []
        for _ in range(60):
            value = [value, value]
        torch.save({"step": 1, "model": value}, path)
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("../../was_run", b"")
            archive.writestr("archive/data.pkl", rng.randbytes(50))
    return kind


def on_xml(path: Path, rng: random.Random, marker: Path) -> str:
    kind = rng.choice(["laughs", "entity", "deep", "many", "number"])
    if kind == "laughs":
        entities = "".join(f'<!ENTITY a{i} "{f"&a{i - 1};" * 10}">' for i in range(1, 12))
        head = f'<!DOCTYPE annotation [<!ENTITY a0 "ha">{entities}]>'
        path.write_text(f"{head}<annotation><object><name>&a11;</name></object></annotation>")
    elif kind == "entity":
        head = f'<!DOCTYPE annotation [<!ENTITY x SYSTEM "file://{path.resolve()}">]>'
        path.write_text(f"{head}<annotation><object><name>&x;</name></object></annotation>")
    elif kind == "deep":
        path.write_text("<annotation>" + "<object>" * 50_000 + "</object>" * 50_000 + "</annotation>")
    elif kind == "many":
        path.write_text(voc_xml([voc_object("thing", 5, 5, 20, 20)] * 3000))
    else:
        path.write_text(voc_xml([voc_object("thing", rng.choice(["1e999", "nan", "9" * 5000, "-1"]), 5, 20, 20)]))
    return kind


def on_yaml(path: Path, rng: random.Random, marker: Path) -> str:
    kind = rng.choice(["laughs", "object", "deep", "number", "value"])
    if kind == "laughs":
        lines = ["a0: &a0 [x, x]", *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 12))]
        path.write_text("\n".join([*lines, "names: *a11", "train: *a11", "nc: *a11", "head: *a11", "backbone: *a11"]))
    elif kind == "object":
        path.write_text(f"names: !!python/object/apply:os.system [\"touch '{marker}'\"]\ntrain: images\n")
    elif kind == "deep":
        path.write_text("names: " + "[" * 20_000 + "]" * 20_000)
    elif kind == "number":
        path.write_text(f"nc: {'9' * 5000}\nnames: {{{'9' * 5000}: x}}\ntrain: .\n")
    else:
        path.write_text(yaml.safe_dump(_nasty_json(yaml.safe_load(path.read_text()), rng)))
    return kind


def on_text(path: Path, rng: random.Random, marker: Path) -> str:
    path.write_text(
        rng.choice(
            ["0 " * 200_000, "nan nan nan nan nan\n", "9" * 5000 + " 0 0 1 1\n", "0 0.5 0.5 0.2 0.2\n" * 5000, "{" * 5000]
        )
    )
    return "a text"


def on_bytes(path: Path, rng: random.Random, marker: Path) -> str:
    kind = rng.choice(["cut", "flipped", "empty", "zeros", "noise", "doubled"])
    data = path.read_bytes()
    if kind == "cut":
        data = data[: rng.randrange(len(data))]
    elif kind == "flipped":
        for _ in range(rng.choice([1, 3, 30])):
            at = rng.randrange(len(data))
            data = data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]
    elif kind == "doubled":
        data += data
    else:
        data = {"empty": b"", "zeros": bytes(5000), "noise": rng.randbytes(5000)}[kind]
    path.write_bytes(data)
    return kind


def on_place(path: Path, rng: random.Random, marker: Path) -> str:
    """Something else than a plain file in its place."""
    kind = rng.choice(["pipe", "folder", "circle", "zeros", "nothing", "sparse", "process"])
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "circle":
        path.symlink_to(path.name)
    elif kind == "zeros":
        path.symlink_to("/dev/zero")
    elif kind == "process":
        path.symlink_to("/proc/self/mem")
    elif kind == "sparse":
        with path.open("wb") as file:
            file.truncate(1 << 40)
    return f"{kind} in its place"


ATTACKS = {"json": on_json, "torch": on_torch, "xml": on_xml, "yaml": on_yaml, "text": on_text}
