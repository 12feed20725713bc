"""A task kind: its declared dependencies, and the function that does the work.

Importing a kind is cheap; heavy modules are imported inside `run`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from llmbuild.canonical import Digest, Json

if TYPE_CHECKING:
    from llmbuild.checkpoints.pieces import Checks
    from llmbuild.engine.intermediates import Intermediates
    from llmbuild.engine.tree import Tree


class Progress(Protocol):
    """Called by a running task: units done, units in all (0 when unknown), and what the units are ("bytes", "files", …)."""

    def __call__(self, done: int, total: int, unit: str = "") -> None: ...


def no_progress(done: int, total: int, unit: str = "") -> None:
    """For callers that show no progress."""


def no_note(text: str) -> None:
    """For callers that show no notes."""


class Keep(Protocol):
    """Takes a large file of the user into the output under a name, without copying it where that is possible.

    `add` receives the number of further bytes read.  Returns the file's SHA-256; raises OSError when it cannot be read.
    """

    def __call__(self, path: Path, name: str, add: Callable[[int], None]) -> Digest: ...


class PassOn(Protocol):
    """Makes the file at `path` of the input `source` a part of the output under a name, without reading it.

    Raises KeyError where the input, which is a directory, has no such file; InputError for a name that is taken or leaves the
    output.
    """

    def __call__(self, source: str, path: str, name: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Job:
    """What a task may see while it runs, and nothing else.

    `inputs` maps each input's name to a directory with the selected files (read-only), or, for a JSON projection, to a file
    with just the projected value.  `out` is an empty directory: what is in it afterwards is the output.  What the task prints
    goes to its log.  `hints` locate bytes; they never change the result.  `resume` is a directory that outlives this process
    when the task is killed: the next run of the same action finds what is in it.  Only a resumable kind has one, and none when
    the run is there to be compared with an earlier one.  `checks` has the files below `inputs` that are the user's own and may
    change; `keep` puts such files out.  `trees` has the files of each directory of inputs, with digests and sizes, and `pass_on`
    puts such files out as they are.  `note` takes one sentence that the user should know of a result that is right: it is
    stored with the result, and a build shows it when the result is made or comes from elsewhere.  `dump` is a directory in which
    a person wants to see intermediate results, which are no output.  `intermediates` has results of earlier runs of a kind that
    has any, and takes those of this one; None when the run is there to be compared with an earlier one.
    """

    params: Mapping[str, Json]
    inputs: Mapping[str, Path]
    hints: Mapping[str, Json]
    out: Path
    scratch: Path
    progress: Progress
    resume: Path | None = None
    checks: Checks = field(default_factory=dict)
    keep: Keep | None = None
    note: Callable[[str], None] = no_note
    dump: Path | None = None
    trees: Mapping[str, Tree] = field(default_factory=dict)
    pass_on: PassOn | None = None
    intermediates: Intermediates | None = None


@dataclass(frozen=True, slots=True)
class TaskKind:
    """A declared kind.

    `params` are the names of its parameters (the projection that enters the key).  `sources` are llmbuild modules, as dotted
    names ("llmbuild.tasks.link"): their bytes are part of the key, and those of all that they import.  `tools` are the names of
    other tools in the key ("apache-tvm", "linker", "numpy").  `version` changes when the meaning of the parameters does.

    `whole_environment` tasks see all variables of the build and not only those of `programs.environment`: only for work whose
    result is checked by digest.

    The rest changes no result and is in no key.  `preload` are modules that are slow to import: when several tasks of the
    kind wait, one process imports them and forks a worker for each.  Importing them must start no thread.  `resumable`
    tasks get a `Job.resume`.  Those that read `in_place` verify what they read of a file in `Job.checks` against that; the
    others get copies.  Those with `dumps` write intermediate results into `Job.dump`; those with `intermediates` keep some in
    `Job.intermediates`.  `typical_seconds` and `typical_memory` (bytes) stand in for a prediction until a task of the kind has
    run.
    """

    name: str
    version: int
    params: tuple[str, ...]
    sources: tuple[str, ...]
    tools: tuple[str, ...]
    run: Callable[[Job], None]
    whole_environment: bool = False
    preload: tuple[str, ...] = ()
    resumable: bool = False
    in_place: bool = False
    dumps: bool = False
    intermediates: bool = False
    typical_seconds: float = 1.0
    typical_memory: int = 128 << 20
