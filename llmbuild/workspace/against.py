"""Holding a built model against its own checkpoint in transformers.

The checkpoint is read as the quantize task reads it, with adapters, GGUF and weights that were quantized before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.engine.action import TreeInput
from llmbuild.engine.kind import Job, no_progress
from llmbuild.engine.labels import make_label
from llmbuild.errors import UsageError, VerifyError
from llmbuild.runtime.against import (
    Agreement,
    agreement,
    built_logits,
    reference_logits,
    sample_texts,
    write_checkpoint,
)

if TYPE_CHECKING:
    import numpy as np

    from llmbuild.checkpoints.pieces import Pieces
    from llmbuild.models.parameter import Parameter
    from llmbuild.quantization.scheme import Scheme
    from llmbuild.workspace.workspace import Workspace


@dataclass(frozen=True, slots=True)
class Compared:
    """How far the library is from transformers with the weights that it has, and with those of the checkpoint."""

    stored: Agreement
    original: Agreement


@contextmanager
def quantize_job(workspace: Workspace, model: str, scheme: str) -> Iterator[Job]:
    """What the quantize task of a built model saw.  Raises UsageError where its inputs are no longer in the store."""
    label = make_label("quantize", model, scheme)
    task, plan = workspace.look(label, partial=True).plan_of(label)
    verdict = next(one for one in plan.verdicts if one.task.label == label)
    if verdict.action is None or verdict.unbuilt:
        raise UsageError(
            f"{label} is not up to date", where=workspace.whole.file, fix="run `llmbuild build`, then compare"
        )
    cas = workspace.store.cas
    with tempfile.TemporaryDirectory(prefix="llmbuild-against-") as place:
        inputs: dict[str, Path] = {}
        checks: dict[Path, Pieces] = {}
        for name, value in verdict.action.inputs.items():
            if isinstance(value, TreeInput):
                inputs[name] = Path(place, "inputs", name)
                cas.materialize(cas.get_tree(value.tree), inputs[name], checks)
            else:
                inputs[name] = cas.path(value.blob)
        out = Path(place, "out")
        out.mkdir()
        yield Job(task.params, inputs, task.hints, out, out, no_progress, checks=checks)


def compare(job: Job, library_path: Path, weights: Path, tolerance: Mapping[str, float]) -> Compared:
    """Run both and measure.

    Raises VerifyError where the library is further from transformers with the stored weights than `tolerance` says of its compute
    dtype, and InputError where transformers cannot run the model.
    """
    from llmbuild.quantization.scheme import Scheme
    from llmbuild.runtime.chat_config import read_chat_config
    from llmbuild.runtime.library import load_library
    from llmbuild.runtime.weights import check_parameters, load_parameters, read_tensor_index
    from llmbuild.tasks.facts import with_facts
    from llmbuild.tasks.weights import architecture_of, configuration_of, open_weights, with_zero_biases

    params: Mapping[str, Any] = job.params
    scheme = Scheme.from_json(params["scheme"])
    if scheme.comes_packed:
        raise UsageError(
            f"{scheme.name} is not compared with transformers", why="its weights are taken over as they came packed"
        )
    library = load_library(library_path)
    check_parameters(library, weights, read_tensor_index(weights))
    loaded = load_parameters(library, weights)
    config = read_chat_config(weights)
    texts = sample_texts(min(config["active_vocab_size"], config["vocab_size"]), config["context_window_size"])
    found = built_logits(library, loaded, texts)
    stored = {record.name: value.numpy() for record, value in zip(library.parameters, loaded, strict=True)}
    with open_weights(job) as checkpoint:
        facts = with_facts(job, checkpoint.config)
        architecture = architecture_of(job, checkpoint.config)
        model_config = configuration_of(job, architecture, facts)
        parameters = architecture.parameters(model_config)
        complete = with_zero_biases(checkpoint, parameters, job.note)
        head = architecture.decoder(model_config).names.head_weight

        def wanted(tensors: Mapping[str, np.ndarray], untied: bool) -> list[np.ndarray]:
            with tempfile.TemporaryDirectory(prefix="llmbuild-against-") as place:
                values = {**facts, **({"tie_word_embeddings": False} if untied else {})}
                write_checkpoint(Path(place), values, tensors)
                return reference_logits(Path(place), texts)

        names = dict.fromkeys(source for parameter in parameters for source in parameter.sources)
        rows = {name: complete.tensors[name].shape[0] for name in names}
        tensors, untied = _stored_sources(parameters, rows, stored, scheme, head)
        of_stored = agreement(found, wanted(tensors, untied))
        del tensors
        of_checkpoint = agreement(found, wanted({name: _plain(complete.read(name)) for name in names}, untied=False))
    require_near(of_stored, tolerance[scheme.dtype], scheme.dtype, library_path)
    return Compared(of_stored, of_checkpoint)


def require_near(found: Agreement, most: float, dtype: str, library_path: Path) -> None:
    """Raise VerifyError where logits are further apart than `most`, which is expected of a number type."""
    if found.distance <= most:
        return
    raise VerifyError(
        f"differs from transformers with the same weights by {found.distance:.2e} (relative L2)",
        where=str(library_path),
        why=f"at most {most:.0e} is expected of {dtype}; the likeliest token is the same at {found.same} of "
        f"{found.positions} positions",
    )


def _stored_sources(
    parameters: Sequence[Parameter],
    rows: Mapping[str, int],
    stored: Mapping[str, np.ndarray],
    scheme: Scheme,
    head: str,
) -> tuple[dict[str, np.ndarray], bool]:
    """The checkpoint's tensors as the built weights have them, and whether a head that the checkpoint has not differs from its
    embedding."""
    import numpy as np

    from llmbuild.quantization.convert import is_transposed, packed_names
    from llmbuild.quantization.unpack import unpack

    found: dict[str, np.ndarray] = {}
    untied = False
    for parameter in parameters:
        if parameter.name in stored:
            value = _plain(stored[parameter.name])
        else:
            weight, scale = (stored[name] for name in packed_names(parameter.name))
            n, k = parameter.shape
            own = scheme.of(*parameter.modules)
            value = unpack(own, weight, scale, (n, k), transposed=is_transposed(own, parameter.role))
        parts = parameter.take_apart(value, [rows[source] for source in parameter.sources])
        for source, part in zip(parameter.sources, parts, strict=True):
            if source in found and not np.array_equal(found[source], part):
                untied, found[head] = True, part if parameter.role == "head" else found[source]
                if parameter.role == "head":
                    continue
            found[source] = part
    return found, untied


def _plain(value: np.ndarray) -> np.ndarray:
    import numpy as np

    return np.ascontiguousarray(value, dtype=np.float32)
