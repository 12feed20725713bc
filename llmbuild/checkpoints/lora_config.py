"""adapter_config.json: how the factors of a LoRA adapter are meant, and what in it no merge can express."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llmbuild.checkpoints.files import is_file, read_json
from llmbuild.checkpoints.huggingface import listing
from llmbuild.checkpoints.patterns import PatternError, match_ends
from llmbuild.errors import InputError, Where

_PATTERNS = {"r": "rank_pattern", "lora_alpha": "alpha_pattern"}
"""Keys of adapter_config.json: a number, and the regular expressions of the modules that have another one."""

_UNSUPPORTED = {
    "use_qalora": "QA-LoRA pools the input",
    "use_bdlora": "block-diagonal adapters are stored differently",
    "layer_replication": "it changes the number of layers",
    "target_parameters": "it adapts parameters that are not weights of linear layers",
    "alora_invocation_tokens": "an activated LoRA applies from a token on and cannot be merged",
    "arrow_config": "it chooses among adapters as the model runs",
    "velora_config": "this variant of LoRA is not known",
    "monteclora_config": "this variant of LoRA is not known",
    "kasa_config": "this variant of LoRA is not known",
}
"""Keys of adapter_config.json that, when set, make the adapter differ from what is merged here."""

_CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Ways to begin training that alter the base's weights, so that the adapter does not fit the published ones."""

_HEADS = frozenset({"embed_out", "lm_head"})
_PAIR = _HEADS | {"embed_in", "embed_tokens"}

_BIASES = ("none", "all", "lora_only")


class AdapterConfig:
    """The content of adapter_config.json.  Raises InputError for one that is not valid, or that is not merged."""

    def __init__(self, directory: Path) -> None:
        self.path = directory / "adapter_config.json"
        if not is_file(self.path):
            raise InputError(
                "the adapter has no adapter_config.json",
                where=str(directory),
                why=f"the directory has {listing(directory)}",
                fix="name a directory that peft's save_pretrained wrote",
            )
        self._values = read_json(self.path, "adapter_config.json")
        self._check()
        self.dora = bool(self._values.get("use_dora"))
        self.tied = bool(self._values.get("ensure_weight_tying"))
        """Whether a change of one of head and embedding, where these are one tensor, is a change of both."""

    def scales(self, modules: Sequence[str], ranks: Mapping[str, int]) -> dict[str, float]:
        """What the product of a module's factors is multiplied by.  Raises InputError for a rank that is not the configured."""
        scales: dict[str, float] = {}
        for module, settings in self._settings(modules).items():
            expected, rank = self._number("r", settings), ranks[module]
            if expected != rank:
                raise InputError(
                    "the adapter does not fit",
                    where=str(self.path.parent),
                    why=f"module {module!r} has rank {rank} and adapter_config.json says {expected}",
                    fix="check that the adapter was trained on this model",
                )
            alpha = self._number("lora_alpha", settings)
            scales[module] = alpha / (math.sqrt(rank) if self._values.get("use_rslora") else rank)
        return scales

    def check_targets(self, modules: Sequence[str]) -> None:
        """Raise InputError for a module that has factors and is none of those that are named: peft passes these over.

        Names in lists are compared; a regular expression in their place is believed, and so is a pair of head and embedding
        that is tied, where the name of one stands for both.
        """
        targets, layers = self._values.get("target_modules"), self._values.get("layers_to_transform")
        chosen = [layers] if isinstance(layers, int) else layers
        for module in modules:
            if self.tied and module.rpartition(".")[2] in _PAIR:
                continue
            if isinstance(targets, list) and not _is_named(module, targets):
                raise self._unread("target_modules", module)
            if _is_named(module, self._values.get("exclude_modules")):
                raise self._unread("exclude_modules", module)
            layer = next((int(part) for part in module.split(".") if part.isdecimal()), None)
            named = isinstance(targets, list) and module in targets
            if isinstance(targets, list) and chosen and not named and layer not in chosen:
                raise self._unread("layers_to_transform", module)

    def _unread(self, key: str, module: str) -> InputError:
        why = f"it has factors for {module!r}, which peft passes over, as {key} is {self._values[key]!r:.80}"
        return self.refused(key, why, f"correct {key}, or merge it with peft's merge_and_unload()")

    def saves(self, module: str) -> bool:
        """Whether a module was trained whole beside the base's one, which stays as it is for what shares its weight."""
        return any(module.endswith(entry) for entry in self._values.get("modules_to_save") or ())

    def token_rows(self, module: str) -> list[int]:
        """The rows of an embedding or a head that were trained by themselves."""
        found: Any = self._values.get("trainable_token_indices")
        if isinstance(found, dict):
            found = next((rows for name, rows in found.items() if f".{module}".endswith(f".{name}")), None)
        if not isinstance(found, list) or not all(type(row) is int and row >= 0 for row in found):
            raise self.refused("trainable_token_indices", f"it does not name the rows of {module!r}")
        return found

    def refused(
        self,
        key: str,
        why: str,
        fix: str = "merge it with peft's merge_and_unload() and name the merged checkpoint as the source",
    ) -> InputError:
        """The error for an adapter that cannot be merged here, for a reason that `key` shows."""
        return InputError(
            "the adapter cannot be merged",
            where=Where(str(self.path), key=key),
            why=why,
            fix=fix,
        )

    def _check(self) -> None:
        kind = self._values.get("peft_type")
        if kind != "LORA":
            raise self.refused("peft_type", f"adapters of kind {kind!r} cannot be merged; LORA can")
        for key, why in _UNSUPPORTED.items():
            if self._values.get(key):
                raise self.refused(key, why)
        if (bias := self._values.get("bias") or "none") not in _BIASES:
            raise self.refused("bias", f"{bias!r} is none of {', '.join(_BIASES)}")
        start = self._values.get("init_lora_weights")
        if isinstance(start, str) and start.lower().startswith(_CHANGES_BASE):
            raise self.refused("init_lora_weights", f"{start!r} alters the base model's weights before training")
        for key in _PATTERNS.values():
            if not isinstance(self._values.get(key) or {}, dict):
                raise self.refused(key, "it is not an object")
        saved = self._values.get("modules_to_save") or []
        if not isinstance(saved, list) or not all(isinstance(entry, str) for entry in saved):
            raise self.refused("modules_to_save", "it is not a list of names")

    def _settings(self, modules: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Rank and alpha of each module: the number, or that of the first pattern that matches the end of its name."""
        special = {key: self._values.get(pattern_key) or {} for key, pattern_key in _PATTERNS.items()}
        try:
            found = match_ends({_PATTERNS[key]: list(values) for key, values in special.items()}, modules)
        except PatternError as error:
            raise self.refused(error.key, str(error)) from error
        settings: dict[str, dict[str, Any]] = {module: {} for module in modules}
        for key, pattern_key in _PATTERNS.items():
            values = list(special[key].values())
            for module, index in zip(modules, found[pattern_key], strict=True):
                settings[module][key] = self._values.get(key, 8) if index is None else values[index]
        return settings

    def _number(self, key: str, settings: Mapping[str, Any]) -> float:
        value = settings[key]
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise self.refused(key, f"{value!r} is not a number")
        return float(value)


def _is_named(module: str, names: Any) -> bool:
    """Whether a list has the name of a module or an end of it after a point; the head has two names."""
    if not isinstance(names, list):
        return False
    meant = _HEADS if module in _HEADS else {module}
    return any(f".{one}".endswith(f".{name}") for name in names for one in meant)
