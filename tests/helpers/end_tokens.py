"""The end tokens of a checkpoint: what the config task makes of its files, and what transformers does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from llmbuild.conversation.templates import resolve_template
from llmbuild.engine.kind import Job
from llmbuild.tasks.config import KIND
from tests.helpers.inspected import write_facts

TOKENS = ("<pad>", "<s>", "</s>", "<e>", "a", "b", "c", "d")
"""The tokenizer's vocabulary; the first four are special."""
Files = Mapping[str, Mapping[str, Any]]
"""Contents by the name of a file; tokenizer.json need not be among them."""


@cache
def tokenizer_json() -> str:
    """A tokenizer of `TOKENS`."""
    from tokenizers import AddedToken, Tokenizer, decoders, models

    made = Tokenizer(models.BPE({text: number for number, text in enumerate(TOKENS)}, []))
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in TOKENS[:4]])
    content: str = made.to_str()
    return content


def ends_by_llmbuild(directory: Path, files: Files) -> tuple[list[int], list[int]]:
    """(eos_token_id as a list, the stop ids) of mlc-chat-config.json for a template that has none of its own.

    `directory` may hold the files of earlier runs.  Raises InputError as the task does.
    """
    checkpoint, out = directory / "checkpoint", directory / "out"
    for place in (checkpoint, out):
        place.mkdir(exist_ok=True)
        for path in place.iterdir():
            path.unlink()
    (checkpoint / "tokenizer.json").write_text(tokenizer_json())
    for name, content in files.items():
        (checkpoint / name).write_text(json.dumps(content))
    write_facts(directory / "facts.json", checkpoint)
    params = {
        "quantization": "q0f32",
        "model-type": None,
        "ignore-keys": [],
        "conversation": resolve_template("LM", Path()),
        "system-prompt": None,
        "metadata": {},
        "generation": {},
        "preset": None,
    }
    inputs = {"checkpoint": checkpoint, "facts": directory / "facts.json"}
    KIND.run(Job(params, inputs, {}, out, directory, lambda done, total, unit="": None, note=lambda text: None))
    made = json.loads((out / "mlc-chat-config.json").read_text())
    return _listed(made["eos_token_id"]), made["conv_template"]["stop_token_ids"]


def ends_by_transformers(files: Files) -> list[int]:
    """Those of generation_config.json as GenerationConfig reads it; else of config.json; else the tokenizer's own.

    GenerationConfig reads config.json by itself where there is no other file, and so without the default of the model's
    class.  A number below 0 stands for none.
    """
    for name in ("generation_config.json", "config.json"):
        if name in files and (ends := _by_generation_config(files[name])):
            return ends
    return _by_tokenizer(json.dumps([(name, files[name]) for name in sorted(files) if name in _OF_TOKENIZER]))


_OF_TOKENIZER = ("tokenizer_config.json", "special_tokens_map.json")


def _by_generation_config(content: Mapping[str, Any]) -> list[int]:
    from transformers import GenerationConfig

    with TemporaryDirectory() as directory:
        Path(directory, "generation_config.json").write_text(json.dumps({"eos_token_id": None, **content}))
        return _listed(GenerationConfig.from_pretrained(directory).eos_token_id)


@cache
def _by_tokenizer(files: str) -> list[int]:
    from transformers import AutoTokenizer

    with TemporaryDirectory() as directory:
        Path(directory, "tokenizer.json").write_text(tokenizer_json())
        for name, content in json.loads(files):
            Path(directory, name).write_text(json.dumps(content))
        return _listed(AutoTokenizer.from_pretrained(directory).eos_token_id)


def _listed(ends: Any) -> list[int]:
    return [one for one in (ends if isinstance(ends, list) else [ends]) if one is not None and one >= 0]
