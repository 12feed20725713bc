"""Parts of a model that a scheme stores in other bits than the rest: patterns over the names of its parameters.

Names are MLC's without what follows the module ("model.layers.0.mlp.down_proj", "lm_head").  A pattern is one of a shell; of
several that match a parameter the last one counts, so that exceptions follow the rule.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal, Protocol

from llmbuild.errors import InputError, LlmbuildError, did_you_mean, raise_all
from llmbuild.printable import several

Bits = Literal[0, 3, 4, 8]

_LAYER = re.compile(r"\.(\d{1,6})\.")
_LAYERS = re.compile(r"\d{1,6}(-\d{1,6})?(,\d{1,6}(-\d{1,6})?)*")


_PLACE = re.compile(r"quantizations\.(.+)\.overrides\[(\d{1,6})\]")


class Named(Protocol):
    """A parameter, as far as overrides go by it."""

    @property
    def modules(self) -> tuple[str, ...]: ...
    @property
    def role(self) -> str: ...


def layer_ranges(text: str) -> tuple[range, ...]:
    """The layers of "0-3,7".  Raises ValueError for anything else."""
    if not _LAYERS.fullmatch(text):
        raise ValueError(text)
    found = []
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.append(range(int(first), int(last or first) + 1))
        if not found[-1]:
            raise ValueError(part)
    return tuple(found)


@dataclass(frozen=True, slots=True)
class Override:
    """The parameters that `match` matches, of some layers only where `layers` says so, have `bits`, in groups of `group_size`."""

    match: str
    bits: Bits
    group_size: int = 0
    layers: str | None = None

    def matches(self, names: Collection[str]) -> bool:
        """Whether it is meant for the parameter that has these names."""
        return any(fnmatchcase(name, self.match) and self._has_layer(name) for name in names)

    def _has_layer(self, name: str) -> bool:
        if self.layers is None:
            return True
        found = _LAYER.search(name)
        return found is not None and any(int(found[1]) in part for part in layer_ranges(self.layers))

    def __str__(self) -> str:
        where = self.match if self.layers is None else f"{self.match} of layers {self.layers}"
        return f"{where}: {self.bits} bits" if self.bits else f"{where}: not quantized"


def check_overrides(name: str, overrides: Sequence[Override], parameters: Sequence[Named]) -> None:
    """Raise InputError, or a MultiError, for overrides of the scheme `name` that no parameter of a model is stored by."""
    raise_all([error for index in range(len(overrides)) for error in _unused(name, overrides, index, parameters)])


def _unused(
    name: str, overrides: Sequence[Override], index: int, parameters: Sequence[Named]
) -> Sequence[LlmbuildError]:
    one = overrides[index]
    where = f"quantizations.{name}.overrides[{index}]"
    weights = [parameter.modules for parameter in parameters if parameter.role != "plain"]
    found = [names for names in weights if one.matches(names)]
    if found:
        later = [str(other.match) for other in overrides[index + 1 :] if any(map(other.matches, found))]
        if any(not any(other.matches(names) for other in overrides[index + 1 :]) for names in found):
            return ()
        why = f"the last one that matches counts, and {several(later)} come{'s' if len(later) == 1 else ''} later"
        return [
            InputError(f"'{one.match}' changes nothing", where=where, why=why, fix="put exceptions behind the rule")
        ]
    every = [each for names in weights for each in names]
    of_layers = [each for each in every if fnmatchcase(each, one.match)]
    if of_layers and one.layers is not None:
        layers = sorted({int(layer[1]) for each in of_layers if (layer := _LAYER.search(each))})
        why = f"it is in layers {layers[0]} to {layers[-1]}" if layers else "it is in no layer"
        what = f"'{one.match}' is in none of the layers {one.layers}"
        return [InputError(what, where=where, why=why, fix="correct layers, or remove it")]
    plain = [each for parameter in parameters if parameter.role == "plain" for each in parameter.modules]
    if any(fnmatchcase(each, one.match) for each in plain):
        why = "norms and biases are never quantized"
        return [InputError(f"'{one.match}' matches no weight", where=where, why=why, fix=_names(every))]
    near = did_you_mean(
        one.match.removesuffix(".weight").removesuffix(".q_weight"), list(dict.fromkeys([*every, *_kinds(every)]))
    )
    return [InputError(f"'{one.match}' matches no parameter", where=where, why=near, fix=_names(every))]


def place_in_manifest(where: str) -> tuple[str, str, str, int] | None:
    """The keys of the manifest that an error of `check_overrides` is at; None for any other place."""
    found = _PLACE.fullmatch(where)
    return None if found is None else ("quantizations", found[1], "overrides", int(found[2]))


def tied_overrides(overrides: Sequence[Override], parameters: Sequence[Named]) -> list[str]:
    """A sentence for each override that is meant for one of the two names of a parameter that has two."""
    return [
        f"{one.match}: {' and '.join(parameter.modules)} are one parameter in this model, which is embedding and head"
        for parameter in parameters
        if len(parameter.modules) > 1
        for one in overrides
        if 0 < sum(one.matches((name,)) for name in parameter.modules) < len(parameter.modules)
    ]


def _kinds(names: Sequence[str]) -> list[str]:
    """Patterns for the parameters of all layers that have one name in them."""
    return list(dict.fromkeys(f"*.{name.rpartition('.')[2]}" if _LAYER.search(name) else name for name in names))


def _names(names: Sequence[str]) -> str:
    return f"name some of {', '.join(_kinds(names))}"
