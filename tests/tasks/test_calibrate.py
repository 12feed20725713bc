"""What the calibrate task refuses before it runs a library; tests/e2e/test_calibrated.py runs one."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.tasks.calibrate import KIND
from llmbuild.tasks.text import TEXT
from tests.helpers.checkpoints import cached_checkpoint


@pytest.mark.parametrize(("text", "tokens"), [("Hello.", 32768), ("A longer text. " * 2000, 100)])
def test_a_text_of_too_few_tokens_is_refused(text: str, tokens: int, tmp_path: Path) -> None:
    (tmp_path / TEXT).write_text(text)
    inputs = {"text": tmp_path, "tokenizer": cached_checkpoint("llama-tied")}
    with pytest.raises(InputError, match=r"the text has \d+ tokens") as caught:
        KIND.run(Job({"tokens": tokens}, inputs, {}, tmp_path, tmp_path, lambda *_: None))
    assert caught.value.where == "quality.calibration-text"
