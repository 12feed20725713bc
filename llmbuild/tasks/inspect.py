"""The inspect task: what only the tensors of a checkpoint and its adapter decide about the model.

It reads headers, and values only where the names do not suffice.  Its result is a handful of facts: other weights with the
same facts neither configure nor compile again.  A list of tensors that is not the model's is refused here, so that nothing
is quantized or compiled before.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from llmbuild.engine.kind import Job, TaskKind, no_note
from llmbuild.printable import several
from llmbuild.tasks.facts import FACTS
from llmbuild.tasks.weights import architecture_of, configuration_of, open_weights, with_zero_biases

if TYPE_CHECKING:
    from llmbuild.checkpoints.tensor import Checkpoint
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.spec import DecoderSpec

BIASES = ("attention_bias", "mlp_bias")
"""Keys of config.json that say whether layers have biases."""

INV_FREQ_TOLERANCE = 0.01
"""Frequencies that were stored in 16 bits differ by less from those that the configuration gives."""


def run(job: Job) -> None:
    """Write facts.json.

    Raises InputError (MultiError for several), once for all schemes and platforms, for a configuration that no family takes
    and for tensors that are not those of the model.
    """
    with open_weights(job) as checkpoint:
        architecture = architecture_of(job, checkpoint.config)
        spec = architecture.decoder(configuration_of(job, architecture, checkpoint.config))
        config = _tying(job, checkpoint, spec, keeps_head=architecture.keeps_head)
        config |= _biases(job, checkpoint, architecture, {**checkpoint.config, **config})
        _check_frequencies(job, checkpoint, spec)
        _check_masks(checkpoint, architecture)
        _check_tensors(job, checkpoint, architecture, {**checkpoint.config, **config})
    _note_adapter(job)
    facts = {"config": config, "model_type": architecture.model_type}
    (job.out / FACTS).write_text(json.dumps(facts, indent=2, sort_keys=True) + "\n", encoding="utf-8")


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


def _tying(job: Job, checkpoint: Checkpoint, spec: DecoderSpec, *, keeps_head: bool) -> dict[str, Any]:
    """Head and embedding are one tensor only where the configuration says so and the values do not contradict it.

    A stored head that is equal counts as another tensor in a family that keeps it.
    """
    from llmbuild.checkpoints.head import same_values

    embedding, head = spec.names.embedding_weight, spec.names.head_weight
    stored = checkpoint.tensors
    if not spec.tied_head or not {embedding, head} <= stored.keys():
        return {}
    if same_values(checkpoint, embedding, head):
        return {"tie_word_embeddings": False} if keeps_head else {}
    job.note(f"tie_word_embeddings is true, but '{head}' differs from '{embedding}': the model has a head of its own")
    return {"tie_word_embeddings": False}


def _biases(job: Job, checkpoint: Checkpoint, architecture: DecoderFamily, config: Mapping[str, Any]) -> dict[str, Any]:
    """Which kinds of biases that the configuration promises are in no layer: transformers takes them as zeros."""
    absent: dict[str, Any] = {}
    every = _needed(job, architecture, config)
    if not any(name.endswith(".bias") and name not in checkpoint.tensors for name in every):
        return absent
    for key in BIASES:
        saved = every - _needed(job, architecture, {**config, key: False})
        if saved and not saved & checkpoint.tensors.keys():
            absent[key] = False
    return absent


def _needed(job: Job, architecture: DecoderFamily, config: Mapping[str, Any]) -> set[str]:
    """The names of the tensors that a model with this config.json is made from."""
    parameters = architecture.parameters(configuration_of(job, architecture, config))
    return {source for parameter in parameters for source in parameter.sources}


def _check_tensors(job: Job, checkpoint: Checkpoint, architecture: DecoderFamily, config: Mapping[str, Any]) -> None:
    """Raise InputError, or MultiError, when the names, shapes and types of the tensors are not those of the model."""
    from llmbuild.models.config_json import vocabulary_key
    from llmbuild.quantization.fitting import check

    _check_biases(job, checkpoint, architecture, config)
    parameters = architecture.parameters(configuration_of(job, architecture, config))
    check(
        with_zero_biases(checkpoint, parameters, no_note),
        parameters,
        lambda name: architecture.unused(name) or checkpoint.says_nothing(name),
        vocabulary_key(config),
    )


def _check_biases(job: Job, checkpoint: Checkpoint, architecture: DecoderFamily, config: Mapping[str, Any]) -> None:
    """Note biases of zeros that the model does not have, and raise InputError for others that a key of config.json denies."""
    from llmbuild.errors import InputError

    every = _needed(job, architecture, config)
    denied = [name for name in checkpoint.tensors if name.endswith(".bias") and name not in every]
    denied = [name for name in denied if not architecture.unused(name)]
    silent = [name for name in denied if checkpoint.says_nothing(name)]
    # Who packs weights writes a bias of zeros for each as a rule.
    if silent and checkpoint.packed_by is None:
        names, one = several([f"'{name}'" for name in silent]), len(silent) == 1
        job.note(f"{names} {'is a bias' if one else 'are biases'} of zeros that the model does not have, and left out")
    for key in BIASES if len(denied) > len(silent) else ():
        promised = _needed(job, architecture, {**config, key: True}) - every
        found = [name for name in denied if name in promised and name not in silent]
        if found:
            more = f" and {len(found) - 1} more" if len(found) > 1 else ""
            raise InputError(
                f"'{found[0]}'{more}: biases that the configuration denies",
                where=checkpoint.location(found[0]),
                why=f"{key} is not true, and their values are not zero: transformers would leave them out",
                fix=f"set {key} = true in config.json, or remove these tensors if the model was trained without them",
            )


def _check_frequencies(job: Job, checkpoint: Checkpoint, spec: DecoderSpec) -> None:
    """Note stored frequencies that are not those of the configuration; transformers computes them and reads none."""
    wanted = [rope.frequencies for rope in spec.ropes]
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


def _near(checkpoint: Checkpoint, name: str, wanted: Sequence[Sequence[float]]) -> bool:
    """Whether a stored tensor is near the frequencies of one of the model's RoPEs."""
    fitting = [frequencies for frequencies in wanted if checkpoint.tensors[name].shape == (len(frequencies),)]
    found = checkpoint.read(name).tolist() if fitting else []
    return any(
        all(abs(one - other) <= INV_FREQ_TOLERANCE * other for one, other in zip(found, frequencies, strict=True))
        for frequencies in fitting
    )


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
    params=("model-type", "ignore-keys", "source-format", "architecture"),
    sources=("llmbuild.tasks.inspect",),
    tools=("numpy", "ml_dtypes", "gguf", "llmbuild family"),
    run=run,
    in_place=True,
)
