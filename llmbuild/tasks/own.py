"""The architecture of a project's own that a task's model is of: its key has the digest of the file, its hints have the text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import digest_bytes
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError
from llmbuild.tasks.facts import known_type

if TYPE_CHECKING:
    from llmbuild.models.architecture import DecoderFamily

ARCHITECTURE = "architecture"
"""The name of the parameter ({"name", "sha256"}, or null for a family of llmbuild) and of the hint."""


def own_architecture(job: Job) -> DecoderFamily | None:
    """The family, whose file is run; None for one of llmbuild.  Raises InputError where the text is missing or is not that of
    the key, and for what is wrong in it."""
    return architecture_in(job.params, job.hints)


def known_architecture(job: Job) -> DecoderFamily | None:
    """The family as far as it is known without a look at the checkpoint.  Raises InputError."""
    from llmbuild.models.registry import family

    own = own_architecture(job)
    if own is not None:
        return own
    model_type = known_type(job) if "facts" in job.inputs else job.params["model-type"]
    return family(str(model_type)) if model_type else None


def architecture_in(params: Mapping[str, Any], hints: Mapping[str, Any]) -> DecoderFamily | None:
    """As `own_architecture`, of the parameters and the hints of a task."""
    given, text = params.get(ARCHITECTURE), hints.get(ARCHITECTURE)
    if given is None:
        return None
    from llmbuild.models.own import file_of, own_family

    if not isinstance(text, str) or digest_bytes(text.encode()) != given["sha256"]:
        raise InputError(
            "the content of the architecture is not there",
            where=file_of(given["name"]),
            why="the action's record has no such text"
            if not isinstance(text, str)
            else "it is another one than that of the key",
            fix="build the model in its project, where it is trusted",
        )
    return own_family(given["name"], text)
