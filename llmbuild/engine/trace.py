"""Traces: the records of actions that ran.

`traces/ab/cdef….json` holds one trace as JSON, followed by a line with the SHA-256 of that JSON.  A file that is truncated or
changed anywhere is not a trace, counts as a miss and is replaced when the action runs again.  Trace files are the truth;
everything else that is known about past runs is derived from them.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from llmbuild.canonical import Digest, Json, canonical_json, digest_bytes, digest_json, known_digest, parse_digest
from llmbuild.engine import files, fs, records

TRACE_FORMAT = 1
MOST_NOTES, MOST_NOTE = 50, 4000
"""How many notes a trace has at most, and the characters of one."""

_USE_GRAIN_S = 60.0
_BEFORE_KEY, _AFTER_KEY = b',"key":', b',"kind":'


@dataclass(frozen=True, slots=True)
class Trace:
    """What an action was and what came out.

    `key` is the action's key (kind, version, params, inputs, tools) as it was; `output` the digest of the output tree;
    `log` the digest of what the task printed, or None when it was not kept.  Times are in seconds, `peak_rss` in bytes,
    `finished` in seconds since the epoch.  `project` and `label` are those of the build that ran it.  `input_size` counts
    the bytes of the inputs.  `notes` are sentences for the user about the result.  `reused` is how many intermediate results were
    taken from earlier runs, and of how many.
    """

    action: Digest
    kind: str
    label: str
    project: str
    key: Mapping[str, Json]
    output: Digest
    output_size: int
    wall_s: float
    cpu_s: float
    peak_rss: int
    log: Digest | None
    finished: float
    input_size: int = 0
    notes: tuple[str, ...] = ()
    reused: tuple[int, int] | None = None

    def to_bytes(self) -> bytes:
        values = {name: getattr(self, name) for name in self.__slots__ if name not in ("notes", "reused")}
        if self.notes:
            values["notes"] = list(self.notes)
        if self.reused is not None:
            values["reused"] = list(self.reused)
        body = canonical_json({"format": TRACE_FORMAT, **values})
        return body + b"\n" + digest_bytes(body).encode() + b"\n"

    @staticmethod
    def from_bytes(data: bytes) -> Trace:
        """Parse a trace file; raises ValueError when it is not complete and unchanged."""
        body, _, check = data.partition(b"\n")
        if check != digest_bytes(body).encode() + b"\n":
            raise ValueError("the trace is incomplete or was changed")
        fields = records.json_object(body)
        if fields.pop("format", None) != TRACE_FORMAT:
            raise ValueError("the trace has another format")
        fields.setdefault("input_size", 0)
        fields.setdefault("notes", ())
        fields.setdefault("reused", None)
        if fields.keys() != _FIELDS:
            raise ValueError("the trace has other fields")
        trace = Trace(
            action=parse_digest(fields["action"]),
            kind=records.text(fields["kind"], "the kind"),
            label=records.text(fields["label"], "the label"),
            project=records.text(fields["project"], "the project"),
            key=records.action_key(fields["key"]),
            output=parse_digest(fields["output"]),
            output_size=records.count(fields["output_size"], "the size of the output"),
            wall_s=records.seconds(fields["wall_s"], "the wall time"),
            cpu_s=records.seconds(fields["cpu_s"], "the processor time"),
            peak_rss=records.count(fields["peak_rss"], "the peak of memory"),
            log=records.optional_digest(fields["log"]),
            finished=records.seconds(fields["finished"], "the time of its end"),
            input_size=records.count(fields["input_size"], "the size of the inputs"),
            notes=records.texts(fields["notes"], "the notes", MOST_NOTES) if fields["notes"] else (),
            reused=None if fields["reused"] is None else _reused(fields["reused"]),
        )
        if trace.key["kind"] != trace.kind or (
            trace.action != _written_key(body) and trace.action != digest_json(trace.key)
        ):
            raise ValueError("the trace's key is that of another action")
        return trace


def _written_key(body: bytes) -> Digest:
    """The digest of the key as it is written."""
    # The body is canonical, so the bytes of the key are a part of it, and to hash them is quicker than to make them anew.
    start, end = body.find(_BEFORE_KEY) + len(_BEFORE_KEY), body.rfind(_AFTER_KEY)
    return digest_bytes(body[start:end])


def _reused(value: object) -> tuple[int, int]:
    if not isinstance(value, list) or len(value) != 2:
        raise ValueError("the intermediate results are not two counts")
    taken, of = (records.count(one, "the intermediate results") for one in value)
    if taken > of:
        raise ValueError("more intermediate results were taken than there were")
    return taken, of


_FIELDS = frozenset(Trace.__slots__)


class TraceStore:
    """The trace files of one store."""

    def __init__(self, root: Path, scratch: Callable[[], Path]) -> None:
        self.root = root
        self._prefix = f"{root}/"
        self._scratch = scratch

    def path(self, action: Digest) -> Path:
        return Path(f"{self._prefix}{action[:2]}/{action[2:]}.json")

    def get(self, action: Digest) -> Trace | None:
        """The action's trace, or None when it never ran here or its record is damaged."""
        try:
            trace = Trace.from_bytes(files.read_bytes(f"{self._prefix}{action[:2]}/{action[2:]}.json"))
        except (OSError, ValueError):
            return None
        return trace if trace.action == action else None

    def put(self, trace: Trace) -> None:
        """Write a trace durably.  From here on its output counts as built.  Raises StoreError."""
        path = f"{self._prefix}{trace.action[:2]}/{trace.action[2:]}.json"
        files.write_atomic(path, trace.to_bytes(), durable=True, scratch=self._scratch())

    def mark_used(self, action: Digest) -> bool:
        """Set the last use of a trace, its file's mtime, to now, if the one it has is older than a minute.

        Returns False when there is no trace.
        """
        path = f"{self._prefix}{action[:2]}/{action[2:]}.json"
        try:
            if time.time() - os.stat(path).st_mtime > _USE_GRAIN_S:  # noqa: PTH116 - once a task of a null build.
                fs.current.touch(path)
        except FileNotFoundError:
            return False
        except OSError:
            # Another user's trace is not marked; what matters is only how long it stays.
            return True
        return True

    def remove(self, action: Digest) -> None:
        with fs.translate_errors("remove a trace", self.path(action)):
            files.remove_tree(self.path(action), self.root.parent)

    def names(self) -> list[Digest]:
        """The digests of the actions that have a trace file, readable or not, sorted."""
        found: list[Digest] = []
        with contextlib.suppress(FileNotFoundError), os.scandir(self.root) as folders:
            for folder in folders:
                if len(folder.name) == 2 and folder.is_dir(follow_symlinks=False):
                    names = os.listdir(folder.path)  # noqa: PTH208 - a build reads the names of thousands of traces.
                    digests = (known_digest(folder.name + name[:-5]) for name in names if name.endswith(".json"))
                    found += [digest for digest in digests if digest is not None]
        return sorted(found)

    def all(self) -> Iterator[Trace]:
        """Every readable trace, in the order of the action digests."""
        for name in self.names():
            trace = self.get(name)
            if trace is not None:
                yield trace
