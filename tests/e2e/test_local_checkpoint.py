"""A large local checkpoint costs its weights and next to nothing more."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.checkpoints import CONFIGS, cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

HIDDEN, INTERMEDIATE, VOCAB, LAYERS = 2048, 8192, 320, 16


def write_large(directory: Path) -> Path:
    """A checkpoint of 2 GB in float16, of random weights that repeat."""
    shutil.copytree(cached_checkpoint("llama-gqa"), directory)
    settings = {"hidden_size": HIDDEN, "intermediate_size": INTERMEDIATE, "num_hidden_layers": LAYERS}
    config = {**CONFIGS["llama-gqa"], **settings, "torch_dtype": "float16"}
    (directory / "config.json").write_text(json.dumps(config))
    head = HIDDEN // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (VOCAB, HIDDEN)}
    for layer in range(LAYERS):
        prefix = f"model.layers.{layer}"
        for name, rows, columns in (
            *(("mlp.gate_proj", INTERMEDIATE, HIDDEN), ("mlp.up_proj", INTERMEDIATE, HIDDEN)),
            *(("mlp.down_proj", HIDDEN, INTERMEDIATE), ("self_attn.q_proj", HIDDEN, HIDDEN)),
            *(("self_attn.k_proj", head, HIDDEN), ("self_attn.v_proj", head, HIDDEN)),
            ("self_attn.o_proj", HIDDEN, HIDDEN),
        ):
            shapes[f"{prefix}.{name}.weight"] = (rows, columns)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{prefix}.{name}.weight"] = (HIDDEN,)
    shapes |= {"model.norm.weight": (HIDDEN,), "lm_head.weight": (VOCAB, HIDDEN)}
    header, position = {}, 0
    for name, shape in shapes.items():
        size = 2 * int(np.prod(shape))
        header[name] = {"dtype": "F16", "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(header).encode()
    block = (np.random.default_rng(0).standard_normal(1 << 24) * 0.02).astype(np.float16).tobytes()
    with (directory / "model.safetensors").open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        while position:
            position -= file.write(block[:position])
    return directory


def disk(*directories: Path) -> int:
    """The bytes that files take on the disk, each inode counted once."""
    found = {}
    for directory in directories:
        for path in directory.rglob("*"):
            status = path.lstat()
            found[status.st_dev, status.st_ino] = status.st_blocks * 512
    return sum(found.values())


@pytest.mark.full
def test_the_disk_takes_the_weights_and_under_50_mb_more(tmp_path: Path) -> None:
    project = make_project(tmp_path, TINY_MANIFEST)
    weights = write_large(project.root / "checkpoint") / "model.safetensors"
    assert weights.stat().st_size > 1.9e9
    os.utime(weights, (1e9, 1e9))
    before = disk(tmp_path)
    assert project.build("quantize", "config") == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1}
    made = sum(path.stat().st_size for path in (project.root / "dist").rglob("params_shard_*.bin"))
    more = disk(tmp_path) - before - made
    if not (project.store / "in-place").exists():
        # The file system made a reflink, whose blocks are those of the weights and count for both files.
        more -= weights.stat().st_size
    print(f"{weights.stat().st_size / 1e6:.0f} MB of weights, {made / 1e6:.0f} MB quantized, {more / 1e6:.2f} MB more")
    assert made > 5e8
    assert more < 50_000_000
