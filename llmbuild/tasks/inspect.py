"""The inspect task: what only the tensors of a checkpoint and its adapter decide about the model.

It reads headers, and values only where the names do not suffice.  Its result is a handful of facts: other weights with the
same facts neither configure nor compile again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, TaskKind
from llmbuild.printable import several
from llmbuild.tasks.facts import FACTS
from llmbuild.tasks.weights import architecture_of, configuration_of, open_weights

if TYPE_CHECKING:
    from llmbuild.checkpoints.tensor import Checkpoint
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.spec import DecoderSpec

BIASES = ("attention_bias", "mlp_bias")
"""Keys of config.json that say whether layers have biases."""

INV_FREQ_TOLERANCE = 0.01
"""Frequencies that were stored in 16 bits differ by less from those that the configuration gives."""


def run(job: Job) -> None:
    """Write facts.json.  A configuration that no family takes is refused here, once for all schemes and platforms."""
    with open_weights(job) as checkpoint:
        architecture = architecture_of(job, checkpoint.config)
        spec = architecture.decoder(configuration_of(job, architecture, checkpoint.config))
        config = _tying(job, checkpoint, spec)
        config |= _biases(job, checkpoint, architecture, {**checkpoint.config, **config})
        _check_frequencies(job, checkpoint, spec)
        _check_masks(checkpoint, architecture)
    _note_adapter(job)
    (job.out / FACTS).write_text(json.dumps({"config": config}, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def _note_adapter(job: Job) -> None:
    """Note an adapter beside the weights, which transformers applies; only the user knows whether the weights have it already."""
    from llmbuild.checkpoints.files import is_file
    from llmbuild.checkpoints.weight_files import ADAPTER_WEIGHTS

    beside = next((file for file in ADAPTER_WEIGHTS.values() if is_file(job.inputs["checkpoint"] / file)), None)
    if beside is not None and "adapter" not in job.inputs:
        job.note(
            f"{beside} beside the weights is not merged, unlike in transformers: name its directory as the model's adapter, "
            "unless the weights have it already"
        )


def _tying(job: Job, checkpoint: Checkpoint, spec: DecoderSpec) -> dict[str, Any]:
    """Head and embedding are one tensor only where the configuration says so and the values do not contradict it."""
    from llmbuild.checkpoints.head import same_values

    embedding, head = spec.names.embedding_weight, spec.names.head_weight
    stored = checkpoint.tensors
    if not spec.tied_head or not {embedding, head} <= stored.keys() or same_values(checkpoint, embedding, head):
        return {}
    job.note(f"tie_word_embeddings is true, but '{head}' differs from '{embedding}': the model has a head of its own")
    return {"tie_word_embeddings": False}


def _biases(job: Job, checkpoint: Checkpoint, architecture: DecoderFamily, config: Mapping[str, Any]) -> dict[str, Any]:
    """Which kinds of biases that the configuration promises are in no layer: transformers takes them as zeros."""

    def needed(values: Mapping[str, Any]) -> set[str]:
        parameters = architecture.parameters(configuration_of(job, architecture, values))
        return {source for parameter in parameters for source in parameter.sources}

    absent: dict[str, Any] = {}
    every = needed(config)
    if not any(name.endswith(".bias") and name not in checkpoint.tensors for name in every):
        return absent
    for key in BIASES:
        saved = every - needed({**config, key: False})
        if saved and not saved & checkpoint.tensors.keys():
            absent[key] = False
    return absent


def _check_frequencies(job: Job, checkpoint: Checkpoint, spec: DecoderSpec) -> None:
    """Note stored frequencies that are not those of the configuration; transformers computes them and reads none."""
    wanted = list(spec.ropes[0].frequencies)
    others = [
        name
        for name in checkpoint.tensors
        if name.endswith(".rotary_emb.inv_freq") and not _near(checkpoint, name, wanted)
    ]
    if others:
        names, one = several([f"'{name}'" for name in others]), len(others) == 1
        job.note(
            f"{names} {'differs' if one else 'differ'} from the frequencies that config.json gives, and "
            f"{'is' if one else 'are'} not used"
        )


def _near(checkpoint: Checkpoint, name: str, wanted: list[float]) -> bool:
    if checkpoint.tensors[name].shape != (len(wanted),):
        return False
    found = checkpoint.read(name).tolist()
    return all(abs(one - other) <= INV_FREQ_TOLERANCE * other for one, other in zip(found, wanted, strict=True))


def _check_masks(checkpoint: Checkpoint, architecture: DecoderFamily) -> None:
    """Raise InputError for a tensor under the name of a mask's buffer that is no causal mask."""
    from llmbuild.errors import InputError

    looked_at = False
    for name, info in checkpoint.tensors.items():
        if not name.endswith(architecture.masks):
            continue
        if name.endswith("masked_bias"):
            right = info.shape in ((), (1,))
        else:
            right = info.shape[:2] == (1, 1) and len(info.shape) == 4 and info.shape[2] == info.shape[3]
            # The masks of all layers are one buffer of transformers: of the values, one mask's are enough.
            if right and not looked_at:
                right, looked_at = _is_causal(checkpoint, name), True
        if not right:
            raise InputError(
                f"tensor '{name}' is no causal mask",
                where=checkpoint.location(name),
                why=f"the architecture ignores a tensor of this name, and its shape is {list(info.shape)}",
                fix="check that model-type and config.json belong to this checkpoint",
            )


def _is_causal(checkpoint: Checkpoint, name: str) -> bool:
    import numpy as np

    mask = checkpoint.read(name)[0, 0]
    return bool((mask.astype(np.float32) == np.tri(len(mask), dtype=np.float32)).all())


KIND = TaskKind(
    name="inspect",
    version=1,
    params=("model-type", "ignore-keys", "source-format"),
    sources=("llmbuild.tasks.inspect",),
    tools=("numpy", "ml_dtypes", "gguf"),
    run=run,
    in_place=True,
)
