"""Dawn, the WebGPU implementation of Chromium, in Node.js with WebLLM as npm has it: what executes shaders in 16-bit floats.

Chromium's own software adapter has no 16-bit floats.  Mesa's has them; Dawn takes version 25.0 and refuses 22.3.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from tests.helpers.browser import WEB_LLM
from tests.helpers.loopback import FileHandler, serving
from tests.helpers.node import REPOSITORY, install, node_modules
from tests.helpers.web_library import WASM

DRIVER = Path(__file__).parent.parent / "drivers" / "web_llm.mjs"
FEATURE = "shader-f16"
ICD = REPOSITORY / "build" / "mesa" / "lvp_icd.json"
"""The Vulkan driver that .ci/mesa brings."""


@dataclass(frozen=True)
class Answer:
    """WebLLM's reply, the adapter that computed it, how many shaders were compiled for it, and its buffers: bytes that were
    alive at once at most (`peak`) and at the end (`live`), and those of the largest for a shader (`largest`)."""

    reply: Any
    adapter: str
    shaders: int
    buffers: Mapping[str, int]


@functools.cache
def missing() -> str | None:
    """Why no float16 library can be run here, for skipping a test; None when it can."""
    if shutil.which("emcc") is None:
        return "needs Emscripten (Debian: apt install emscripten)"
    if shutil.which("node") is None:
        return "needs Node.js"
    for package in (WEB_LLM, "webgpu"):
        if node_modules(package) is None:
            return f"needs npm's {package} ({install(package)})"
    adapter = _run(timeout=60)
    if adapter is None or FEATURE not in adapter["features"]:
        found = "none" if adapter is None else adapter["adapter"]
        return f"needs an adapter of Vulkan with {FEATURE} (.ci/mesa brings one to Debian 12); found: {found}"
    return None


def ask(dist: Path, model: str, *, timeout: float, **request: Any) -> Answer:
    """The reply of WebLLM to a chat request, by a model's library for browsers in `dist`."""
    library = f"{model}-{WASM}.wasm"
    requires = json.loads((dist / "libs" / f"{library}.json").read_text()).get("requires", [])
    with serving(partial(FileHandler, {"dist": dist})) as address:
        record = {
            "model_id": "it",
            "model": f"{address}/dist/{model}-MLC/",
            "model_lib": f"{address}/dist/libs/{library}",
            "required_features": requires,
        }
        found = _run(json.dumps(record), json.dumps(request), timeout=timeout)
    assert not found["wrong"], "\n".join(found["wrong"])
    assert "error" not in found, found["error"]
    return Answer(found["reply"], found["adapter"], found["shaders"], found["buffers"])


def check_memory(answer: Answer, record: Mapping[str, Any]) -> None:
    """That the buffers alive at once are what `llmbuild.packages.memory` says of a library with this record."""
    import pytest

    from llmbuild.packages.memory import memory_of, sizes_of

    use = memory_of(record, "webgpu", sizes_of(record))
    print(f"computed {use}, measured {answer.buffers}")  # For the tables of docs/memory.md: pytest -s.
    assert not use.about
    assert answer.buffers["peak"] == pytest.approx(use.total, rel=0.05), use
    assert answer.buffers["largest"] == use.largest


def _run(*arguments: str, timeout: float) -> Any:
    """What the driver prints on its last line."""
    modules = node_modules("webgpu")
    done = subprocess.run(
        ["node", str(DRIVER), str(modules), *arguments],
        env={**os.environ, **_driver()},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    lines = done.stdout.splitlines() or [""]
    # The loader's notes have lines of any length.
    assert lines[-1][:1] in ("{", "n"), "\n".join(line[:300] for line in done.stderr.splitlines()[-30:])
    return json.loads(lines[-1])


def _driver() -> Mapping[str, str]:
    """The environment of Vulkan: which driver, where one is named; else Vulkan looks for what the machine has."""
    named = os.environ.get("LLMBUILD_TEST_VULKAN_ICD") or (str(ICD) if ICD.is_file() else None)
    # Mesa compiles for vectors of this many bits, twice as fast as for those that the CPU has; running is nothing beside it.
    narrow = {"LP_NATIVE_VECTOR_WIDTH": "128"}
    return narrow if named is None else {**narrow, "VK_ICD_FILENAMES": named}
