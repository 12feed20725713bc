"""Each directory of examples/: it plans with an empty cache and no network, as its comment says, and it builds."""

from __future__ import annotations

import json
import re
import shutil
import socket
import tomllib
from collections import Counter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
from safetensors.numpy import save_file

from llmbuild.cli.main import main
from tests.helpers.cli import ProjectDir

ROOT = Path(__file__).parent.parent / "examples"
EXAMPLES = sorted(path.parent.name for path in ROOT.glob("*/buildfile.toml"))


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store without results, which all plans share: what is known of this machine's tools is found out once."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture
def project(request: pytest.FixtureRequest, tmp_path: Path) -> ProjectDir:
    """A copy of the example that the test names, with what its manifest says that a user brings."""
    root = tmp_path / "project"
    shutil.copytree(ROOT / request.param, root)
    if request.param == "fine-tune":
        make_adapter(root / "my-adapter")
    return ProjectDir(root, tmp_path / "store")


def make_adapter(directory: Path) -> None:
    """A LoRA adapter of SmolLM2-135M's first layer, in the form of peft's files."""
    directory.mkdir()
    config = {"peft_type": "LORA", "r": 2, "lora_alpha": 4, "target_modules": ["q_proj"], "bias": "none"}
    (directory / "adapter_config.json").write_text(json.dumps(config))
    random = np.random.default_rng(1)
    layers = {f"base_model.model.model.layers.0.self_attn.q_proj.lora_{side}.weight": shape
              for side, shape in (("A", (2, 576)), ("B", (576, 2)))}  # fmt: skip
    weights = {name: random.normal(scale=0.02, size=shape).astype("float32") for name, shape in layers.items()}
    save_file(weights, directory / "adapter_model.safetensors")


def stated(project: ProjectDir) -> dict[str, int]:
    """The tasks by kind that the manifest's comment promises."""
    (line,) = re.findall(r"^# Tasks: (.+)$", (project.root / "buildfile.toml").read_text(), re.MULTILINE)
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (\w+)", line)}


def test_the_list_has_every_example() -> None:
    listed = re.findall(r"^\| \[([\w-]+)\]\(\1/buildfile\.toml\) \|", (ROOT / "README.md").read_text(), re.MULTILINE)
    assert sorted(listed) == EXAMPLES
    assert {path.name for path in ROOT.iterdir()} == {"README.md", *EXAMPLES}


@pytest.mark.parametrize("project", EXAMPLES, indirect=True)
def test_it_plans_without_a_cache_and_a_network(
    project: ProjectDir, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_network(*_: Any) -> NoReturn:
        raise AssertionError("a plan of an example needs no network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    # What runs pip or another program would find no network either.
    for name in ("PIP_INDEX_URL", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9/")
    monkeypatch.setenv("LLMBUILD_CACHE", str(store))
    monkeypatch.chdir(project.root)
    assert main(["plan", "--json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    kinds = Counter(task["task"].partition("[")[0] for task in plan["tasks"])
    assert kinds == stated(project)
    manifest = tomllib.loads((project.root / "buildfile.toml").read_text())
    # A page has WebLLM, for which a registry is asked until it is pinned.
    for name in (name for name, table in manifest.get("package", {}).items() if not table.get("page")):
        assert main(["plan", f"package[{name}]", "--json"]) == 0
        assert f"package[{name}]" in [task["task"] for task in json.loads(capsys.readouterr().out)["tasks"]]
    for name in (*manifest.get("models", {}), *manifest.get("quantizations", {}), *manifest.get("platforms", {})):
        assert any(re.search(rf"[\[ ]{re.escape(name)}[,\]]", task["task"]) for task in plan["tasks"]), name


@pytest.mark.full
@pytest.mark.parametrize("project", EXAMPLES, indirect=True)
def test_it_builds(project: ProjectDir) -> None:
    wanted = stated(project)
    if project.root.joinpath("my-adapter").exists():
        # The checkpoint, the configuration and the library of base and fine-tune are one.
        wanted |= {"fetch": 2, "config": 1, "lower": 1, "link": 1}
    # Twenty platforms and TVM's runtime for browsers take their time.
    assert project.build(timeout=3600) == wanted
    assert project.build() == {}
    manifest = tomllib.loads((project.root / "buildfile.toml").read_text())
    for name in manifest.get("package", {}):
        made = project.run("package", name)
        assert made.code == 0, made.text
        assert any((project.root / "dist" / name).iterdir())
    libraries = {path.name for path in (project.root / "dist/libs").iterdir() if path.suffix != ".json"}
    assert len(libraries) == stated(project)["link"]
