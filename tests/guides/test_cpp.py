"""docs/guides/cpp.md: its manifest builds, its program compiles by its commands, and says what llmbuild's own runtime says."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from llmbuild.runtime.library import load_library
from llmbuild.runtime.session import Session
from llmbuild.runtime.weights import load_parameters
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import make_project
from tests.helpers.guides import blocks

PROMPT = [5, 7, 11, 13]


@pytest.mark.skipif(shutil.which("c++") is None, reason="needs a C++ compiler (Debian: apt install g++)")
def test_the_program_answers(tmp_path: Path) -> None:
    (manifest,), (program,), (commands,) = (blocks("cpp", language) for language in ("toml", "cpp", "sh"))
    # A tiny model in the place of the real one, whose tokens the guide has.
    source = tomllib.loads(manifest)["models"]["smollm2"]["source"]
    project = make_project(tmp_path, manifest.replace(source, "checkpoint"), cached_checkpoint("llama"))
    project.build()
    (project.root / "generate.cc").write_text(program)
    *compile_it, run_it = commands.replace("\\\n", " ").splitlines()
    words = run_it.split()
    assert words[:3] == [
        "./generate",
        "dist/libs/smollm2-q4f32_1-x86_64-linux-cpu.so",
        "dist/smollm2-q4f32_1-MLC",
    ]
    script = "\n".join(["set -eu", *compile_it, " ".join([*words[:4], *map(str, PROMPT)])])
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", "-c", script], cwd=project.root, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr

    library = load_library(project.root / words[1])
    session = Session(library, load_parameters(library, project.root / words[2]), capacity=512)
    session.add()
    expected = [int(session.prefill(PROMPT).argmax())]
    while len(expected) < int(words[3]):
        expected.append(int(session.decode(expected[-1]).argmax()))
    assert [int(word) for word in done.stdout.split()] == expected
