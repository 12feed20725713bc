"""TVM's runtime for browsers, compiled once a machine: it takes minutes, and several tests link it."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from tests.helpers.checkpoints import cache_root
from tests.helpers.cli import ProjectDir

MANIFEST = """\
[project]
name = "web-runtime"

[models.any]
preset = "llama2_7b"
conv-template = "llama-2"

[[build]]
models = ["any"]
quantizations = ["q4f32_1"]
platforms = ["wasm32-webgpu"]
"""


def seed(store: Path) -> None:
    """Put the runtime into a store that has no results yet, where Emscripten is installed; the first call compiles it."""
    if shutil.which("emcc") is None:
        return
    shared = cache_root() / "store-of-web-runtime"
    with tempfile.TemporaryDirectory() as root:
        project = ProjectDir(Path(root), shared)
        project.write(MANIFEST)
        result = project.run("build", "runtime", timeout=900)
        assert result.code == 0, result.text
    # Another process may be writing to the index, which is made again from the traces.
    shutil.copytree(shared, store, ignore=shutil.ignore_patterns("index", "locks", "scratch"), dirs_exist_ok=True)
