"""A built library held against a model in transformers: logits of a few prompts, and of the steps after them.

transformers reads a directory that llmbuild wrote, with a config.json and float32 weights alone: no code that came with a
checkpoint is there to run.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.errors import InputError
from llmbuild.runtime.extras import require_extra
from llmbuild.runtime.verify import relative_l2

if TYPE_CHECKING:
    import numpy as np

PROMPTS = (3, 12, 24)
"""The numbers of tokens of the prompts."""
STEPS = 6
"""Tokens that are decoded after each, one by one."""

_DROPPED = ("auto_map", "quantization_config", "torch_dtype", "dtype")
"""Keys of config.json that name code, or a form in which the weights that are written are not."""


@dataclass(frozen=True, slots=True)
class Agreement:
    """The relative L2 distance between all logits, and for how many of the `positions` the likeliest token is the same."""

    distance: float
    same: int
    positions: int


def agreement(found: Sequence[np.ndarray], wanted: Sequence[np.ndarray]) -> Agreement:
    import numpy as np

    ours, theirs = np.concatenate(found).astype(np.float64), np.concatenate(wanted).astype(np.float64)
    same = int((ours.argmax(-1) == theirs.argmax(-1)).sum())
    return Agreement(relative_l2(ours, theirs), same, len(ours))


def sample_texts(active: int, context: int) -> list[list[int]]:
    """The token ids of each prompt with the steps after it: the same ones for each vocabulary, within the context."""
    import numpy as np

    numbers = np.random.default_rng(0)
    lengths = [min(count, context - STEPS) for count in PROMPTS]
    return [[int(one) for one in numbers.integers(0, active, count + STEPS)] for count in lengths if count > 0]


def built_logits(library: Any, parameters: Sequence[Any], texts: Iterable[Sequence[int]]) -> list[np.ndarray]:
    """The library's logits [steps + 1, vocab] for each text: after the prompt, and after each step."""
    import numpy as np

    from llmbuild.runtime.session import PAGE_SIZE, Session

    found = []
    for text in texts:
        size = max(len(text), library.metadata["prefill_chunk_size"])
        session = Session(library, parameters, capacity=-(-size // PAGE_SIZE) * PAGE_SIZE)
        session.add()
        rows = [session.prefill(text[:-STEPS])] + [session.decode(token) for token in text[-STEPS:]]
        found.append(np.stack(rows))
    return found


def require_transformers() -> None:
    """Raise ToolchainError where transformers, torch or safetensors is not installed."""
    require_extra(
        "transformers",
        ("transformers", "torch", "safetensors"),
        why="the comparison runs the checkpoint in transformers",
    )


def write_checkpoint(directory: Path, config: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> None:
    """Write what transformers reads into an empty directory.  Raises OSError."""
    from safetensors.numpy import save_file

    kept = {key: value for key, value in config.items() if key not in _DROPPED}
    (directory / "config.json").write_text(json.dumps(kept), encoding="utf-8")
    save_file(dict(tensors), directory / "model.safetensors", {"format": "pt"})


def reference_logits(directory: Path, texts: Iterable[Sequence[int]]) -> list[np.ndarray]:
    """transformers' logits [steps + 1, vocab] for each text, in float32.  Raises InputError where it cannot run the model, or
    lacks a tensor that it needs."""
    import torch
    import transformers

    # Its annotations do not tell that a call may return two values.
    library: Any = transformers
    library.logging.set_verbosity_error()
    library.logging.disable_progress_bar()
    try:
        model, info = library.AutoModelForCausalLM.from_pretrained(
            directory,
            dtype=torch.float32,
            attn_implementation="eager",
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
    except Exception as error:
        raise InputError(
            "transformers cannot run this model",
            where="config.json",
            why=(str(error).strip() or type(error).__name__).splitlines()[0][:300],
            fix="a model of which transformers has no class of its own cannot be compared",
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise InputError(
            f"transformers needs '{missing[0]}', which the checkpoint does not have",
            where="config.json",
            why="its names of tensors are others",
        )
    found = []
    with torch.no_grad():
        for text in texts:
            logits = model(torch.tensor([list(text)]), use_cache=False).logits[0]
            found.append(logits[len(text) - STEPS - 1 :].float().numpy())
    return found
