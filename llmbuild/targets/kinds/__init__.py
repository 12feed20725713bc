"""The properties of each device kind without importing TVM: one module a kind, looked up by the kind's name.

Each module has `KIND`.  What code generation requires of a kind is in the module of the same name in
`llmbuild.compiler.devices`.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from llmbuild.targets.kinds.device_kind import DeviceKind


def kind_names() -> tuple[str, ...]:
    """The name of every device kind that a target may have, sorted."""
    files = (path.stem for path in Path(__file__).parent.glob("*.py"))
    return tuple(sorted(name for name in files if name not in ("__init__", "device_kind")))


def device_kind(name: str) -> DeviceKind:
    """The kind of that name, whose module alone is imported.  The name is one of `kind_names`."""
    kind: DeviceKind = importlib.import_module(f"llmbuild.targets.kinds.{name}").KIND
    return kind
