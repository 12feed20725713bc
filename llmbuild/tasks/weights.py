"""Opening a checkpoint's weights as what they mean, for every task that looks at tensors.

Each step is a view of the one before (`Checkpoint` over `Checkpoint`), so that quantize and inspect see the same tensors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, no_note

if TYPE_CHECKING:
    from llmbuild.checkpoints.tensor import Checkpoint


def open_weights(job: Job, *, packed: bool = False, note: Callable[[str], None] = no_note) -> Checkpoint:
    """The tensors of the inputs "checkpoint" and, where there is one, "adapter"; close it after use.

    With `packed`, weights that were quantized before stay as they are stored.  `note` takes what the user should know of a
    view; the task that writes the weights passes it on.  Raises InputError when they cannot be read or do not fit each other.
    """
    from llmbuild.checkpoints.open import open_checkpoint
    from llmbuild.checkpoints.packed.checkpoint import unpacked
    from llmbuild.checkpoints.packed.quantization import check_quantization, read_quantization_files
    from llmbuild.checkpoints.renamed import renamed

    directory, source_format = job.inputs["checkpoint"], job.params["source-format"]
    with ExitStack() as stack:
        checkpoint = stack.enter_context(
            open_checkpoint(directory, None if source_format is None else str(source_format), job.checks)
        )
        quantization = check_quantization(checkpoint.config, read_quantization_files(directory))
        if not packed:
            checkpoint = unpacked(checkpoint, quantization, note)
        checkpoint = renamed(checkpoint, _wanted(job, checkpoint.config), note)
        if "adapter" in job.inputs:
            from llmbuild.checkpoints.lora import MergedCheckpoint

            checkpoint = stack.enter_context(MergedCheckpoint(checkpoint, job.inputs["adapter"], job.checks))
        # The last view closes those below it.
        stack.pop_all()
        return checkpoint


def _wanted(job: Job, config: Mapping[str, Any]) -> list[str]:
    """The names of the tensors that the model of a config.json is made of."""
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family, infer_model_type

    model_type = job.params["model-type"]
    architecture = family(str(model_type) if model_type else infer_model_type(dict(config)))
    parameters = architecture.parameters(architecture.configure(config, Overrides()))
    return [source for parameter in parameters for source in parameter.sources]
