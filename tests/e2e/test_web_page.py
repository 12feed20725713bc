"""The packaged page, as a visitor has it: a server of files, headless Chromium, and nothing edited by hand."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild.engine.outcome import Status
from tests.helpers import browser
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project, tasks_run
from tests.helpers.devtools import Page, open_browser
from tests.helpers.guides import GUIDES, blocks
from tests.helpers.node import REPOSITORY, VERSIONS
from tests.helpers.npm_registry import packed, running_registry
from tests.helpers.web_library import ANSWER, CPU, QUESTION, tiny_manifest
from tests.helpers.web_runtime import seed

START = "document.getElementById('start')"
READY = "!document.getElementById('question').disabled"
DONE = f"{READY} && document.querySelector('#talk li.assistant:last-child .note')"
ERROR = "!document.getElementById('error').hidden && document.getElementById('error').textContent"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(browser.missing() is not None, reason=str(browser.missing())),
]


@pytest.fixture(scope="module")
def npm() -> Iterator[Mapping[str, str]]:
    """An environment in which npm's registry is one on loopback that has WebLLM as it is published."""
    place = browser.web_llm()
    assert place is not None
    with running_registry(packed(place), package=browser.WEB_LLM, version=VERSIONS[browser.WEB_LLM]) as registry:
        yield {"NPM_CONFIG_REGISTRY": registry.url}


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a folder, which Python's own server of files serves."""
    command = [sys.executable, "-u", "-m", "http.server", "--bind", "127.0.0.1", "--directory", str(folder), "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as server:
        try:
            assert server.stdout is not None
            found = re.search(r"port (\d+)", server.stdout.readline())
            assert found is not None
            yield f"http://127.0.0.1:{found[1]}/"
        finally:
            server.terminate()


def load(page: Page, address: str) -> None:
    """Open the page and press the button that downloads the model."""
    page.open(address)
    page.when(f"{START}.offsetParent && !{START}.disabled")
    page.run(f"{START}.click()")
    assert page.when(f"({READY}) || ({ERROR})") is True


def ask(page: Page, question: str) -> str:
    """Type a question, press Enter, and return the answer when it is whole."""
    page.run("document.getElementById('question').focus()")
    page.call("Input.insertText", text=question)
    for kind in ("keyDown", "keyUp"):
        page.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r")
    page.when(f"({DONE}) || ({ERROR})")
    assert page.run(ERROR) is False
    text: str = page.run("document.querySelector('#talk li.assistant:last-child .text').textContent")
    return text


def spoilt(folder: Path, copy: Path, **integrity: Any) -> Path:
    """A copy of a package whose app config says other hashes."""
    shutil.copytree(folder, copy)
    file = copy / "webllm-app-config.json"
    config = json.loads(file.read_text())
    config["model_list"][0]["integrity"].update(integrity)
    file.write_text(json.dumps(config))
    return copy


def test_a_visitor_of_the_page(tmp_path: Path, tiny_web: ProjectDir, npm: Mapping[str, str]) -> None:
    manifest = tiny_manifest("q4f32_1").replace(f'"{CPU}", ', "") + "\n[package.web]\npage = true\n"
    cool = manifest.replace("[[build]]", "[models.tiny.generation]\ntemperature = 0.5\n\n[[build]]")
    made = make_project(tmp_path, manifest, cached_checkpoint("llama"))
    project = ProjectDir(made.root, tiny_web.store)
    # Everything else is here from other builds of the model.
    assert package(project, npm) == {"fetch": 1, "package": 1}
    folder = project.root / "dist" / "web"
    assert "integrity = " in (project.root / "llmbuild.lock").read_text()
    with served(folder) as address, open_browser(timeout=240) as page:
        load(page, address)
        ask(page, "hi")
        # Nothing was asked of anybody else.
        assert {request for request in page.requests if not request.startswith((address, "data:"))} == set()
        # The model is kept, so that the next visit needs no button.
        page.open(address)
        page.when(READY)
        before = project.snapshot("dist/web")
        project.write(cool)
        assert package(project, npm) == {"config": 1, "package": 1}
        after = project.snapshot("dist/web")
        changed = {name for name in after if after[name] != before.get(name)}
        assert changed == {"webllm-app-config.json", "models/tiny-q4f32_1-MLC/resolve/main/mlc-chat-config.json"}
        # What the browser has kept is of the package before, and only what differs is asked for.
        page.open(address)
        assert page.when(f"({READY}) || ({ERROR})") is True
        assert not [request for request in page.requests if "params_shard" in request]
    wrong = {"model_lib": "sha256-" + "A" * 43 + "="}
    with served(spoilt(folder, tmp_path / "spoilt", **wrong)) as address, open_browser(timeout=120) as page:
        page.open(address)
        page.when(f"{START}.offsetParent && !{START}.disabled")
        page.run(f"{START}.click()")
        said = page.when(f"({READY}) || ({ERROR})")
        assert "is not the one that this page was made with" in said
        assert "IntegrityError: Integrity verification failed" in said


def test_other_stores_and_directories_make_the_same_package(
    tmp_path: Path, tiny_web: ProjectDir, npm: Mapping[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two models and the page, each time fetched and packaged in a store of its own."""
    monkeypatch.setenv("NPM_CONFIG_REGISTRY", npm["NPM_CONFIG_REGISTRY"])
    matrix = tiny_manifest("q4f32_1").replace(f'"{CPU}", ', "").replace('["tiny"]', '["tiny", "second"]')
    table = matrix.split("[models.tiny]")[1].split("[[build]]")[0]
    manifest = f"{matrix}\n[models.second]{table}[package.web]\npage = true\n"
    packages = []
    for place in (tmp_path / "one", tmp_path / "deeper" / "with another name"):
        # Each makes the package itself, although its store may have the page from the test of the visitor.
        project = make_project(place, manifest, cached_checkpoint("llama"))
        shutil.copytree(tiny_web.store, project.store, dirs_exist_ok=True)
        with llmbuild.open(project.root, cache=project.store) as workspace:
            outcome = workspace.build("package", force=True)
        made = {label for label, one in outcome.result.outcomes.items() if one.status is Status.RAN}
        assert {label.partition("[")[0] for label in made} <= {"package", "fetch"} and "package[web]" in made
        packages.append(project.snapshot("dist/web"))
    assert packages[0] == packages[1]
    config = json.loads(packages[0]["webllm-app-config.json"])
    assert [record["model_id"] for record in config["model_list"]] == ["tiny-q4f32_1-MLC", "second-q4f32_1-MLC"]
    assert {"index.html", "web-llm/index.js"} <= packages[0].keys()


def test_a_browser_without_a_graphics_processor(tmp_path: Path) -> None:
    """Chromium has WebGPU in software only where it is told so."""
    folder = tmp_path / "page"
    shutil.copytree(REPOSITORY / "llmbuild" / "packages" / "page", folder)
    record = {"model": "models/x/", "model_id": "x", "model_lib": "libs/x.wasm"}
    (folder / "webllm-app-config.json").write_text(json.dumps({"model_list": [record]}))
    flags = ["--disable-gpu"]
    with served(folder) as address, open_browser(timeout=60, flags=flags, without=["--enable-unsafe-webgpu"]) as page:
        page.open(address)
        said = page.when(ERROR)
        assert "WebGPU" in said
        assert page.run(f"{START}.offsetParent") is None


@pytest.mark.full
def test_the_guide(tmp_path: Path) -> None:
    """docs/guides/web.md, followed: its manifest, its commands, and the page with the real model."""
    (manifest,) = blocks("web", "toml")
    guide = (GUIDES / "web.md").read_text(encoding="utf-8")
    assert "    llmbuild package web\n    python -m http.server --directory dist/web 8000\n" in guide
    project = make_project(tmp_path, manifest)
    seed(project.store)
    result = project.run("package", "web", timeout=1500)
    assert result.code == 0, result.text
    with served(project.root / "dist" / "web") as address, open_browser(timeout=900) as page:
        load(page, address)
        assert ask(page, QUESTION) == ANSWER
        page.screenshot(tmp_path / "page.png")


def package(project: ProjectDir, env: Mapping[str, str]) -> Mapping[str, int]:
    """`llmbuild package`; how many tasks of each kind ran."""
    events = project.root / "events.ndjson"
    events.unlink(missing_ok=True)
    result = project.run("package", "--events", str(events), env=env, timeout=600)
    assert result.code == 0, result.text
    return tasks_run(events)
