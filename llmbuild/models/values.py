"""Typed access to the values of a configuration, with errors that name the key."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TypeVar

from llmbuild.canonical import Json
from llmbuild.errors import InputError, Where
from llmbuild.models.spec import Activation
from llmbuild.printable import either

N = TypeVar("N", int, float)

LARGEST = (1 << 31) - 1

ACTIVATIONS: Mapping[str, Activation] = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "relu2",
}
"""transformers' names of activation functions; those of one meaning are the same function, written differently."""


def no_note(text: str) -> None:
    """For callers that show no notes."""


@dataclass(frozen=True, slots=True)
class ConfigValues:
    """The content of a configuration of one model type.  Every accessor raises InputError naming the key.

    `note` takes a sentence about a value that is there and does not count.  `spelling` has the family's own names of keys that
    other families have too; `values` have theirs.  `within` stands before the keys in
    messages.
    """

    model_type: str
    values: Mapping[str, Json]
    note: Callable[[str], None] = no_note
    spelling: Mapping[str, str] = field(default_factory=dict)
    within: str = ""

    def but(self, values: Mapping[str, Json]) -> ConfigValues:
        """Other values of the same configuration."""
        return replace(self, values=values)

    def error(self, key: str, what: str, *, why: str | None = None, fix: str | None = None) -> InputError:
        return InputError(what, where=Where("config.json", key=self.within + self.spelled(key)), why=why, fix=fix)

    def spelled(self, key: str) -> str:
        """The family's own name of a key."""
        return self.spelling.get(key, key)

    def in_common_names(self) -> ConfigValues:
        """Values under the names that they have in other families, of those under the family's own.

        What stands under another family's name is none of this one's.
        """
        common = {own: name for name, own in self.spelling.items()}
        return self.but({common.get(key, key): value for key, value in self.values.items() if key not in self.spelling})

    def get(self, *names: str) -> tuple[str, Json]:
        """The first of `names` that is present and not null, with its value; (names[0], None) when none is."""
        for name in names:
            if (value := self.values.get(name)) is not None:
                return name, value
        return names[0], None

    def integer(self, *names: str, default: int | None = None, minimum: int = 1, maximum: int = LARGEST) -> int:
        """An integer in [minimum, maximum]; 0 counts as not set where `default` is given."""
        name, value = self.get(*names)
        if value is None or (value == 0 and default is not None and minimum > 0):
            return self._default(names, default)
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.error(name, f"must be an integer, not {value!r}")
        if not minimum <= value <= maximum:
            raise self.error(name, f"is {value}, which is not between {minimum} and {maximum}")
        return value

    def number(self, *names: str, default: float | None = None) -> float:
        """A finite number above 0, with its own type kept (10000 stays an int, as MLC's configurations have it)."""
        name, value = self.get(*names)
        if value is None or (value == 0 and default is not None):
            return self._default(names, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or value <= 0:
            raise self.error(name, f"must be a number above 0, not {value!r}")
        return value

    def flag(self, name: str, *, default: bool) -> bool:
        _, value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.error(name, f"must be true or false, not {value!r}")
        return value

    def flags(self, name: str, count: int, default: Callable[[], Sequence[bool]]) -> tuple[bool, ...]:
        """True or false, or 1 or 0, for each of so many layers; `default` where the key is absent or null."""
        found = self.values.get(name)
        if found is None:
            return tuple(default())
        if not isinstance(found, list | tuple) or len(found) != count or not all(isinstance(one, int) for one in found):
            raise self.error(name, f"must be a list of true or false for each of {count} layers, not {shown(found)}")
        return tuple(bool(one) for one in found)

    def text(self, name: str, *, default: str) -> str:
        _, value = self.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.error(name, f"must be a string, not {value!r}")
        return value

    def activation(self, key: str, *, default: str) -> str:
        """The name of an activation function as spelled, if it is supported."""
        name = self.text(key, default=default)
        if name not in ACTIVATIONS:
            known = ", ".join(ACTIVATIONS)
            raise self.error(key, f"activation '{name}' is not supported", fix=f"one of: {known}")
        return name

    def _default(self, names: tuple[str, ...], default: N | None) -> N:
        if default is None:
            spelled = either(f"'{self.spelled(name)}'" for name in names)
            raise self.error(names[0], f"is missing: a {self.model_type} configuration needs {spelled}")
        return default


def shown(value: Json) -> str:
    """A value for a message: as JSON has it, cut where it is long."""
    text = json.dumps(value, default=str)
    return text if len(text) <= 80 else f"{text[:77]}..."
