"""A pickle machine that can build a dictionary of tensors and nothing else.

It interprets the operations itself instead of restricting Python's unpickler, because that one can be made to hang or to
exhaust memory (deep tuples as dictionary keys, memo indices of two thousand million) without any forbidden global.  No global
is ever imported: the few known names map to builders of inert values, all others are rejected.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.tensor import MAX_DIMENSIONS
from llmbuild.errors import InputError

MAX_OPERATIONS = 600_000
"""A tensor takes some thirty.  An operation of one byte can take a hundred bytes of memory."""


@dataclass(frozen=True, slots=True)
class Storage:
    """A storage of the archive; `dtype` is None for an untyped one, `elements` is what the pickle claims."""

    key: str
    dtype: str | None
    elements: int | None


@dataclass(frozen=True, slots=True)
class PickledTensor:
    """A view of a storage.  `offset` and `strides` are in elements.

    The numbers are those of the storage, negated or conjugated where torch put that off when it saved the tensor.
    """

    storage: Storage
    dtype: str
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    negative: bool = False
    conjugate: bool = False

    @property
    def extent(self) -> int:
        """The elements between the first and the last one, both included; 0 for an empty tensor."""
        if 0 in self.shape:
            return 0
        return 1 + sum((size - 1) * step for size, step in zip(self.shape, self.strides, strict=True))

    @property
    def is_contiguous(self) -> bool:
        step = 1
        for size, stride in zip(reversed(self.shape), reversed(self.strides), strict=True):
            if size != 1 and stride != step:
                return False
            step *= size
        return True


class RefusedError(Exception):
    """The pickle is malformed or uses an operation that no state dict needs."""


@dataclass(frozen=True, slots=True)
class _Builder:
    """The value of a known callable global."""

    name: str
    build: Callable[[tuple[Any, ...]], Any]


@dataclass(frozen=True, slots=True)
class _Dtype:
    """The value of a storage class or a torch.dtype global; None is an untyped storage."""

    name: str | None


class _Class:
    """The value of a tensor class's global."""


class _Mark:
    """The stack position that MARK leaves."""


_MARK = _Mark()


def run_pickle(data: bytes, path: Path) -> dict[Any, Any]:
    """The dictionary that the pickle builds; `path` is for messages.

    Raises InputError for anything malformed, and for any global that is not needed to rebuild tensors, by name.
    """
    try:
        result = _Machine().run(data)
        if not isinstance(result, dict):
            raise RefusedError(f"it holds a {type(result).__name__}, not a dictionary of tensors")
    except RefusedError as error:
        raise InputError(
            "the torch file's pickle is refused",
            where=str(path),
            why=str(error),
            fix="use the safetensors files of this model, or save its state_dict() again with torch.save",
        ) from error
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, AttributeError, UnicodeError) as error:
        raise InputError(
            "the torch file's pickle is malformed", where=str(path), why=str(error)[:200], fix="fetch the file again"
        ) from error
    return result


class _Machine:
    """The stack, the memo, and one method a group of operations."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def run(self, data: bytes) -> Any:
        for count, (operation, argument, _) in enumerate(pickletools.genops(data)):
            if count == MAX_OPERATIONS:
                raise RefusedError(f"it has more than {MAX_OPERATIONS} operations")
            name = operation.name
            if name == "STOP":
                return self._stack.pop()
            handler = _HANDLERS.get(name)
            if handler is None:
                raise RefusedError(f"it uses the operation {name}, which no state dict needs")
            handler(self, argument)
        raise ValueError("the pickle does not end")

    def push(self, value: Any) -> None:
        self._stack.append(value)

    def pop(self) -> Any:
        value = self._stack.pop()
        if value is _MARK:
            raise ValueError("a value is missing before a mark")
        return value

    def drop(self) -> None:
        self.pop()

    def pop_to_mark(self) -> list[Any]:
        items: list[Any] = []
        while (value := self._stack.pop()) is not _MARK:
            items.append(value)
        return items[::-1]

    def take(self, count: int) -> tuple[Any, ...]:
        return tuple(self.pop() for _ in range(count))[::-1]

    def put(self, index: int | None) -> None:
        self._memo[len(self._memo) if index is None else index] = self._stack[-1]

    def get(self, index: int) -> None:
        self.push(self._memo[index])

    def append(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not list:
            raise RefusedError("it appends to something that is not a list")
        target.extend(items)

    def set_items(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if type(target) is not dict or len(items) % 2:
            raise RefusedError("it sets items of something that is not a dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def find(self, module: Any, name: Any) -> None:
        if not isinstance(module, str) or not isinstance(name, str):
            raise RefusedError("it names a global by something that is not text")
        known = _GLOBALS.get(f"{module}.{name}")
        if known is None:
            raise RefusedError(f"it asks for the global {module}.{name}, which no state dict needs")
        self.push(known)

    def call(self) -> None:
        builder, arguments = self.take(2)
        if not isinstance(builder, _Builder) or type(arguments) is not tuple:
            raise RefusedError("it calls something that does not build a tensor")
        self.push(builder.build(arguments))

    def build(self) -> None:
        """State of an object: state dicts carry version numbers of modules so, which do not affect weights."""
        self.pop()
        if type(self._stack[-1]) is not dict:
            raise RefusedError("it sets the state of something that is not a dictionary")

    def load_persistent(self) -> None:
        match self.pop():
            case ("storage", _Dtype(dtype), str(key), _, int(elements)):
                # An untyped storage counts bytes, which the file itself records too.
                self.push(Storage(key, dtype, elements if dtype is not None else None))
            case other:
                raise RefusedError(f"it refers to something that is not a storage: {type(other).__name__}")


def _key(value: Any) -> str | int | float | bool | None:
    """A dictionary key; containers are rejected, because hashing a deep tuple can take for ever."""
    if value is not None and not isinstance(value, str | int | float | bool):
        raise RefusedError(f"it uses a {type(value).__name__} as the key of a dictionary")
    return value


def _make_dict(arguments: tuple[Any, ...]) -> dict[Any, Any]:
    """An OrderedDict; pickles of Python 3 make it empty and set its items afterwards."""
    if arguments:
        raise RefusedError("it builds an OrderedDict from unexpected values")
    return {}


def _make_tensor(arguments: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_tensor` and `_rebuild_tensor_v2`: (storage, offset, size, stride, requires_grad, hooks, metadata)."""
    storage = arguments[0]
    if not isinstance(storage, Storage) or storage.dtype is None:
        raise RefusedError("it builds a tensor from something that is not a typed storage")
    return _view(storage, storage.dtype, *arguments[1:4], *arguments[6:7])


def _make_tensor_v3(arguments: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_tensor_v3`: (storage, offset, size, stride, requires_grad, hooks, dtype, metadata)."""
    storage, dtype = arguments[0], arguments[6]
    if not isinstance(storage, Storage) or not isinstance(dtype, _Dtype) or dtype.name is None:
        raise RefusedError("it builds a tensor from something that is not a storage")
    return _view(storage, dtype.name, *arguments[1:4], *arguments[7:8])


def _view(storage: Storage, dtype: str, offset: Any, shape: Any, strides: Any, metadata: Any = None) -> PickledTensor:
    sizes = (*shape, *strides, offset)
    if any(type(size) is not int or not 0 <= size < 1 << 62 for size in sizes):
        raise RefusedError("it builds a tensor with impossible sizes")
    if len(shape) != len(strides) or len(shape) > MAX_DIMENSIONS:
        raise RefusedError("it builds a tensor with an impossible number of dimensions")
    if metadata is not None and not (type(metadata) is dict and metadata.items() <= _BITS):
        raise RefusedError("it builds a tensor with a property that is not known")
    bits = metadata or {}
    return PickledTensor(
        storage, dtype, offset, tuple(shape), tuple(strides), bits.get("neg", False), bits.get("conj", False)
    )


_BITS = {(name, value) for name in ("neg", "conj") for value in (False, True)}


def _make_parameter(arguments: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_parameter`: (tensor, requires_grad, hooks), and with state the attributes that a program hung on it."""
    if not arguments or not isinstance(arguments[0], PickledTensor):
        raise RefusedError("it builds a parameter from something that is not a tensor")
    return arguments[0]


def _make_subclass(arguments: tuple[Any, ...]) -> PickledTensor:
    """`_rebuild_from_type_v2`: (builder, class, its arguments, attributes); only torch's own classes add nothing."""
    builder, kind, given, _ = arguments
    if not isinstance(builder, _Builder) or not isinstance(kind, _Class) or type(given) is not tuple:
        raise RefusedError("it builds a tensor of a class that is not torch's")
    tensor = builder.build(given)
    if not isinstance(tensor, PickledTensor):
        raise RefusedError("it builds a tensor from something that is not one")
    return tensor


def _make_size(arguments: tuple[Any, ...]) -> tuple[Any, ...]:
    (sizes,) = arguments
    if type(sizes) not in (list, tuple) or len(sizes) > MAX_DIMENSIONS:
        raise RefusedError("it builds a torch.Size from unexpected values")
    return tuple(sizes)


_STORAGES = {
    "Float": "float32",
    "Half": "float16",
    "BFloat16": "bfloat16",
    "Double": "float64",
    "Long": "int64",
    "Int": "int32",
    "Short": "int16",
    "Char": "int8",
    "Byte": "uint8",
    "Bool": "bool",
    "ComplexFloat": "complex64",
    "ComplexDouble": "complex128",
}
_DTYPES = (
    "uint16",
    "uint32",
    "uint64",
    "float8_e4m3fn",
    "float8_e4m3fnuz",
    "float8_e5m2",
    "float8_e5m2fnuz",
    "float8_e8m0fnu",
)

_GLOBALS: Mapping[str, _Builder | _Dtype | _Class] = {
    "collections.OrderedDict": _Builder("OrderedDict", _make_dict),
    "torch._utils._rebuild_tensor": _Builder("_rebuild_tensor", _make_tensor),
    "torch._utils._rebuild_tensor_v2": _Builder("_rebuild_tensor_v2", _make_tensor),
    "torch._utils._rebuild_tensor_v3": _Builder("_rebuild_tensor_v3", _make_tensor_v3),
    "torch._utils._rebuild_parameter": _Builder("_rebuild_parameter", _make_parameter),
    "torch._utils._rebuild_parameter_with_state": _Builder("_rebuild_parameter_with_state", _make_parameter),
    "torch._tensor._rebuild_from_type_v2": _Builder("_rebuild_from_type_v2", _make_subclass),
    "torch.Tensor": _Class(),
    "torch.nn.parameter.Parameter": _Class(),
    "torch.Size": _Builder("Size", _make_size),
    "torch.storage.UntypedStorage": _Dtype(None),
    **{f"torch.{name}Storage": _Dtype(dtype) for name, dtype in _STORAGES.items()},
    **{f"torch.{dtype}": _Dtype(dtype) for dtype in _DTYPES},
}

_Handler = Callable[[_Machine, Any], None]

_HANDLERS: Mapping[str, _Handler] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda _machine, _: None),
    "MARK": lambda machine, _: machine.push(_MARK),
    "POP": lambda machine, _: machine.drop(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(
        (
            "BININT",
            "BININT1",
            "BININT2",
            "LONG1",
            "BINFLOAT",
            "BINUNICODE",
            "SHORT_BINUNICODE",
            "SHORT_BINBYTES",
            "BINBYTES",
        ),
        lambda machine, argument: machine.push(argument),
    ),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE1": lambda machine, _: machine.push(machine.take(1)),
    "TUPLE2": lambda machine, _: machine.push(machine.take(2)),
    "TUPLE3": lambda machine, _: machine.push(machine.take(3)),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "APPEND": lambda machine, _: machine.append([machine.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "SETITEM": lambda machine, _: machine.set_items(list(machine.take(2))),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT", "MEMOIZE"), lambda machine, argument: machine.put(argument)),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), lambda machine, argument: machine.get(argument)),
    # The argument is "module name" with one space, because neither may contain one in a pickle that Python wrote.
    "GLOBAL": lambda machine, argument: machine.find(*argument.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.find(*machine.take(2)),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.load_persistent(),
}
