"""What a disk holds after a power cut: calls on files are recorded, and states that they may have left are made of them.

Recorded are the calls of Python's `open` and `os` on the files of one folder. The states follow POSIX, strictly: what a file
holds is on the disk from its fsync on, a name from the fsync of its folder on, and a rename is there or not. Of what was not
synced, any write may be missing, be zeros or be cut at any byte, and of the names in a folder there may be any first part, in
order.
(As ALICE does: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.)
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

FOLDER = -1
"""Stands for the identity of a folder."""


@dataclass(frozen=True)
class Call:
    """A call that changes the disk, or makes changes durable.

    Attributes:
        kind: ``name`` (a name is given to a file, taken from it, or both), ``write``, ``truncate``, ``sync``,
            ``sync folder``, or ``mark`` (something was acknowledged).
        file: identity of the file.
        path, old: the name that it gets, and the one that it loses, relative to the folder.
        offset: of a write; the length of a truncation.
        data: of a write; of a mark what was acknowledged.
    """

    kind: str
    file: int = 0
    path: str | None = None
    old: str | None = None
    offset: int = 0
    data: Any = b""


@dataclass
class Recorder:
    """Records what happens in a folder, and lets a call fail.

    Attributes:
        calls: in order.
        fail_at: number, from 0, of the write, sync or rename that fails; None: none.
        error: what it fails with.
        failed: whether it has.
    """

    root: Path
    fail_at: int | None = None
    error: int = errno.ENOSPC
    calls: list[Call] = field(default_factory=list)
    failed: bool = False
    _files: dict[tuple[int, int], int] = field(default_factory=dict)
    _names: dict[str, int] = field(default_factory=dict)
    _next: int = 1
    _could_fail: int = 0
    _is_full: bool = False

    def mark(self, what: Any) -> None:
        """Record that something has been acknowledged: from here on it must not be lost."""
        self.calls.append(Call("mark", data=what))

    # ------------------------------------------------------------------------------------------ what is called

    def _inside(self, path: Any) -> str | None:
        """The path relative to the folder; None outside of it."""
        if isinstance(path, int):
            return None
        full = os.path.abspath(os.fsdecode(path))
        root = str(self.root)
        return os.path.relpath(full, root) if full == root or full.startswith(root + os.sep) else None

    def _may_fail(self, path: str | None = None) -> None:
        """Let a sync, a rename or a new folder fail, if it is the one that is to."""
        if self._is_next() or self._is_full:
            self._fail(path)

    def _accepted(self, data: Any) -> Any:
        """What of a write is written: all, or the half that fits on the disk, and then the next write fails."""
        if self._is_full:
            self._fail()
        if self._is_next():
            self._is_full = True
            if len(data) < 2:
                self._fail()
            return data[: len(data) // 2]
        return data

    def _is_next(self) -> bool:
        if self.fail_at is None or self.failed or self._is_full:
            return False
        self._could_fail += 1
        return self._could_fail > self.fail_at

    def _fail(self, path: str | None = None) -> None:
        self.failed, self._is_full = True, False
        raise OSError(self.error, os.strerror(self.error), *([path] if path else []))

    def _opened(self, descriptor: int, path: str, existed: bool, truncated: bool) -> int:
        state = os.fstat(descriptor)
        key = (state.st_dev, state.st_ino)
        if not existed:
            self._files[key] = self._next
            self._next += 1
            self._names[path] = self._files[key]
            self.calls.append(Call("name", self._files[key], path))
        elif truncated:
            self.calls.append(Call("truncate", self._files[key]))
        return self._files[key]

    def _written(self, file: int, offset: int, data: Any) -> None:
        self.calls.append(Call("write", file, offset=offset, data=bytes(data)))

    @contextmanager
    def recording(self) -> Iterator[Recorder]:
        """Record within the block. The folder must be empty, or not there yet, at the first one."""
        recorder, real, open_ = self, {name: getattr(os, name) for name in _PATCHED}, io.open
        descriptors: dict[int, int] = {}

        class Raw(io.FileIO):
            def __init__(self, path: Any, mode: str, opener: Any) -> None:
                inside = recorder._inside(path)
                existed = os.path.lexists(path)
                super().__init__(path, mode, opener=opener)
                assert inside is not None
                self._identity = recorder._opened(self.fileno(), inside, existed, "w" in mode)
                self._appends = "a" in mode

            def write(self, data: Any) -> int:
                data = recorder._accepted(data)
                offset = os.fstat(self.fileno()).st_size if self._appends else self.tell()
                recorder._written(self._identity, offset, data)
                return super().write(data)

            def truncate(self, size: int | None = None) -> int:
                size = self.tell() if size is None else size
                recorder.calls.append(Call("truncate", self._identity, offset=size))
                return super().truncate(size)

        def opened(
            file: Any, mode: str = "r", buffering: int = -1, encoding: Any = None, errors: Any = None, newline: Any = None,
            closefd: bool = True, opener: Any = None,
        ) -> Any:  # fmt: skip
            if isinstance(file, int) or recorder._inside(file) is None or not set(mode) & set("wax+"):
                return open_(file, mode, buffering, encoding, errors, newline, closefd, opener)
            raw = Raw(file, mode.replace("b", "").replace("t", ""), opener)
            buffer = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
            return buffer if "b" in mode else io.TextIOWrapper(buffer, encoding, errors, newline)

        def os_open(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            inside = None if more else recorder._inside(path)
            existed = os.path.lexists(path) if inside is not None else True
            descriptor: int = real["open"](path, flags, mode, **more)
            if inside is not None and os.path.isfile(path) and (not existed or flags & (os.O_WRONLY | os.O_RDWR)):
                descriptors[descriptor] = recorder._opened(descriptor, inside, existed, bool(flags & os.O_TRUNC))
            return descriptor

        def write(descriptor: int, data: Any) -> int:
            if descriptor in descriptors:
                data = recorder._accepted(data)
                recorder._written(descriptors[descriptor], os.lseek(descriptor, 0, os.SEEK_CUR), data)
            return int(real["write"](descriptor, data))

        def ftruncate(descriptor: int, length: int) -> None:
            if descriptor in descriptors:
                recorder.calls.append(Call("truncate", descriptors[descriptor], offset=length))
            real["ftruncate"](descriptor, length)

        def fsync(descriptor: int) -> None:
            path = os.readlink(f"/proc/self/fd/{descriptor}")
            inside = recorder._inside(path)
            if inside is not None:
                recorder._may_fail()
            real["fsync"](descriptor)
            state = os.fstat(descriptor)
            if inside is not None and os.path.isdir(path):
                recorder.calls.append(Call("sync folder", FOLDER, inside))
            elif (state.st_dev, state.st_ino) in recorder._files:
                recorder.calls.append(Call("sync", recorder._files[state.st_dev, state.st_ino]))

        def close(descriptor: int) -> None:
            descriptors.pop(descriptor, None)
            real["close"](descriptor)

        def renamed(which: str) -> Callable[..., None]:
            def rename(source: Any, target: Any, **more: Any) -> None:
                old, new = recorder._inside(source), recorder._inside(target)
                if new is not None:
                    recorder._may_fail(new)
                same = which != "link" and os.path.exists(target) and os.path.samefile(source, target)
                real[which](source, target, **more)
                if old is not None and new is not None and not same:
                    file = recorder._names[old]
                    if which != "link":
                        del recorder._names[old]
                    recorder._names[new] = file
                    recorder.calls.append(Call("name", file, new, None if which == "link" else old))

            return rename

        def removed(which: str) -> Callable[..., None]:
            def remove(path: Any, *more: Any, dir_fd: Any = None, **others: Any) -> None:
                full = path if dir_fd is None else os.path.join(os.readlink(f"/proc/self/fd/{dir_fd}"), path)
                inside = recorder._inside(full)
                real[which](path, *more, dir_fd=dir_fd, **others)
                if inside is not None:
                    recorder.calls.append(Call("name", recorder._names.pop(inside, FOLDER), None, inside))

            return remove

        def mkdir(path: Any, *more: Any, **others: Any) -> None:
            inside = recorder._inside(path)
            if inside is not None and not os.path.lexists(path):
                recorder._may_fail(inside)
            real["mkdir"](path, *more, **others)
            if inside is not None:
                recorder._names[inside] = FOLDER
                recorder.calls.append(Call("name", FOLDER, inside))

        patches: dict[str, Any] = {
            "open": os_open, "write": write, "ftruncate": ftruncate, "fsync": fsync, "close": close, "mkdir": mkdir,
            **{name: renamed(name) for name in ("rename", "replace", "link")},
            **{name: removed(name) for name in ("unlink", "remove", "rmdir")},
        }  # fmt: skip
        with (
            mock.patch.multiple(os, **patches),
            mock.patch.object(io, "open", opened),
            mock.patch.object(builtins, "open", opened),
        ):
            yield self


_PATCHED = ("open", "write", "ftruncate", "fsync", "close", "rename", "replace", "link", "unlink", "remove", "rmdir", "mkdir")

MODES = ("all", "nothing", "names alone", "contents alone", "names and zeros", "anything")
"""What of the changes that were not synced is on the disk."""


def acknowledged(calls: list[Call], until: int) -> list[Any]:
    """What was acknowledged by the calls before one."""
    return [call.data for call in calls[:until] if call.kind == "mark"]


def write_state(calls: list[Call], until: int, mode: str, rng: random.Random, folder: Path) -> None:
    """Write what the disk may hold when the machine fails before the call with this number.

    Args:
        mode: of `MODES`.
        folder: to write it to; it is made.
    """
    names, contents = _state(calls[:until], mode, rng)
    folder.mkdir()
    for path in sorted(names):
        target = folder / path
        if path != "." and not all(names.get(str(parent)) == FOLDER for parent in Path(path).parents if str(parent) != "."):
            continue  # its folder is lost
        if names[path] == FOLDER:
            target.mkdir(exist_ok=True)
        else:
            target.write_bytes(contents.get(names[path], b""))


def _state(calls: list[Call], mode: str, rng: random.Random) -> tuple[dict[str, int], dict[int, bytearray]]:
    durable = _durable(calls)
    names: dict[str, int] = {}
    contents: dict[int, bytearray] = {}
    ends: dict[str, bool] = {}  # folders of which no later name is there
    last = max((n for n, call in enumerate(calls) if call.kind == "write"), default=-1)
    for number, call in enumerate(calls):
        if call.kind == "name":
            places = {os.path.dirname(path) for path in (call.path, call.old) if path is not None}
            is_there = durable[number] or mode in ("all", "names alone", "names and zeros")
            if mode == "anything" and not durable[number]:
                is_there = not any(ends.get(place) for place in places) and rng.random() < 0.7
                ends |= {place: ends.get(place, False) or not is_there for place in places}
            if is_there:
                if call.old is not None:
                    names.pop(call.old, None)
                if call.path is not None:
                    names[call.path] = call.file
        elif call.kind in ("write", "truncate"):
            how = "whole" if durable[number] or mode in ("all", "contents alone") else "zeros" if "zeros" in mode else "missing"
            if mode == "anything" and not durable[number]:
                how = rng.choice(("whole", "whole", "zeros", "missing", "cut"))
            if mode == "all" and number == last and not durable[number]:
                how = "cut"
            _change(contents.setdefault(call.file, bytearray()), call, how, rng)
    return names, contents


def _change(content: bytearray, call: Call, how: str, rng: random.Random) -> None:
    if how == "missing":
        return
    if call.kind == "truncate":
        if how != "cut":
            del content[call.offset :]
            content.extend(bytes(call.offset - len(content)))
        return
    data = (
        bytes(len(call.data))
        if how == "zeros"
        else call.data[: rng.randrange(len(call.data) + 1)]
        if how == "cut"
        else call.data
    )
    if data:
        content.extend(bytes(max(0, call.offset - len(content))))
        content[call.offset : call.offset + len(data)] = data


def _durable(calls: list[Call]) -> list[bool]:
    """Of each call, whether its change is on the disk at the end."""
    durable = [False] * len(calls)
    synced: set[Any] = set()
    for number in range(len(calls) - 1, -1, -1):
        call = calls[number]
        if call.kind == "sync":
            synced.add(call.file)
        elif call.kind == "sync folder":
            synced.add(call.path)
        elif call.kind == "name":
            places = {os.path.dirname(path) or "." for path in (call.path, call.old) if path is not None}
            durable[number] = places <= synced
        else:
            durable[number] = call.file in synced
    return durable
