"""A PEFT LoRA adapter merged into a checkpoint while it is read, without torch and without peft.

Format: adapter_config.json and adapter_model.safetensors (or .bin) as peft writes them.  A module's weight becomes
W + scale * (B @ A), with scale = alpha / r, or alpha / sqrt(r) with use_rslora; the arithmetic is float32 and the result
is rounded once to the base's dtype.  Modules that the adapter saved whole replace the base's tensors.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.checkpoints.files import is_file, read_json
from llmbuild.checkpoints.huggingface import listing, open_weight_file
from llmbuild.checkpoints.patterns import PatternError, match_ends
from llmbuild.checkpoints.pieces import NO_CHECKS, Checks
from llmbuild.checkpoints.tensor import Checkpoint, TensorFile, TensorInfo, numpy_dtype
from llmbuild.checkpoints.weight_files import ADAPTER_WEIGHTS
from llmbuild.errors import InputError, Where, did_you_mean

if TYPE_CHECKING:
    import numpy as np

_PREFIX = "base_model.model."
_FACTOR = re.compile(r"(.+)\.lora_([AB])\.(?:default\.)?weight")
_FLOATS = ("float32", "float16", "bfloat16", "float64")

_PATTERNS = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}
"""Keys of adapter_config.json: a number, and the regular expressions of the modules that have another one."""

_UNSUPPORTED = {
    "use_dora": "DoRA changes magnitudes too",
    "use_qalora": "QA-LoRA pools the input",
    "use_bdlora": "block-diagonal adapters are stored differently",
    "lora_bias": "it adds biases that the model does not have",
    "layer_replication": "it changes the number of layers",
    "target_parameters": "it adapts parameters that are not weights of linear layers",
    "trainable_token_indices": "it adapts single rows of the embedding",
    "alora_invocation_tokens": "an activated LoRA applies from a token on and cannot be merged",
    "arrow_config": "it chooses among adapters as the model runs",
    "velora_config": "this variant of LoRA is not known",
    "monteclora_config": "this variant of LoRA is not known",
    "kasa_config": "this variant of LoRA is not known",
}
"""Keys of adapter_config.json that, when set, make the adapter differ from W + scale * (B @ A)."""

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin training that alter the base's weights, so that the adapter does not fit the published ones."""


@dataclass(frozen=True, slots=True)
class _Update:
    """The two factors of one module's weight, by the adapter file's names."""

    a: str
    b: str
    scale: float


class LoraAdapter:
    """An opened adapter.  Raises InputError when it is not valid, or not plain LoRA."""

    def __init__(self, directory: Path, checks: Checks = NO_CHECKS) -> None:
        self.directory = directory
        self._checks = checks
        self._config_path = directory / "adapter_config.json"
        if not is_file(self._config_path):
            raise InputError(
                "the adapter has no adapter_config.json",
                where=str(directory),
                why=f"the directory has {listing(directory)}",
                fix="name a directory that peft's save_pretrained wrote",
            )
        self._config = read_json(self._config_path, "adapter_config.json")
        self._check_config()
        self._transposed = bool(self._config.get("fan_in_fan_out"))
        self._file = self._open_weights()
        try:
            self._read_names()
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        self._file.close()

    def check_fits(self, base: Mapping[str, TensorInfo]) -> None:
        """Raise InputError unless every tensor that the adapter changes is in `base` with a fitting shape."""
        for name, update in self._updates.items():
            info = self._base_of(name, base)
            a, b = self._file.tensors[update.a].shape, self._file.tensors[update.b].shape
            wanted = (a[1], b[0]) if self._transposed else (b[0], a[1])
            if info.shape != wanted:
                raise self._bad(
                    f"it changes {name!r} of shape {list(wanted)}, which has shape {list(info.shape)} in the model"
                )
            if info.dtype not in _FLOATS:
                raise self._bad(f"it changes {name!r}, which is stored as {info.dtype} in the model")
        for name, stored in self._replacements.items():
            shape = self._file.tensors[stored].shape
            if self._base_of(name, base).shape != shape:
                raise self._bad(f"it replaces {name!r} by a tensor of shape {list(shape)}, which is not the model's")

    def merge(self, name: str, base: Checkpoint) -> np.ndarray:
        """The tensor `name` of the base with the adapter applied, in the base's dtype."""
        import numpy as np

        if name in self._replacements:
            return self._file.read(self._replacements[name]).astype(numpy_dtype(base.tensors[name].dtype), copy=False)
        value = base.read(name)
        update = self._updates.get(name)
        if update is None:
            return value
        a = self._file.read(update.a).astype(np.float32)
        b = self._file.read(update.b).astype(np.float32)
        b *= np.float32(update.scale)
        delta = b @ a
        merged = value.astype(np.float32)
        merged += delta.T if self._transposed else delta
        return merged.astype(value.dtype, copy=False)

    def _check_config(self) -> None:
        kind = self._config.get("peft_type")
        if kind != "LORA":
            raise self._refused("peft_type", f"adapters of kind {kind!r} cannot be merged; LORA can")
        for key, why in _UNSUPPORTED.items():
            if self._config.get(key):
                raise self._refused(key, why)
        bias = self._config.get("bias", "none")
        if bias != "none":
            raise self._refused("bias", f"{bias!r}: biases trained beside the adapter are not supported")
        start = self._config.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise self._refused("init_lora_weights", f"{start!r} alters the base model's weights before training")
        for key in _PATTERNS.values():
            if not isinstance(self._config.get(key) or {}, dict):
                raise self._refused(key, "it is not an object")

    def _open_weights(self) -> TensorFile:
        for format, file in ADAPTER_WEIGHTS.items():
            if is_file(self.directory / file):
                return open_weight_file(self.directory / file, format, self._checks)
        raise InputError(
            "the adapter has neither adapter_model.safetensors nor adapter_model.bin",
            where=str(self.directory),
            why=f"the directory has {listing(self.directory)}",
        )

    def _read_names(self) -> None:
        factors: dict[str, dict[str, str]] = {}
        self._replacements: dict[str, str] = {}
        for stored in self._file.tensors:
            match = _FACTOR.fullmatch(stored)
            plain = re.sub(r"\.modules_to_save(\.default)?(?=\.)", "", stored.removeprefix(_PREFIX))
            if match is not None:
                factors.setdefault(match[1].removeprefix(_PREFIX), {})[match[2]] = stored
            elif ".lora_" in stored:
                raise self._bad(f"tensor {stored!r} is of a kind that cannot be merged (only linear layers are)")
            else:
                self._replacements[plain] = stored
        self._updates: dict[str, _Update] = {}
        settings = self._settings(list(factors))
        for module, pair in factors.items():
            if len(pair) != 2:
                raise self._bad(f"module {module!r} has only one of lora_A and lora_B")
            a, b = self._file.tensors[pair["A"]], self._file.tensors[pair["B"]]
            if len(a.shape) != 2 or len(b.shape) != 2 or a.shape[0] != b.shape[1] or a.shape[0] == 0:
                raise self._bad(f"module {module!r} has factors of shapes {list(b.shape)} and {list(a.shape)}")
            if a.dtype not in _FLOATS or b.dtype not in _FLOATS:
                raise self._bad(f"module {module!r} has factors of types {b.dtype} and {a.dtype}")
            self._updates[f"{module}.weight"] = _Update(a.name, b.name, self._scale(module, a.shape[0], settings))
        if not self._updates and not self._replacements:
            raise self._bad("it changes nothing")

    def _scale(self, module: str, rank: int, settings: Mapping[str, Mapping[str, Any]]) -> float:
        """alpha / r of one module, whose rank must be the configured one."""
        expected = self._number("r", settings[module])
        if expected != rank:
            raise self._bad(f"module {module!r} has rank {rank} and adapter_config.json says {expected}")
        alpha = self._number("lora_alpha", settings[module])
        return alpha / (math.sqrt(rank) if self._config.get("use_rslora") else rank)

    def _settings(self, modules: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rank and alpha of each module: the number, or that of the first pattern that matches the end of its name."""
        special = {key: self._config.get(pattern_key) or {} for key, pattern_key in _PATTERNS.items()}
        try:
            found = match_ends({_PATTERNS[key]: list(values) for key, values in special.items()}, modules)
        except PatternError as error:
            raise self._refused(error.key, str(error)) from error
        settings: dict[str, dict[str, Any]] = {module: {} for module in modules}
        for key, pattern_key in _PATTERNS.items():
            values = list(special[key].values())
            for module, index in zip(modules, found[pattern_key], strict=True):
                settings[module][key] = self._config.get(key, 8) if index is None else values[index]
        return settings

    def _number(self, key: str, settings: Mapping[str, Any]) -> float:
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self._refused(key, f"{value!r} is not a number")
        return float(value)

    def _base_of(self, name: str, base: Mapping[str, TensorInfo]) -> TensorInfo:
        info = base.get(name)
        if info is None:
            raise self._bad(f"it changes {name!r}, which the model does not have", did_you_mean(name, base))
        return info

    def _refused(self, key: str, why: str) -> InputError:
        return InputError(
            "the adapter cannot be merged",
            where=Where(str(self._config_path), key=key),
            why=why,
            fix="merge it with peft's merge_and_unload() and name the merged checkpoint as the source",
        )

    def _bad(self, why: str, fix: str | None = None) -> InputError:
        return InputError(
            "the adapter does not fit",
            where=str(self.directory),
            why=why,
            fix=fix or "check that the adapter was trained on this model",
        )


class MergedCheckpoint(Checkpoint):
    """`base` with the adapter in a directory applied to each tensor as it is read.  Closing closes both.

    Raises InputError (after closing `base`) when the adapter is not valid or does not fit.
    """

    def __init__(self, base: Checkpoint, adapter: Path, checks: Checks = NO_CHECKS) -> None:
        self._base = base
        try:
            self._adapter = LoraAdapter(adapter, checks)
        except BaseException:
            base.close()
            raise
        try:
            self._adapter.check_fits(base.tensors)
        except BaseException:
            self.close()
            raise
        self.format = base.format
        self.config: dict[str, Any] = base.config
        self.generation_config = base.generation_config
        self.packed_by = base.packed_by

    @property
    def tensors(self) -> Mapping[str, TensorInfo]:
        return self._base.tensors

    def says_nothing(self, name: str) -> bool:
        return self._base.says_nothing(name)

    def read(self, name: str) -> np.ndarray:
        return self._adapter.merge(name, self._base)

    def close(self) -> None:
        self._adapter.close()
        self._base.close()
