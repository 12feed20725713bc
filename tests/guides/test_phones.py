"""docs/guides/ios.md and android.md, as far as a machine without their systems goes: the package, and a link as MLC's.

The manifests and the command stand in the guides; a tiny model is in the place of the real one.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

from llmbuild.linkers import tools
from llmbuild.manifest.load import load_project
from llmbuild.packages.phone import where_weights_are
from llmbuild.programs.run import run_tool
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.guides import GUIDES, blocks
from tests.helpers.two_models import make_two_models

ARCHIVES = {"ios": "lib/libmodel_iphone.a", "android": "lib/arm64-v8a/libmodel_android.a"}
LINKERS = {"ios": "ld64.lld", "android": "ld.lld"}
SOURCE = '"hf:HuggingFaceTB/SmolLM2-135M-Instruct"'


def packaged(guide: str, directory: Path) -> ProjectDir:
    """The project of a guide after its command."""
    manifest = blocks(guide, "toml")[0]
    assert SOURCE in manifest
    project = make_project(directory, manifest.replace(SOURCE, '"checkpoint"'), cached_checkpoint("llama"))
    (command,) = blocks(guide, "sh")[0].splitlines()
    program, *arguments = command.split()
    assert program == "llmbuild"
    result = project.run(*arguments)
    assert result.code == 0, result.text
    return project


def link_as_mlc_does(guide: str, archive: Path, where: Path) -> set[str]:
    """Link the whole archive into a library of the system; returns the symbols that it exports."""
    import lief

    tool = tools.lld(LINKERS[guide])
    if tool is None:
        pytest.skip("needs LLVM's linker (Debian: apt install lld)")
    where.mkdir()
    (where / archive.name).write_bytes(archive.read_bytes())
    if guide == "ios":
        system = ["-arch", "arm64", "-platform_version", "ios", "17.0", "17.0"]
        words = [*system, "-dylib", "-undefined", "dynamic_lookup", "-all_load", archive.name]
    else:
        words = ["-m", "aarch64linux", "-shared", "--whole-archive", archive.name, "--no-whole-archive"]
    run_tool(tool, [*words, "-o", "application"], where, makes="application")
    binary = lief.parse(str(where / "application"))
    assert isinstance(binary, lief.ELF.Binary | lief.MachO.Binary)
    return {str(symbol.name).removeprefix("_" if guide == "ios" else "") for symbol in binary.exported_symbols}


@pytest.mark.slow
@pytest.mark.parametrize("guide", ["ios", pytest.param("android", marks=pytest.mark.full)])
def test_the_guide(guide: str, tmp_path: Path) -> None:
    project = packaged(guide, tmp_path)
    folder = project.root / "dist" / guide
    config = json.loads((folder / "bundle/mlc-app-config.json").read_text())
    shown = json.loads(blocks(guide, "json")[0].replace("…", "0"))
    assert {**config["model_list"][0], "estimated_vram_bytes": 0} == shown["model_list"][0]
    (entry,) = config["model_list"]
    # The weights and a cache of 2048 tokens are the least.
    weights = sum(path.stat().st_size for path in (folder / "bundle" / entry["model_id"]).glob("params_shard_*.bin"))
    assert weights > 0
    assert entry["estimated_vram_bytes"] > weights

    model = folder / "bundle" / entry["model_id"]
    assert_the_application_reads(model)
    exported = link_as_mlc_does(guide, folder / ARCHIVES[guide], tmp_path / "link")
    assert entry["model_lib"].replace("-", "_") + "___tvm_ffi__library_bin" in exported

    # Another temperature: the configuration and the package, and the archive stays as it is.
    archive = (folder / ARCHIVES[guide]).read_bytes()
    text = (project.root / "buildfile.toml").read_text()
    project.write(
        text.replace('conv-template = "chatml"', 'conv-template = "chatml"\ngeneration = { temperature = 0.25 }')
    )
    events = tmp_path / "events"
    result = project.run("package", "--events", str(events))
    assert result.code == 0, result.text
    started = [json.loads(line)["label"] for line in events.read_text().splitlines() if '"started"' in line]
    assert sorted(started) == ["config[smollm2, q4f16_1]", f"package[{guide}]"]
    assert json.loads((model / "mlc-chat-config.json").read_text())["temperature"] == 0.25
    assert (folder / ARCHIVES[guide]).read_bytes() == archive


def assert_the_application_reads(model: Path) -> None:
    """The files and fields that both applications read before the engine does."""
    config: dict[str, Any] = json.loads((model / "mlc-chat-config.json").read_text())
    assert isinstance(config["context_window_size"], int) and isinstance(config["prefill_chunk_size"], int)
    records = json.loads((model / "tensor-cache.json").read_text())["records"]
    assert config["tokenizer_files"] and records
    for name in (*config["tokenizer_files"], *(record["dataPath"] for record in records)):
        assert (model / name).is_file()


@pytest.mark.parametrize("guide", ARCHIVES)
def test_the_other_tables_of_the_guide_load(guide: str, tmp_path: Path) -> None:
    first, *others = blocks(guide, "toml")
    base = first[: first.index("[package.")].replace(
        'platforms = ["iphone"]', 'platforms = ["iphone", "aarch64-macabi-metal"]'
    )
    for number, table in enumerate(others):
        text = table.replace("[package.ios]", '[package.ios]\nplatforms = ["iphone"]')
        path = tmp_path / f"{number}.toml"
        path.write_text(base + text)
        (package,) = load_project(path).packages.values()
        assert package.kind == guide
    (inline,) = re.findall(r"`(weights = \{.*?\})`", (GUIDES / f"{guide}.md").read_text(encoding="utf-8"))
    options = tomllib.loads(inline)
    assert [where_weights_are(options, model) for model in ("smollm2", "phi", "another")] == ["bundle", "url", "bundle"]


TWO_MODELS = """\
[[build]]
models = ["llama", "qwen2"]
quantizations = ["q4f16_1"]
platforms = ["aarch64-ios-metal", "aarch64-android-opencl"]

[package.ios]

[package.android]
weights = "url"
url = "https://hub.example/{model}-{quantization}"
"""


@pytest.mark.full
def test_two_models_in_both_packages_twice(tmp_path: Path) -> None:
    """Each is found in the archive, and another build of the same manifest gives the same folders."""
    snapshots = []
    for name in ("one", "other"):
        project = make_two_models(tmp_path / name, TWO_MODELS)
        result = project.run("package")
        assert result.code == 0, result.text
        snapshots.append({guide: project.snapshot(f"dist/{guide}") for guide in ARCHIVES})
    assert snapshots[0] == snapshots[1]
    for guide, path in ARCHIVES.items():
        exported = link_as_mlc_does(guide, project.root / "dist" / guide / path, tmp_path / guide)
        entries = json.loads(snapshots[0][guide]["bundle/mlc-app-config.json"])["model_list"]
        assert [entry["model_lib"] for entry in entries] == ["llama_q4f16_1", "qwen2_q4f16_1"]
        for entry in entries:
            assert f"{entry['model_lib']}___tvm_ffi__library_bin" in exported
    assert [name for name in snapshots[0]["android"] if name.endswith(".bin")] == []
