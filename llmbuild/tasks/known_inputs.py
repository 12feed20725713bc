"""What quantize is given of the inputs of a model's weights: second moments, or an importance matrix of llama.cpp."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from llmbuild.engine.kind import Job
from llmbuild.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.models.family import ModelConfig
    from llmbuild.quantization.ports import KnownInputs

INPUT = "importance"
"""The input of quantize: a directory with one file."""


@contextmanager
def known_inputs(job: Job, architecture: DecoderFamily, config: ModelConfig) -> Iterator[KnownInputs | None]:
    """What the input says; None where there is none.  Raises InputError where it is not of this model."""
    if INPUT not in job.inputs:
        yield None
        return
    from llmbuild.quantization.moments import MomentsFile

    files = [path for path in sorted(job.inputs[INPUT].rglob("*")) if path.is_file()]
    if len(files) != 1:
        raise InputError("importance is one file", where=str(job.inputs[INPUT]), why=f"there are {len(files)}")
    (path,) = files
    if path.suffix == ".safetensors":
        moments = MomentsFile(path, job.checks)
        try:
            yield moments
        finally:
            moments.close()
        return
    from llmbuild.checkpoints.imatrix import read_imatrix
    from llmbuild.models.gguf.names import weights_by_name
    from llmbuild.quantization.importance import MeanSquares, of_another_model

    squares = read_imatrix(path, job.checks)
    if architecture.gguf is None:
        raise InputError(
            "importance matrices of llama.cpp are not read for this architecture",
            where=str(path),
            why=f"llama.cpp's names of {architecture.model_type}'s weights are not known",
            fix="remove importance: the inputs are then measured by the build",
        )
    names = weights_by_name(squares.keys(), architecture.decoder(config), architecture.gguf)
    if not names:
        raise of_another_model(
            str(path), f"of its {len(squares)} weights, '{next(iter(squares))}' among them, none is the model's"
        )
    import numpy as np

    means = {name: np.mean(np.stack([squares[one] for one in ones]), axis=0) for name, ones in names.items()}
    yield MeanSquares(means, str(path))
