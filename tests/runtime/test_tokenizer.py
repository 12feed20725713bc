"""A tokenizer.json that was made from other files, in a model that runs."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild.conversation.templates import resolve_template
from llmbuild.engine.kind import Job
from llmbuild.tasks.config import KIND
from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.cli import ProjectDir
from tests.helpers.inspected import write_facts
from tests.helpers.tokenizer_files import sentencepiece_model, vocab_and_merges


@pytest.mark.parametrize("kind", ["sentencepiece", "byte-level"])
def test_a_model_answers_with_a_made_tokenizer(tmp_path: Path, built: ProjectDir, model_dir: Path, kind: str) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", tokenizer=False)
    if kind == "sentencepiece":
        (checkpoint / "tokenizer.model").write_bytes(sentencepiece_model(vocab_size=318))
    else:
        # As many of its tokens as the embedding has rows: a merge makes a token of two that come before it.
        vocab, merges = vocab_and_merges()
        (checkpoint / "vocab.json").write_text(json.dumps({t: n for t, n in json.loads(vocab).items() if n < 320}))
        lines = merges.decode().splitlines()[: 1 + 320 - 257]
        (checkpoint / "merges.txt").write_text("\n".join(lines) + "\n")
        (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "GPT2Tokenizer"}')
    params: dict[str, Any] = {
        "quantization": "q0f32",
        "model-type": None,
        "ignore-keys": [],
        "conversation": resolve_template("chatml", Path()),
        "system-prompt": None,
        "metadata": {"context-window-size": 400, "prefill-chunk-size": 64},
        "generation": {},
        "preset": None,
    }
    copy = shutil.copytree(model_dir, tmp_path / "model")
    (copy / "tokenizer.json").unlink()
    facts = write_facts(tmp_path / "facts.json", checkpoint)
    KIND.run(
        Job(params, {"checkpoint": checkpoint, "facts": facts}, {}, copy, tmp_path, lambda done, total, unit="": None)
    )
    text = "naïve café 12 日本\n\n  and the lazy dog"
    with llmbuild.load(copy, next(built.root.glob("dist/libs/*.so")), threads=1) as model:
        assert model.text(model.tokens(text)) == text
        user = {"role": "user", "content": text}
        answer = model.chat([user], temperature=0, max_tokens=8)
        assert answer == model.chat([user], temperature=0, max_tokens=8)
        assert model.statistics.prompt_tokens > 0
