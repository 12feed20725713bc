"""Opening a checkpoint's weights as what they mean, for every task that looks at tensors.

Each step is a view of the one before (`Checkpoint` over `Checkpoint`), so that quantize and inspect see the same tensors.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, no_note
from llmbuild.tasks.own import known_architecture

if TYPE_CHECKING:
    from llmbuild.checkpoints.packed.stated import Quantization
    from llmbuild.checkpoints.tensor import Checkpoint
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.family import ModelConfig
    from llmbuild.quantization.ports import PlainParameter


def architecture_of(job: Job, config: Mapping[str, Any]) -> DecoderFamily:
    """The family of a checkpoint with this config.json: the project's own, else the one that inspect has found, else the
    manifest's, else the one that it names.  Raises InputError."""
    from llmbuild.models.registry import family, infer_model_type

    return known_architecture(job) or family(infer_model_type(config))


def configuration_of(job: Job, architecture: DecoderFamily, config: Mapping[str, Any]) -> ModelConfig:
    """The configuration of a model with this config.json and without overrides.  Raises InputError."""
    from llmbuild.models.family import Overrides

    params: Mapping[str, Any] = job.params
    return architecture.configure(config, Overrides(), ignore=params["ignore-keys"])


def quantization_of(job: Job, config: Mapping[str, Any]) -> Quantization | None:
    """How the weights of the input "checkpoint" are quantized.  Raises InputError for a way that is not read."""
    from llmbuild.checkpoints.packed.quantization import check_quantization, read_quantization_files

    params: Mapping[str, Any] = job.params
    files = read_quantization_files(job.inputs["checkpoint"])
    return check_quantization(config, files, ignore=params["ignore-keys"])


def with_zero_biases(
    checkpoint: Checkpoint, parameters: Sequence[PlainParameter], note: Callable[[str], None]
) -> Checkpoint:
    """`checkpoint` with zeros for biases of a kind that no layer has, as transformers begins them.

    A bias that only some layers lack stays missing: it was lost.
    """
    from llmbuild.checkpoints.view import ZeroBiases

    def kind(name: str) -> str:
        return re.sub(r"\.\d+\.", ".*.", name)

    there = {kind(name) for name in checkpoint.tensors}
    absent: dict[str, tuple[int, ...]] = {}
    for parameter in parameters:
        for source in parameter.sources:
            weight = checkpoint.tensors.get(f"{source.removesuffix('.bias')}.weight")
            if source.endswith(".bias") and weight is not None and kind(source) not in there:
                absent[source] = weight.shape[:1]
    if not absent:
        return checkpoint
    kinds = ", ".join(dict.fromkeys(f"'{kind(name)}'" for name in absent))
    note(f"no layer has a bias {kinds}: zeros take its place, as in transformers")
    return ZeroBiases(checkpoint, absent)


def open_weights(job: Job, *, packed: bool = False, note: Callable[[str], None] = no_note) -> Checkpoint:
    """The tensors of the inputs "checkpoint" and, where there is one, "adapter"; close it after use.

    With `packed`, weights that were quantized before stay as they are stored.  `note` takes what the user should know of a
    view; the task that writes the weights passes it on.  Raises InputError when they cannot be read or do not fit each other.
    """
    from llmbuild.checkpoints.head import with_known_pair
    from llmbuild.checkpoints.packed.checkpoint import unpacked
    from llmbuild.checkpoints.renamed import renamed
    from llmbuild.models.open import open_checkpoint
    from llmbuild.models.wrapped import text_checkpoint

    directory, source_format = job.inputs["checkpoint"], job.params["source-format"]
    with ExitStack() as stack:
        checkpoint = stack.enter_context(
            open_checkpoint(
                directory, None if source_format is None else str(source_format), job.checks, known_architecture(job)
            )
        )
        if not packed:
            checkpoint = unpacked(checkpoint, quantization_of(job, checkpoint.config), note)
        checkpoint = text_checkpoint(checkpoint, note)
        architecture = architecture_of(job, checkpoint.config)
        config = configuration_of(job, architecture, checkpoint.config)
        wanted = [source for parameter in architecture.parameters(config) for source in parameter.sources]
        checkpoint = renamed(checkpoint, wanted, note)
        spec = architecture.decoder(config)
        embedding, head = spec.names.embedding_weight, spec.names.head_weight
        checkpoint = with_known_pair(checkpoint, embedding, head, tied=spec.tied_head)
        if "adapter" in job.inputs:
            from llmbuild.checkpoints.lora import MergedCheckpoint, Pair

            pair = Pair(embedding, head, spec.tied_head)
            checkpoint = stack.enter_context(
                MergedCheckpoint(checkpoint, job.inputs["adapter"], pair, job.checks, note)
            )
        # The last view closes those below it.
        stack.pop_all()
        return checkpoint
