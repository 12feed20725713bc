"""Verifying results against their provenance statements, and the statements against the cache."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from llmbuild.errors import LlmbuildError, MultiError, StoreError, UsageError, VerifyError

if TYPE_CHECKING:
    from llmbuild.canonical import Digest
    from llmbuild.engine.store import Store
    from llmbuild.engine.tree import Tree
    from llmbuild.report.provenance_check import CheckedStatement


class Claim(NamedTuple):
    """A statement, and the result to verify (None where the statement itself was named)."""

    statement: Path
    result: Path | None = None


def check_claims(
    store: Store, claims: Iterable[Claim], errors: list[LlmbuildError]
) -> Iterator[tuple[Claim, CheckedStatement]]:
    """Verify all claims and return those that are right; the errors of the others are added to `errors`."""
    from llmbuild.report.provenance_check import check

    for claim in claims:
        try:
            checked = check(claim.statement, lambda action: _recorded(store, action), claim.result)
        except MultiError as error:
            errors += error.errors
        except LlmbuildError as error:
            errors.append(error)
        else:
            yield claim, checked


def all_results(
    manifest: Path, model: str | None, quantization: str | None, platform: str | None, errors: list[LlmbuildError]
) -> list[Claim]:
    """The selected results of a manifest that are built; those without a statement are added to `errors`.

    Raises UsageError where the manifest is wrong, does not have what is selected, or nothing of it is built.
    """
    from llmbuild.manifest.load import load_project
    from llmbuild.manifest.locate import choose
    from llmbuild.report.provenance import statement_path

    project = load_project(manifest)
    cells = choose(project, model, quantization, platform, runnable_only=False)
    artifacts = dict.fromkeys(path for cell in cells for path in (cell.weights, cell.library) if path)
    found: list[Claim] = []
    directory = Path(project.file).parent
    for artifact in artifacts:
        statement = directory / statement_path(project.output, artifact)
        if statement.is_file():
            found.append(Claim(statement, directory / artifact))
        elif (Path(project.root) / artifact).exists():
            errors.append(
                VerifyError(
                    "there is no statement of where this came from",
                    where=str(directory / artifact),
                    fix="write provenance = true into [project] and build, or run `llmbuild build --provenance`",
                )
            )
    if not found and not errors:
        raise UsageError("nothing is built yet", where=project.file, fix="run `llmbuild build --provenance`")
    return found


def named_result(path: Path) -> Claim:
    """The named statement, or the named library or model directory with its statement.  Raises UsageError."""
    from llmbuild.report.provenance import DIRECTORY, SUFFIX

    if path.name.endswith(SUFFIX):
        return Claim(path)
    for above in list(path.absolute().parents)[:2]:
        statement = above / DIRECTORY / f"{path.name}{SUFFIX}"
        if statement.is_file():
            return Claim(statement, path)
    raise UsageError(
        "there is no statement of where this came from",
        where=str(path),
        fix="run `llmbuild build --provenance`, or name the .intoto.json file",
    )


def _recorded(store: Store, action: Digest) -> Tree | None:
    trace = store.traces.get(action)
    if trace is None:
        return None
    try:
        return store.cas.get_tree(trace.output)
    except StoreError:
        return None
