"""What only the tensors of a checkpoint decide, as the inspect task writes it and others read it.

`config` in the file is an overlay on the content of config.json: values that the tensors contradict or complete.  `model_type`
is that of the model's family.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llmbuild.engine.kind import Job
from llmbuild.tasks.fields import read_fields

FACTS = "facts.json"

FACTS_FIELDS = ("config", "model_type")
"""What other tasks read of the file: their keys hold nothing else of the weights."""


def with_facts(job: Job, config: Mapping[str, Any]) -> dict[str, Any]:
    """The content of config.json with what the tensors decide.  Raises InputError when the facts cannot be read."""
    return {**config, **read_fields(job.inputs["facts"], {"config": dict})["config"]}


def known_type(job: Job) -> str:
    """The model type that inspect found.  Raises InputError when the facts cannot be read."""
    return str(read_fields(job.inputs["facts"], {"model_type": str})["model_type"])
