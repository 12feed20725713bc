"""Tiny random checkpoints of every family: the variants in tests/models/variants, as transformers writes their models.

A file there is a family's, and has config.json contents by the names of variants.  The first one is built in CI, all by
`-m full`.

A family of which transformers has no class has a module in tests/helpers/references, named as its model_type: `model` makes a
model of transformers that computes the same, and `tensors` has its weights as such a checkpoint has them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

DIRECTORY = Path(__file__).parent.parent / "models" / "variants"

SHARED: Mapping[str, Any] = {
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 160,
    "max_position_embeddings": 128,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
    "tie_word_embeddings": False,
}
"""What a variant has besides its own keys, where it does not say "alone"."""


@cache
def variants() -> Mapping[str, Mapping[str, Any]]:
    """config.json contents by "family/variant", the first of each family first."""
    found: dict[str, Mapping[str, Any]] = {}
    for path in sorted(DIRECTORY.glob("*.json")):
        for name, keys in json.loads(path.read_text()).items():
            shared = {} if keys.get("alone") else SHARED
            config = {**shared, **{key: value for key, value in keys.items() if key != "alone"}}
            found[f"{path.stem}/{name}"] = {key: value for key, value in config.items() if value != "absent"}
    return found


def in_ci(name: str) -> bool:
    """Whether a variant is the first of its family."""
    family = name.partition("/")[0]
    return name == next(other for other in variants() if other.partition("/")[0] == family)


def reference_of(config: Mapping[str, Any]) -> Any:
    """The module of a configuration that transformers has no class for, else None."""
    name = str(config.get("model_type")).replace("-", "_")
    known = (Path(__file__).parent / "references" / f"{name}.py").exists()
    return import_module(f"tests.helpers.references.{name}") if known else None


def write_checkpoint(
    directory: Path, config: Mapping[str, Any], seed: int = 11, *, four_bits: bool = False, images: bool = False
) -> Any:
    """Save a random model of a configuration, with norms and biases that say something; returns the model.

    config.json keeps the spelling that it was given in.  With `four_bits` q4f32_1 stores all matrices without loss.  `images`
    says that the model is one of text and images.
    """
    import torch
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, logging

    logging.set_verbosity_error()
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(config))
    torch.manual_seed(seed)
    reference = reference_of(config)
    if reference is None:
        made = AutoModelForImageTextToText if images else AutoModelForCausalLM
        model = made.from_config(AutoConfig.from_pretrained(directory), attn_implementation="eager")
    else:
        model = reference.model(config)
    model = model.eval().float()
    with torch.no_grad():
        for name, value in model.named_parameters():
            if value.ndim == 1:
                value.add_(torch.randn_like(value) * 0.2)
                continue
            size = 0.5 if "embed" in name else 0.08
            value.copy_(_packable(value, size) if four_bits else torch.randn_like(value) * size)
    if reference is None:
        model.save_pretrained(directory)
    else:
        tensors = reference.tensors(config, model)
        save_file({name: value.contiguous() for name, value in tensors.items()}, directory / "model.safetensors")
    (directory / "config.json").write_text(json.dumps(config))
    return model


def _packable(like: Any, size: float) -> Any:
    """Multiples from -7 to 7 of powers of two about `size` / 4, one for each 32 rows and columns; every such group has a 7."""
    import torch

    rows, columns = (torch.arange(count) for count in like.shape)
    at = rows[:, None], columns[None]
    scales = 2.0 ** (round(math.log2(size / 4)) - (at[0] // 32 + at[1] // 32) % 2)
    return torch.where((at[0] + at[1]) % 16 == 0, 7, torch.randint(-7, 8, like.shape)) * scales


def all_logits(model: Any, ids: list[int]) -> np.ndarray:
    """The model's logits [len(ids), vocabulary]."""
    import torch

    with torch.no_grad():
        found: np.ndarray = model(torch.tensor([ids]), use_cache=False).logits[0].numpy()
    return found
