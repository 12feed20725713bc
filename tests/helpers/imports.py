"""llmbuild's modules as files."""

from __future__ import annotations

from pathlib import Path

import llmbuild

PACKAGE = Path(llmbuild.__file__).parent


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(["llmbuild", *(parts[:-1] if parts[-1] == "__init__" else parts)])
