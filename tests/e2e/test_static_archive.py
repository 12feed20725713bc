"""One archive of two models in an application: each is found by MLC's rule and answers as its shared library does."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmbuild.linkers.join import join_archives
from tests.helpers import aarch64
from tests.helpers.applications import greedy, here, link_application, parameters, runtimes
from tests.helpers.two_models import MODELS, make_two_models

TABLES = """\
[platforms.phone]
target = "aarch64-linux-cpu"
artifact = "tar"
system-lib-prefix = "{model}_{quantization}_"

[[build]]
models = ["llama", "qwen2"]
quantizations = ["q4f32_1"]
platforms = ["phone", "x86_64-linux-cpu"]
"""

MISSING = aarch64.missing() or next(
    (f"needs {name} (Debian: apt install clang lld)" for name in ("clang++", "ld.lld") if shutil.which(name) is None),
    None,
)


@pytest.mark.slow
@pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
def test_two_models_answer_in_an_application_for_aarch64(tmp_path: Path) -> None:
    project = make_two_models(tmp_path, TABLES)
    project.build()
    libs = project.root / "dist/libs"
    archive = tmp_path / "libmodel.a"
    join_archives({model: libs / f"{model}-q4f32_1-phone.tar" for model in MODELS}, archive)

    phone = aarch64.machine()
    link_application(phone.compiler, phone.site, tmp_path / "application", [archive])
    link_application(("clang++",), here(), tmp_path / "host")

    prompt = [5, 7, 11, 13, 17, 19, 23]
    answers = {}
    for model in MODELS:
        weights, names = project.root / f"dist/{model}-q4f32_1-MLC", parameters(project.store, model)
        # MLC's runtime makes the prefix of `model_lib` so (cpp/serve/function_table.cc).
        prefix = f"{model}_q4f32_1".replace("-", "_") + "_"
        command = [*phone.emulator, tmp_path / "application"]
        answers[model] = greedy(command, runtimes(phone.site), f"system:{prefix}", weights, names, prompt, 16)
        library = libs / f"{model}-q4f32_1-x86_64-linux-cpu.so"
        host = greedy([tmp_path / "host"], runtimes(here()), library, weights, names, prompt, 16)
        assert answers[model] == host
    assert answers["llama"] != answers["qwen2"]
