"""Traces for tests."""

from __future__ import annotations

from llmbuild.canonical import digest_bytes, digest_json
from llmbuild.engine.trace import Trace


def make_trace(name: str = "a", *, label: str = "t", kind: str = "write", finished: float = 1.0) -> Trace:
    params = {"x": [1, 2.5, None, "é"], "name": name}
    key = {"kind": kind, "version": 1, "params": params, "inputs": {}, "tools": {}}
    return Trace(
        action=digest_json(key),
        kind=kind,
        label=label,
        project="p",
        key=key,
        output=digest_bytes(b"output"),
        output_size=12,
        wall_s=0.5,
        cpu_s=0.25,
        peak_rss=1 << 20,
        log=None,
        finished=finished,
        notes=("é, a note",),
    )
