"""A small Llama that has learned something: the quality of quantized weights is measured on it, as random weights have none.

It is trained by torch on one thread from a fixed seed and text, the topics of Python's own help, of which the last part is held
out.  The first test that wants it trains it, in a process of its own; all others, of every worker, find the checkpoint.  Losses
differ a little between kinds of CPU, releases of torch and of Python, and with them all figures: ratios are what tests compare.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from tests.helpers.checkpoints import cache_root

VOCABULARY = 1024
HELD_OUT = 60_000
"""Characters at the end of the text that training does not see."""
STEPS, BATCH, LENGTH = 400, 8, 64
RATE = 4e-3

CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 128,
    "intermediate_size": 384,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": VOCABULARY,
    "max_position_embeddings": 512,
    "hidden_act": "silu",
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "attention_bias": False,
    "mlp_bias": False,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "tie_word_embeddings": True,
}
"""Matrices of 128 and 384 inputs: whole groups of 32; of 40 the last one is padded."""


def trained_checkpoint(*, tied: bool = True) -> Path:
    """The directory of the checkpoint: config.json, tokenizer.json, model.safetensors in float32.  Read only.

    One that is not `tied` has a head of its own, the embedding with each column multiplied by a number near 1, by which the final
    norm's weight is divided: both models compute the same.
    """
    key = _key()
    final = cache_root() / "trained" / f"{'tied' if tied else 'untied'}-{key}"
    final.parent.mkdir(parents=True, exist_ok=True)
    with (final.parent / f"{final.name}.lock").open("w") as lock:
        # Two workers that both train would each take twice as long.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not final.is_dir():
            with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
                made = Path(scratch) / "made"
                if tied:
                    subprocess.run([sys.executable, "-m", __name__, str(made)], check=True)
                else:
                    _untie(trained_checkpoint(), made)
                made.rename(final)
    return final


@cache
def text() -> str:
    """All of the text, about 450,000 characters."""
    from pydoc_data.topics import topics

    return "\n\n".join(topics[name] for name in sorted(topics))


def calibration_text() -> str:
    """A part of what it was trained on."""
    return text()[:HELD_OUT]


def held_out_text() -> str:
    """What it has not seen."""
    return text()[-HELD_OUT:]


def tokens_of(directory: Path, sample: str) -> list[int]:
    """The token ids of a text."""
    from tokenizers import Tokenizer

    ids: list[int] = Tokenizer.from_file(str(directory / "tokenizer.json")).encode(sample).ids
    return ids


def train(directory: Path) -> None:
    """Train the model, tied, and write its checkpoint into `directory`."""
    import numpy as np
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.set_num_threads(1)
    torch.manual_seed(7)
    tokenizer = _tokenizer(text()[:-HELD_OUT])
    ids = torch.tensor(tokenizer.encode(text()[:-HELD_OUT]).ids)
    model: Any = LlamaForCausalLM(LlamaConfig(**{**CONFIG, "attn_implementation": "sdpa"}))
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, betas=(0.9, 0.95), weight_decay=0.1)
    random = np.random.default_rng(7)
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = RATE * min(1.0, (step + 1) / 20) * (1 - step / STEPS)
        starts = random.integers(0, len(ids) - LENGTH - 1, BATCH)
        rows = torch.stack([ids[start : start + LENGTH] for start in starts])
        loss = model(rows, labels=rows).loss
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 20 == 0 or step == STEPS - 1:
            print(f"step {step}: loss {loss.item():.3f}", flush=True)
    weights = {name: value for name, value in model.state_dict().items() if name != "lm_head.weight"}
    directory.mkdir()
    _write(directory, CONFIG, weights)
    tokenizer.save(str(directory / "tokenizer.json"))


def _tokenizer(sample: str) -> Any:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|end|>"],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator([sample], trainer)
    return tokenizer


def _untie(source: Path, directory: Path) -> None:
    import torch
    from safetensors.torch import load_file

    weights = load_file(source / "model.safetensors")
    factors = 0.75 + 0.5 * torch.rand(CONFIG["hidden_size"], generator=torch.Generator().manual_seed(3))
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"] * factors
    weights["model.norm.weight"] = weights["model.norm.weight"] / factors
    directory.mkdir()
    _write(directory, {**CONFIG, "tie_word_embeddings": False}, weights)
    shutil.copy(source / "tokenizer.json", directory)


def _write(directory: Path, config: dict[str, Any], weights: dict[str, Any]) -> None:
    from safetensors.torch import save_file

    save_file({name: value.contiguous() for name, value in weights.items()}, directory / "model.safetensors")
    settings = {**config, "torch_dtype": "float32"}
    (directory / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _key() -> str:
    import torch

    recipe = Path(__file__).read_bytes() + torch.__version__.encode() + text().encode()
    return hashlib.sha256(recipe).hexdigest()[:16]


if __name__ == "__main__":
    train(Path(sys.argv[1]))
