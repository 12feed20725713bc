"""What lowering makes on the way to a library, and can take from an earlier lowering instead of making it again.

A result is named by what it was made from: the text of TVM's functions, the target, plain values.  Everything else that it
depends on (llmbuild's own modules, TVM's release, a device's compiler) is the concern of `Kept`, whose owner keeps a place for
each.  Whether a result is made or taken, a library has the same bytes: TVM reads back from a text what it has written.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields, is_dataclass
from types import FunctionType
from typing import Any, Protocol

import tvm
from tvm import tirx

from llmbuild.canonical import Digest, Json, digest_bytes, digest_json
from llmbuild.compiler.stand_ins import digest_of, real, stand_in

_UNREADABLE = re.compile(r"e-3(?:0[89]|[12]\d)\b")
"""A number that TVM writes and does not read (apache-tvm-ffi 0.1.14.post1): a float64 too small for all of its digits."""


class Kept(Protocol):
    """Results of earlier lowerings by digest.  What cannot be read is not there, and what cannot be kept is not kept."""

    def get(self, key: Digest, /) -> bytes | None: ...

    def put(self, key: Digest, data: bytes, /) -> None: ...

    def alone(self, key: Digest, /) -> AbstractContextManager[None]:
        """A context in which no other lowering makes this result: entering waits for one that does."""
        ...


class Nothing:
    """Keeps nothing: every result is made."""

    def get(self, key: Digest) -> bytes | None:  # noqa: ARG002
        return None

    def put(self, key: Digest, data: bytes) -> None:
        pass

    def alone(self, key: Digest) -> AbstractContextManager[None]:  # noqa: ARG002
        return nullcontext()


def directly(make: Callable[..., Any], *arguments: Any) -> Any:
    """What a function makes of arguments, as it is: for modules that no lowering goes on with."""
    return make(*arguments)


class Reuse:
    """The results of one lowering.

    Functions whose body nothing needs for now are stand-ins (`llmbuild.compiler.stand_ins`); their texts are here, or in `kept`.
    """

    def __init__(self, kept: Kept | None = None, platform: Json = None, device: Json = None) -> None:
        """`platform` is all that the host's code depends on besides functions: the compile part of a resolved target.  `device`
        is all that functions and the device's code depend on: what is the same on several hosts has one name."""
        self._platform = platform
        self._device = device
        self._kept = Nothing() if kept is None else kept
        self._texts: dict[Digest, str] = {}
        self._objects: dict[Digest, Any] = {}
        """Functions that were made here and that no pass has had."""
        self._unread: list[str] = []
        """Texts of several functions each, as JSON by digest."""
        self._new: dict[Digest, str] = {}
        """The texts of the stand-ins that are being made: all of them go along, also those that another result has."""

    def kernel(self, make: Callable[..., Any], *arguments: Any) -> Any:
        """A stand-in of the function that `make`, a function of a module, makes of plain values."""
        return self.kernels(make, *arguments, named=lambda made: {"": made})[""]

    def kernels(
        self, make: Callable[..., Any], *arguments: Any, named: Callable[[Any], Mapping[str, Any]] = dict
    ) -> Mapping[str, Any]:
        """The same of functions that it makes together, by name."""

        def made() -> Any:
            return {name: self._stand_in(function) for name, function in named(make(*arguments)).items()}

        found: Mapping[str, Any] = self._functions([described(make), *map(described, arguments)], made)
        return found

    def module(self, stage: str, inputs: Sequence[Json], module: Any, change: Callable[[Any], Any]) -> Any:
        """What `change` makes of a module, with stand-ins in place of its PrimFuncs.  The inputs are all that both depend on
        besides the device."""

        def made() -> Any:
            changed = change(_each(module, self.real))
            return _each(changed, self._stand_in)

        return self._functions([stage, self._device, *inputs], made)

    def lowered(self, inputs: Sequence[Json], make: Callable[[], Any]) -> Any:
        """The module that `make` makes of the inputs, which are all that it depends on besides the device: for good, with the
        bodies of its functions."""

        def written() -> tuple[Any, bytes | None]:
            module = make()
            return module, _readable(tvm.ir.save_json(module))

        key = digest_json(["lowered", self._device, *inputs])
        return self._taken_or_made(key, lambda data: tvm.ir.load_json(data.decode()), written)

    def host_code(self, inputs: Sequence[Json], make: Callable[[], bytes]) -> bytes:
        """What `make` makes of the inputs, which are all that it depends on besides the platform."""
        return self._code(["object", self._platform, *inputs], make)

    def device_code(self, inputs: Sequence[Json], make: Callable[[], bytes]) -> bytes:
        """What `make` makes of the inputs, which are all that it depends on besides the device."""
        return self._code(["device code", self._device, *inputs], make)

    def real(self, function: Any) -> Any:
        """The function itself in place of its stand-in, which no pass has had yet: passes may change it in place."""
        digest = digest_of(function)
        if digest is None:
            return function
        if digest in self._objects:
            return real(function, self._objects.pop(digest))
        while digest not in self._texts:
            self._texts |= json.loads(self._unread.pop())
        return real(function, tvm.ir.load_json(self._texts[digest]))

    def _code(self, inputs: Sequence[Json], make: Callable[[], bytes]) -> bytes:
        def written() -> tuple[bytes, bytes | None]:
            data = make()
            return data, data

        found: bytes = self._taken_or_made(digest_json(inputs), bytes, written)
        return found

    def _taken_or_made(
        self, key: Digest, read: Callable[[bytes], Any], make: Callable[[], tuple[Any, bytes | None]]
    ) -> Any:
        """What is read of what was kept, or what is made, with its bytes where these are to be kept."""
        data = self._kept.get(key)
        if data is not None:
            return read(data)
        with self._kept.alone(key):
            # Whoever was waited for has made it.
            data = self._kept.get(key)
            if data is not None:
                return read(data)
            made, data = make()
            if data is not None:
                self._kept.put(key, data)
            return made

    def _stand_in(self, function: Any) -> Any:
        text = tvm.ir.save_json(function)
        digest = digest_bytes(text.encode())
        self._texts[digest] = self._new[digest] = text
        self._objects[digest] = function
        return stand_in(function, digest)

    def _functions(self, inputs: Sequence[Json], make: Callable[[], Any]) -> Any:
        """Stand-ins by name, or a module with such: its text, and after a zero those of the functions that they are for."""

        def read(data: bytes) -> Any:
            text, _, functions = data.decode().partition("\0")
            self._unread.append(functions)
            return tvm.ir.load_json(text)

        def written() -> tuple[Any, bytes | None]:
            self._new = {}
            found = make()
            return found, _readable(f"{tvm.ir.save_json(found)}\0{json.dumps(self._new, sort_keys=True)}")

        return self._taken_or_made(digest_json(["functions", *inputs]), read, written)


def _readable(text: str) -> bytes | None:
    """A text of TVM's as it is kept; None where TVM could not read it back."""
    return text.encode() if _UNREADABLE.search(text) is None else None


def _each(module: Any, change: Callable[[Any], Any]) -> Any:
    """The module with its PrimFuncs changed."""
    for name, function in module.functions_items():
        if isinstance(function, tirx.PrimFunc):
            module[name] = change(function)
    return module


def described(value: Any) -> Json:
    """A plain value, a dataclass of such, a function of a module or a target of TVM as JSON.

    Raises TypeError for anything else, which might depend on what is not described.
    """
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {str(name): described(item) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [described(item) for item in value]
    if is_dataclass(value):
        return [type(value).__qualname__, *(described(getattr(value, field.name)) for field in fields(value))]
    if isinstance(value, tvm.target.Target):
        return [str(value), str(value.host)]
    if isinstance(value, FunctionType) and value.__qualname__.isidentifier() and value.__closure__ is None:
        return [value.__module__, value.__qualname__]
    raise TypeError(f"a {type(value).__name__} has no description")
