"""What the inspect task says of a checkpoint, for tests that run a task after it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.engine.kind import Job, no_progress
from llmbuild.models.open import read_metadata
from llmbuild.models.registry import infer_model_type
from llmbuild.tasks.facts import FACTS
from llmbuild.tasks.inspect import KIND

_PLACE = tempfile.TemporaryDirectory(prefix="facts-")


def facts_of(
    checkpoint: Path, adapter: Path | None = None, *, model_type: str | None = None, source_format: str | None = None
) -> Path:
    """The file of facts, in a directory that goes when the process ends."""
    out = Path(tempfile.mkdtemp(dir=_PLACE.name))
    params: dict[str, Json] = {"model-type": model_type, "ignore-keys": [], "source-format": source_format}
    inputs = {"checkpoint": checkpoint} | ({} if adapter is None else {"adapter": adapter})
    KIND.run(Job(params, inputs, {}, out, out, no_progress))
    return out / FACTS


def write_facts(file: Path, checkpoint: Path, model_type: str | None = None, config: Json = None) -> Path:
    """A file of facts for a checkpoint whose tensors are not looked at."""
    found = model_type or infer_model_type(read_metadata(checkpoint).config)
    file.write_text(json.dumps({"config": config or {}, "model_type": found}))
    return file
