"""Names with one prefix too many, or without the model's own, given the names that the model wants.

Wrappers put a prefix in front of every name (`module.`, `_orig_mod.`, `language_model.`, `base_model.model.`), and the inner
model, saved by itself, lacks the one that the whole has (`model.`).  Where there is one way to read the names, they are read so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass

from llmbuild.checkpoints.tensor import Checkpoint
from llmbuild.checkpoints.view import RenamedCheckpoint
from llmbuild.errors import InputError

WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "language_model", "text_model"}
)
"""Parts of a name that stand for a wrapper, wherever they are in it."""

HEADS = ("lm_head.weight", "embed_out.weight")
"""Names of heads, which are outside the inner model."""

_PROBES = 16
"""How many wanted names are looked for, and how many prefixes are tried."""


@dataclass(frozen=True, slots=True)
class _Reading:
    """What stands in front of the wanted names: `prefix` (with its point), in place of `base` where that is not ""."""

    prefix: str
    base: str

    def stored(self, wanted: str) -> str:
        return self.prefix + wanted.removeprefix(self.base)


def renamed(base: Checkpoint, wanted: Collection[str], note: Callable[[str], None]) -> Checkpoint:
    """`base` under the names that the model wants; `base` itself where it has them, or nothing like them.

    `wanted` are the names of the tensors that the model is made of.  Raises InputError when the names can be read in several
    ways.
    """
    inner = [name for name in wanted if name not in HEADS]
    if all(name in base.tensors for name in inner):
        return base
    names = _new_names(base, inner)
    changed = [(old, new) for new, old in names.items() if new != old]
    if not changed:
        return base
    old, new = changed[0]
    note(f"{len(changed)} tensors are read under the names that the model has for them: '{old}' as '{new}'")
    return RenamedCheckpoint(base, names)


def _new_names(base: Checkpoint, inner: Collection[str]) -> dict[str, str]:
    """The base's name of each tensor by the new one; `inner` are the wanted names without the head's."""
    plain = {name: ".".join(part for part in name.split(".") if part not in WRAPPERS) for name in base.tensors}
    root = Counter(name.split(".")[0] for name in inner).most_common(1)[0][0] + "."
    # A scheme that takes weights as AWQ packed them has `qweight` in the place of a layer's `weight`.
    packed = [f"{name.removesuffix('.qweight')}.weight" for name in plain.values() if name.endswith(".qweight")]
    best = _readings(dict.fromkeys([*plain.values(), *packed]), inner, root)
    if not best:
        return {name: name for name in base.tensors}
    if len(best) > 1:
        first, second = (reading.stored(next(iter(inner))) for reading in best[:2])
        raise _ambiguous(base, f"as those that lie with '{first}', or with '{second}'")
    reading, tops = best[0], {name.split(".")[1] for name in inner if name.startswith(root)}
    heads = {
        before + head: head for head in HEADS for before in ("", reading.prefix, reading.prefix.removesuffix(root))
    }
    names: dict[str, str] = {}
    for old, name in plain.items():
        rest = name.removeprefix(reading.prefix)
        belongs = rest.split(".")[0] in tops if reading.base else rest.startswith(root)
        new = heads.get(name) or (reading.base + rest if belongs and name.startswith(reading.prefix) else old)
        if new in names:
            raise _ambiguous(base, f"'{names[new]}' and '{old}' would both be '{new}'")
        names[new] = old
    return names


def _readings(names: Collection[str], inner: Collection[str], root: str) -> list[_Reading]:
    """The ways of reading under which the most of the wanted names are there, at least half of them."""
    found: dict[_Reading, int] = {}
    for base in ("", root):
        prefixes: Counter[str] = Counter()
        for wanted in list(inner)[:_PROBES]:
            end = wanted.removeprefix(base)
            prefixes.update(
                name.removesuffix(end)
                for name in names
                if name.endswith(end) and (name == end or name[: -len(end)][-1] == ".")
            )
        for prefix, _ in prefixes.most_common(_PROBES):
            reading = _Reading(prefix, base)
            if not (base and prefix.endswith(root)):
                found[reading] = sum(reading.stored(name) in names for name in inner)
    most = max(found.values(), default=0)
    return [reading for reading, count in found.items() if count == most and 2 * count > len(inner)]


def _ambiguous(base: Checkpoint, why: str) -> InputError:
    return InputError(
        "the names of the tensors can be read in several ways",
        where=base.location(next(iter(base.tensors))),
        why=why,
        fix="save the weights of the one model by itself",
    )
