"""The WGSL sources inside a library's objects, and their validation by Dawn, the WebGPU implementation of Chromium."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.node import install, node_modules

VALIDATOR = Path(__file__).parent.parent / "drivers" / "validate_wgsl.mjs"
PACKAGE = "webgpu"
MOST_STORAGE = 10
"""The most tensors of a kernel: WebLLM asks the adapter for no more."""


def missing() -> str | None:
    """Why nothing can be validated here, for skipping a test; None when it can."""
    if shutil.which("node") is None:
        return "needs Node.js"
    if node_modules(PACKAGE) is None:
        return f"needs Dawn ({install(PACKAGE)})"
    return None


def shaders(objects: Path) -> dict[str, str]:
    """Name -> WGSL of every kernel in a library's `devc.o`: TVM stores each text with its length of 8 bytes before it."""
    data = (objects / "devc.o").read_bytes()
    found = {}
    for match in re.finditer(rb"//-+\n// Function: (\w+)\n", data):
        size = int.from_bytes(data[match.start() - 8 : match.start()], "little")
        found[match[1].decode()] = data[match.start() : match.start() + size].decode()
    return found


def validate(sources: Mapping[str, str], where: Path) -> dict[str, list[str]]:
    """What Dawn finds wrong, by kernel."""
    where.mkdir()
    for name, text in sources.items():
        (where / f"{name}.wgsl").write_text(text)
    modules = node_modules(PACKAGE)
    assert modules is not None
    done = subprocess.run(
        ["node", str(VALIDATOR), str(where), str(modules)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.stdout, done.stderr
    found: dict[str, list[str]] = json.loads(done.stdout.splitlines()[-1])
    return found
