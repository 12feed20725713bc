"""Packages of npm that tests run: where they are looked for, and the command that installs them."""

from __future__ import annotations

import os
from pathlib import Path

REPOSITORY = Path(__file__).parent.parent.parent
VERSIONS = {"@mlc-ai/web-llm": "0.2.86", "webgpu": "0.6.2"}


def node_modules(package: str) -> Path | None:
    """The node_modules directory that has a package: $LLMBUILD_TEST_NODE_MODULES, or in the repository or its build/."""
    named = os.environ.get("LLMBUILD_TEST_NODE_MODULES")
    places = [Path(named)] if named else [REPOSITORY / "node_modules", REPOSITORY / "build" / "node_modules"]
    return next((place for place in places if (place / package / "package.json").is_file()), None)


def install(package: str) -> str:
    """The command that makes the package known to the tests."""
    return f"npm install --no-save --prefix build {package}@{VERSIONS[package]}"
