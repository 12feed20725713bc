"""The inspect task: what only the tensors of a checkpoint and its adapter decide about the model.

It reads headers, and values only where the names do not suffice.  Its result is a handful of facts: other weights with the
same facts neither configure nor compile again.
"""

from __future__ import annotations

import json

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.tasks.facts import FACTS
from llmbuild.tasks.weights import open_weights


def run(job: Job) -> None:
    """Write facts.json.  A configuration that no family takes is refused here, once for all schemes and platforms."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type

    model_type = job.params["model-type"]
    with open_weights(job) as checkpoint:
        architecture = family(str(model_type) if model_type else infer_model_type(checkpoint.config))
        architecture.configure(checkpoint.config, Overrides())
        config: dict[str, object] = {}
    (job.out / FACTS).write_text(json.dumps({"config": config}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


KIND = TaskKind(
    name="inspect",
    version=1,
    params=("model-type", "source-format"),
    sources=("llmbuild.tasks.inspect",),
    tools=("numpy", "ml_dtypes", "gguf"),
    run=run,
    in_place=True,
)
