"""A PEFT LoRA adapter merged into a checkpoint while it is read, without torch and without peft.

Format: adapter_config.json and adapter_model.safetensors (or .bin) as peft writes them.  A module's weight becomes
W + scale * (B @ A), with scale = alpha / r, or alpha / sqrt(r) with use_rslora, and with use_dora each output of that is
brought to the length that was trained for it; the arithmetic is float32 and the result is rounded to the base's dtype.
Modules that the adapter saved whole, and rows of an embedding, replace the base's.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.checkpoints.files import is_file
from llmbuild.checkpoints.head import HEAD_IN_MEMORY, same_values
from llmbuild.checkpoints.huggingface import listing, open_weight_file
from llmbuild.checkpoints.lora_config import AdapterConfig
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import Checkpoint, TensorFile, TensorInfo, in_parts
from llmbuild.checkpoints.view import CheckpointView
from llmbuild.checkpoints.weight_files import ADAPTER_WEIGHTS
from llmbuild.errors import InputError, did_you_mean

if TYPE_CHECKING:
    import numpy as np

_PREFIX = "base_model.model."
_PART = re.compile(r"(.+)\.(lora_(?:[AB]|embedding_[AB]|magnitude_vector))(?:\.default)?(?:\.(weight|bias))?")
_ROWS = re.compile(r"(.+)\.token_adapter\.trainable_tokens_delta(?:\.default)?")
_COPY = re.compile(r"\.(?:token_adapter\.base_layer|base_layer|original_module)\.")
"""What stands in the name of a copy of the base's own tensor, which peft stores beside what was trained."""
_FLOATS = ("float32", "float16", "bfloat16", "float64")


@dataclass(frozen=True, slots=True)
class Pair:
    """The names of embedding and head, and whether the configuration says that they are one tensor."""

    embedding: str
    head: str
    tied: bool


@dataclass(slots=True)
class _Change:
    """What an adapter does to one tensor, by the names in its file.

    `whole` or `base` replaces the tensor, then the factors are added and brought to the lengths in `magnitude`, or the
    `rows` replaced by `row_values`.  `beside` says that the base's own tensor stays for what shares it, and `then` is a change
    of the same tensor that comes after this one.
    """

    whole: str | None = None
    base: str | None = None
    a: str | None = None
    b: str | None = None
    magnitude: str | None = None
    scale: float = 1.0
    embedding: bool = False
    rows: list[int] = field(default_factory=list)
    row_values: str | None = None
    bias: str | None = None
    beside: bool = False
    then: _Change | None = None


class LoraAdapter:
    """An opened adapter.  Raises InputError when it is not valid, or not one that can be merged."""

    def __init__(self, directory: Path, pair: Pair, checks: Checks = NO_CHECKS) -> None:
        self.directory = directory
        self._pair = pair
        self.config = AdapterConfig(directory)
        self._file = self._open_weights(checks)
        try:
            self.changes = self._read_changes()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def bind(self, base: Checkpoint, note: Callable[[str], None] | None = None) -> bool:
        """Adapt the changes of head and embedding to a base in which these are one tensor, and check that all changes fit.

        Returns whether the head becomes a tensor of its own that the base does not have.  `note` takes what a merge does
        otherwise than the adapter was trained.  Raises InputError.
        """
        apart = self._bind_pair(base, note)
        for name, change in self.changes.items():
            stored = self._pair.embedding if apart and name == self._pair.head else name
            self._check_fits(name, change, base.tensors.get(stored), base)
        return apart

    def merged(self, name: str, value: np.ndarray) -> np.ndarray:
        """The base's tensor `value` with the change of `name` applied, in the base's dtype."""
        change: _Change | None = self.changes[name]
        while change is not None:
            value = self._changed(change, value)
            change = change.then
        return value

    def _changed(self, change: _Change, value: np.ndarray) -> np.ndarray:
        import numpy as np

        dtype = value.dtype
        replacement = change.whole or change.base
        if replacement is not None:
            value = self._file.read(replacement).astype(dtype, copy=False)
        if change.a is not None and change.b is not None:
            a, b = (self._file.read(one).astype(np.float32) for one in (change.a, change.b))
            delta = b @ a
            delta *= np.float32(change.scale)
            delta = delta.T if change.embedding else delta
            if change.embedding and change.magnitude is None:
                delta = delta.astype(dtype)
            whole = value.astype(np.float32)
            whole += delta
            if change.magnitude is not None:
                axis = 0 if change.embedding else 1
                lengths = np.linalg.norm(whole, axis=axis, keepdims=True)
                trained = self._file.read(change.magnitude).astype(np.float32).reshape(lengths.shape)
                whole *= trained / lengths
            value = whole.astype(dtype, copy=False)
        if change.bias is not None:
            added = self._file.read(change.bias).astype(np.float32) * np.float32(change.scale)
            value = (value.astype(np.float32) + added).astype(dtype, copy=False)
        if change.row_values is not None:
            value[change.rows] = self._file.read(change.row_values).astype(dtype, copy=False)
        return value

    def _open_weights(self, checks: Checks) -> TensorFile:
        for format, file in ADAPTER_WEIGHTS.items():
            if is_file(self.directory / file):
                return open_weight_file(self.directory / file, format, checks)
        raise InputError(
            "the adapter has neither adapter_model.safetensors nor adapter_model.bin",
            where=str(self.directory),
            why=f"the directory has {listing(self.directory)}",
        )

    def _read_changes(self) -> dict[str, _Change]:
        changes: dict[str, _Change] = {}
        factors: dict[str, dict[str, str]] = {}

        def of(name: str) -> _Change:
            return changes.setdefault(self._meant(name), _Change())

        for stored in self._file.tensors:
            if not stored.startswith(_PREFIX):
                raise self._bad(
                    f"tensor {stored!r} is not under '{_PREFIX}', and peft reads no other", "save it with peft"
                )
            name = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", stored.removeprefix(_PREFIX))
            if (match := _PART.fullmatch(name)) is not None and (match[3] != "bias" or match[2] == "lora_B"):
                factors.setdefault(match[1], {})[match[2] + (".bias" if match[3] == "bias" else "")] = stored
            elif (match := _ROWS.fullmatch(name)) is not None:
                change = of(f"{match[1]}.weight")
                change.rows, change.row_values = self.config.token_rows(match[1]), stored
            elif (base := _COPY.sub(".", name)) != name:
                of(base).base = stored
            elif ".lora_" in name or ".token_adapter." in name:
                raise self._bad(f"tensor {stored!r} is of a kind that cannot be merged")
            else:
                change = of(name)
                change.whole, change.beside = stored, self.config.saves(name.rpartition(".")[0])
        self._read_factors(factors, of)
        if not changes:
            raise self._bad("it changes nothing")
        return changes

    def _read_factors(self, factors: Mapping[str, Mapping[str, str]], of: Callable[[str], _Change]) -> None:
        ranks: dict[str, int] = {}
        self.config.check_targets(list(factors))
        for module, parts in factors.items():
            change = of(f"{module}.weight")
            change.embedding = "lora_embedding_A" in parts or "lora_embedding_B" in parts
            kinds = ("lora_embedding_A", "lora_embedding_B") if change.embedding else ("lora_A", "lora_B")
            change.a, change.b = (parts.get(kind) for kind in kinds)
            if change.a is None or change.b is None:
                raise self._bad(f"module {module!r} has only one of {kinds[0]} and {kinds[1]}")
            change.magnitude = parts.get("lora_magnitude_vector")
            if (change.magnitude is not None) != self.config.dora:
                raise self._bad(
                    f"module {module!r} has magnitudes of DoRA, or lacks them, unlike adapter_config.json says"
                )
            a, b = self._file.tensors[change.a], self._file.tensors[change.b]
            if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or a.shape[0] == 0:
                raise self._bad(f"module {module!r} has factors of shapes {list(b.shape)} and {list(a.shape)}")
            ranks[module] = a.shape[0]
        for module, scale in self.config.scales(list(factors), ranks).items():
            of(f"{module}.weight").scale = scale
            if (bias := factors[module].get("lora_B.bias")) is not None:
                change = of(f"{module}.bias")
                change.bias, change.scale = bias, scale

    def _meant(self, name: str) -> str:
        """The checkpoint's name of a tensor: the head has another one in memory."""
        return self._pair.head if name == HEAD_IN_MEMORY else name

    def _bind_pair(self, base: Checkpoint, note: Callable[[str], None] | None) -> bool:
        """See `bind`.  Of factors for a pair that is one tensor, peft's merge adds each to that tensor, so that they change both.

        With ensure_weight_tying they are refused, because peft contradicts itself: while it trains, head and embedding share
        the factors and each has them once; its merge adds them to the one tensor twice (or once, where it does not find the
        head, as in GPT-NeoX).
        """
        pair = self._pair
        both = [self.changes[name] for name in (pair.embedding, pair.head) if name in self.changes]
        if not pair.tied or not both:
            return False
        if pair.head in base.tensors and not same_values(base, pair.embedding, pair.head):
            return False
        factors = any(change.a is not None for change in both)
        if factors and self.config.tied:
            raise self.config.refused(
                "ensure_weight_tying",
                "it has factors for the head and the embedding, which are one tensor in the model, "
                "so that peft's merge_and_unload() adds them twice and gives another model than was trained",
                "store the base with a head of its own (tie_word_embeddings false) before it is merged",
            )
        one, other = self.changes.get(pair.embedding), self.changes.get(pair.head)
        if any(change.beside for change in both) and not self.config.tied:
            return pair.head not in base.tensors
        if factors:
            one, other = self._one_after_the_other(both), None
            if note is not None:
                note(
                    "head and embedding are one tensor, and the adapter has factors for one or both: they change both, as in "
                    "peft's merge_and_unload(), although they were trained for one"
                )
        elif any(change.row_values is not None for change in both) and (one is None or other is not None):
            raise self.config.refused("trainable_token_indices", "head and embedding are one tensor in the model")
        if one is not None and other is not None and not self._equal(one, other):
            raise self._bad("it has two values for head and embedding, which are one tensor in the model")
        change = one or other
        assert change is not None
        self.changes[pair.embedding] = change
        if pair.head in base.tensors:
            self.changes[pair.head] = change
        else:
            self.changes.pop(pair.head, None)
        return False

    def _one_after_the_other(self, both: list[_Change]) -> _Change:
        """The changes of embedding and head as one of the tensor that they share: replaced once, then changed by each in turn."""
        if any(change.row_values is not None for change in both):
            raise self.config.refused("trainable_token_indices", "head and embedding are one tensor in the model")
        replaced = [change for change in both if change.whole or change.base]
        if len(replaced) > 1 and not self._equal(*replaced):
            raise self._bad("it has two values for head and embedding, which are one tensor in the model")
        base = next((change.whole or change.base for change in replaced), None)
        for change in both:
            change.whole = change.base = None
        first, *rest = both
        first.base, first.then = base, next(iter(rest), None)
        return first

    def _equal(self, one: _Change, other: _Change) -> bool:
        import numpy as np

        names = [change.whole or change.base for change in (one, other)]
        values = [self._file.read(name) for name in names if name is not None]
        return len(values) == 2 and np.array_equal(values[0], values[1])

    def _check_fits(self, name: str, change: _Change, info: TensorInfo | None, base: Checkpoint) -> None:
        if info is None:
            if change.bias is not None:
                raise self.config.refused("lora_bias", f"it adds {name!r}, a bias that the model does not have")
            raise self._bad(f"it changes {name!r}, which the model does not have", did_you_mean(name, base.tensors))
        if change.then is not None:
            self._check_fits(name, change.then, info, base)
        parts = (change.whole, change.base, change.a, change.b, change.magnitude, change.row_values, change.bias)
        stored = {part: self._file.tensors[part] for part in parts if part is not None}
        shapes = {part: one.shape for part, one in stored.items()}
        if other := next((one for one in stored.values() if one.dtype not in _FLOATS), None):
            raise self._bad(f"tensor {other.name!r} is {other.dtype}, which no weight is")
        if info.dtype not in _FLOATS:
            raise self._bad(f"it changes {name!r}, which is stored as {info.dtype} in the model")
        for part in (change.whole, change.base, change.bias):
            if part is not None and shapes[part] != info.shape:
                raise self._bad(
                    f"it replaces {name!r} by a tensor of shape {list(shapes[part])}, which is not the model's"
                )
        if change.a is not None and change.b is not None:
            a, b = shapes[change.a], shapes[change.b]
            wanted = (a[1], b[0]) if change.embedding else (b[0], a[1])
            if info.shape != wanted:
                raise self._bad(
                    f"it changes {name!r} of shape {list(wanted)}, which has shape {list(info.shape)} in the model"
                )
            if change.magnitude is not None and shapes[change.magnitude] not in ((b[0],), (b[0], 1), (1, b[0])):
                raise self._bad(f"the magnitudes of {name!r} have shape {list(shapes[change.magnitude])}")
        if change.row_values is not None and (
            shapes[change.row_values] != (len(change.rows), *info.shape[1:])
            or any(row >= info.shape[0] for row in change.rows)
        ):
            raise self._bad(f"it replaces rows of {name!r} that the model does not have")

    def _bad(self, why: str, fix: str | None = None) -> InputError:
        return InputError(
            "the adapter does not fit",
            where=str(self.directory),
            why=why,
            fix=fix or "check that the adapter was trained on this model",
        )


class MergedCheckpoint(CheckpointView):
    """`base` with the adapter in a directory applied to each tensor as it is read.  Closing closes both.

    Where the adapter changes one of head and embedding, which were one tensor, the head is there as a tensor of its own.
    Raises InputError (after closing `base`) when the adapter is not valid or does not fit.
    """

    def __init__(
        self,
        base: Checkpoint,
        adapter: Path,
        pair: Pair,
        checks: Checks = NO_CHECKS,
        note: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(base)
        self._pair = pair
        try:
            self._adapter = LoraAdapter(adapter, pair, checks)
        except BaseException:
            base.close()
            raise
        try:
            self._apart = self._adapter.bind(base, note)
        except BaseException:
            self.close()
            raise

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        if not self._apart:
            return self._base.tensors
        embedding = self._base.tensors[self._pair.embedding]
        head = TensorInfo(self._pair.head, embedding.shape, embedding.dtype, embedding.nbytes)
        return {**self._base.tensors, head.name: head}

    def read(self, name: str) -> np.ndarray:
        value = super().read(name)
        return self._adapter.merged(name, value) if name in self._adapter.changes else value

    def parts(self, name: str) -> Iterator[np.ndarray]:
        return in_parts(self.read(name)) if name in self._adapter.changes else super().parts(name)

    def says_nothing(self, name: str) -> bool:
        return name not in self._adapter.changes and super().says_nothing(name)

    def close(self) -> None:
        self._adapter.close()
        self._base.close()

    def _stored(self, name: str) -> str:
        return self._pair.embedding if self._apart and name == self._pair.head else name
