"""Wrong input made of right input: values of every JSON type at every place, and bytes that are flipped, lost and doubled.

A mutation depends on its generator alone, so that a seed names it.  What Python's `json` cannot write (a number of thousands
of digits, a name twice, brackets without end) is put into the text as it is.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

DEEP = 20_000
LONG = 6_000


@dataclass(frozen=True)
class Raw:
    """JSON text that stands for a value."""

    text: str


RAW = (
    "NaN", "Infinity", "-Infinity", "1e999", "-0", "-0.0", "9" * 5000, "1" + "0" * 400, "-" + "9" * 30, "1.5e308",
    "[" * DEEP + "]" * DEEP, '{"a":' * DEEP + "1" + "}" * DEEP, "[" * DEEP, "[" * 70 + "]" * 70,
    '"\\ud800"', '"\\udfff\\ud800"', '{"a":1,"a":2}', "tru", "", "0x10", "[1,]", '"\x01"',
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 0.5, -1e300, 2**31, 2**63, 2**64, -(2**63), 10**30, [], {}, "", " ", [None], [[]], [0, "a"],
    {"": ""}, {"a": {"b": []}}, [1] * 100, "a" * LONG, "ü" * 300, "日本", "\x1b]0;title\x07\x1b[2J", "\r\n", "\0", "\x85\u2028",
    "..", ".", "/", "~", "~/x", "-", "--help", "*", "%s", "CON", "a/../../b", "a//b", "\\", "null", "0" * 64, "f" * 40,
)  # fmt: skip
NO_DIGESTS = (
    "0" * 63, "0" * 65, "A" * 64, "０" * 64, "0" * 64 + "\n", "g" * 64, "", ".." + "0" * 62, "\0" * 64, "0" * LONG,
    " " + "0" * 63,
)  # fmt: skip


class Mutator:
    """Mutations from one generator.  `names` are the paths and digests that a hostile writer would try."""

    def __init__(self, generator: random.Random, names: Sequence[str] = ()) -> None:
        self.random = generator
        self._names = list(names)

    def text(self, value: Any) -> bytes:
        """A JSON text that is the value's but for one to three places."""
        return self.write(self.changed(value))

    def changed(self, value: Any) -> Any:
        """The value but for one to three places; there may be Raw in it."""
        value = copy.deepcopy(value)
        for _ in range(self.random.choice((1, 1, 1, 2, 3))):
            value = self._once(value)
        return value

    def write(self, value: Any) -> bytes:
        """The text of a value with Raw in it."""
        raw: list[str] = []

        def place(one: Any) -> str:
            raw.append(one.text)
            return f"\x02{len(raw) - 1}\x02"

        text = json.dumps(value, default=place, ensure_ascii=self.random.random() < 0.9, separators=(",", ":"))
        for number, instead in enumerate(raw):
            text = text.replace(json.dumps(f"\x02{number}\x02"), instead)
        return text.encode("utf-8", "surrogatepass")

    def value(self, instead_of: Any = None) -> Any:
        """A value that is not expected."""
        kind = self.random.random()
        if isinstance(instead_of, str) and kind < 0.45:
            digest = len(instead_of) in (40, 64) and self.random.random() < 0.5
            return self.random.choice(NO_DIGESTS if digest else self._names or NO_DIGESTS)
        if isinstance(instead_of, int | float) and not isinstance(instead_of, bool) and kind < 0.4:
            return self.random.choice(
                (-instead_of, instead_of + 1, instead_of * 10**20, 0, str(instead_of), Raw("9" * 5000))
            )
        if kind < 0.6:
            return Raw(self.random.choice(RAW))
        return copy.deepcopy(self.random.choice(VALUES))

    def raw(self, data: bytes) -> bytes:
        """The bytes with a few changes that know nothing of their form."""
        changed = bytearray(data)
        for _ in range(self.random.choice((1, 1, 2, 8))):
            at = self.random.randrange(len(changed) + 1)
            size = self.random.choice((1, 1, 2, 16, 512))
            match self.random.randrange(6):
                case 0:
                    changed[at : at + 1] = bytes([self.random.randrange(256)])
                case 1:
                    del changed[at : at + size]
                case 2:
                    changed[at:at] = self.random.randbytes(size)
                case 3:
                    del changed[at:]
                case 4:
                    changed[at:at] = changed[max(0, at - size) : at]
                case _:
                    changed[at : at + size] = b"\0" * size
        return bytes(changed)

    def _once(self, value: Any) -> Any:
        places = list(_places(value))
        if not places or self.random.random() < 0.03:
            return self.value(value)
        holder, key = self.random.choice(places)
        old = holder[key]
        match self.random.randrange(10):
            case 0:
                del holder[key]
            case 1:
                if isinstance(holder, dict):
                    holder[self._name(key)] = holder.pop(key)
                else:
                    holder.insert(self.random.randrange(len(holder) + 1), self.value(old))
            case 2:
                if isinstance(holder, dict):
                    holder[self._name(key)] = copy.deepcopy(old)
                else:
                    holder.append(copy.deepcopy(old))
            case 3:
                # The value of another place: of the right form, and wrong.
                other, there = self.random.choice(places)
                holder[key] = copy.deepcopy(other[there])
            case 4:
                holder[key] = self.random.choice(([old], {"a": old}, [old, old], str(old)))
            case _:
                holder[key] = self.value(old)
        return value

    def _name(self, key: Any) -> str:
        others = ("", "a", "..", "\x1b[2J", "x" * LONG, f"{key} ", str(key).upper(), "\ud800")
        return self.random.choice([*self._names, *others])


def _places(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        holder = left.pop()
        keys = list(holder) if isinstance(holder, dict) else range(len(holder)) if isinstance(holder, list) else ()
        for key in keys:
            found.append((holder, key))
            left.append(holder[key])
    return found
