"""A project's own architectures, as far as the user has said that they may run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from llmbuild.canonical import Digest, Json, digest_bytes, digest_json
from llmbuild.errors import LlmbuildError
from llmbuild.manifest.project import Project
from llmbuild.plan.observed import Architecture
from llmbuild.workspace.tool_identities import Toolchain
from llmbuild.workspace.trust import Trust

if TYPE_CHECKING:
    from llmbuild.models.architecture import DecoderFamily

NO_DIGEST = Digest("0" * 64)
"""That of a file that cannot be read: the model's tasks are blocked."""


def own_architectures(project: Project, toolchain: Toolchain, trust: Trust) -> dict[str, Architecture]:
    """The architectures that are the project's own, by the names of their models.  What is not trusted, or wrong, has an error
    in the place of its text.  Raises UsageError where the record of what is trusted is wrong."""
    found: dict[str, Architecture] = {}
    for model in dict.fromkeys(cell.model for cell in project.matrix):
        name = project.models[model].architecture
        if name is not None:
            found[model] = _observed(Path(project.root), name, toolchain, trust)
    return found


def _observed(root: Path, name: str, toolchain: Toolchain, trust: Trust) -> Architecture:
    # A project without such files loads none of this.
    from llmbuild.manifest.architectures import read_architecture, text_of
    from llmbuild.models.own import made_of

    sha256 = NO_DIGEST
    try:
        data = read_architecture(root, name)
        sha256 = digest_bytes(data)
        trust.require_architecture(name, sha256)
        text = text_of(name, data)

        def ask() -> Json:
            return sorted(made_of(name, text))

        imported = toolchain.programs.remembered(["architecture", sha256, name, toolchain.llmbuild[1]], ask)
        families = toolchain.families
        if not (isinstance(imported, list) and all(isinstance(one, str) and one in families for one in imported)):
            imported = ask()
        assert isinstance(imported, list)
        files = {file: digest for one in imported for file, digest in families[str(one)].items()}
        return Architecture(name, sha256, text, digest_json(files))
    except LlmbuildError as error:
        return Architecture(name, sha256, error=error)


def trusted_families(root: Path, trust: Trust) -> Iterator[DecoderFamily]:
    """The project's own families, each of which is run.  Raises UntrustedError for one that is not trusted, and InputError for
    one that is wrong."""
    from llmbuild.manifest.architectures import own_files, read_architecture, text_of
    from llmbuild.models.own import own_family

    for name in own_files(root):
        data = read_architecture(root, name)
        trust.require_architecture(name, digest_bytes(data))
        yield own_family(name, text_of(name, data))
