"""The packages of an extra, which are installed only where they were asked for (pyproject.toml)."""

from __future__ import annotations

from collections.abc import Iterable

from llmbuild.errors import ToolchainError


def require_extra(extra: str, packages: Iterable[str], *, why: str) -> None:
    """Raise ToolchainError, which says `why` they are needed, where a package of an extra is not installed.  None is imported."""
    import importlib.util

    for name in packages:
        if importlib.util.find_spec(name) is None:
            raise ToolchainError(
                f"the Python package {name} is not installed",
                why=why,
                fix=f"install it: `pip install 'llmbuild[{extra}]'`",
            )
