"""Copies of tiny checkpoints with other tensors or other keys in config.json."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np


def copy_with(
    source: Path, to: Path, change: Callable[[dict[str, np.ndarray]], object] = lambda _: None, **config: Any
) -> Path:
    """`source`, whose weights are one safetensors file, with its tensors changed in place by `change` and keys replaced."""
    from safetensors.numpy import load_file, save_file

    shutil.copytree(source, to)
    tensors = load_file(to / "model.safetensors")
    change(tensors)
    save_file(tensors, to / "model.safetensors", metadata={"format": "pt"})
    path = to / "config.json"
    if config:
        path.write_text(json.dumps({**json.loads(path.read_text()), **config}))
    return to
