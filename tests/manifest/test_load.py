"""Good manifests: defaults, precedence, references, and what a project was made from."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from llmbuild.errors import LlmbuildError
from llmbuild.manifest.inputs_read import Read, all_current
from llmbuild.manifest.load import load, load_project
from llmbuild.manifest.project import Project
from llmbuild.sources.kind import Source

ROOT = Path(__file__).parent.parent.parent

SHORT = """\
[project]
name = "short"

[models.a]
source = "checkpoint"
conv-template = "chatml"

[[build]]
quantizations = ["q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""

FULL = """\
[project]
name = "full"
output = "out/put"

[metadata]
context-window-size = 4096
prefill-chunk-size = 1024
max-batch-size = 8

[models.a]
source = "hf:org/name@v1"
conv-template = "mine.toml"
model-type = "llama"
source-format = "auto"
adapter = "hf:org/lora"
float32 = "exact"
metadata = { context-window-size = 2048, disaggregation = false }
generation = { temperature = 0.5, top-p = 1, repetition-penalty = 1.1 }

[models.b]
preset = "Llama-2-7B"

[quantizations.q4f16_1]

[quantizations.q3small]
base = "q4f32_1"
bits = 3
quantize-head = false
method = "search"

[platforms.tarred]
target = "x86_64-linux-cpu"
artifact = "tar"
system-lib-prefix = "a_{quantization}_"
opt = { level = "O3", cutlass = false }
host = { cpu = "x86-64-v4", features = ["+avx512bf16"] }
device = { num-cores = 2 }
overrides = "prefill_chunk_size=128;sliding_window=-1"

[platforms.mine]

[[build]]
models = ["a"]
quantizations = ["q4f16_1", "q3small"]
platforms = ["tarred", "mine"]
exclude = [{ quantization = "q3small", platform = "mine" }]
metadata = { max-batch-size = 2 }

[[build]]
models = ["b"]
quantizations = ["q0f16"]
platforms = ["x86_64-linux-cpu"]
"""

TEMPLATE = 'roles = { user = "U", assistant = "A" }\nseps = ["\\n"]\n'
TARGET = """\
[target]
extends = "x86_64-linux-cpu"
[link]
compiler = "gcc"
flags = ["-Wl,-O1"]
[defaults]
opt = "O0"
metadata = { max-batch-size = 4, prefill-chunk-size = 64, attention-sink-size = 2 }
"""


@pytest.fixture
def full(tmp_path: Path) -> Path:
    (tmp_path / "buildfile.toml").write_text(FULL)
    (tmp_path / "mine.toml").write_text(TEMPLATE)
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text(TARGET)
    return tmp_path / "buildfile.toml"


def test_a_short_manifest_has_defaults(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(SHORT)
    loaded = load(path)
    project = loaded.project
    assert (project.name, project.output, project.root) == ("short", "dist", str(tmp_path))
    model = project.models["a"]
    assert model.source == Source("path", {"path": "checkpoint"})
    assert (model.adapter, model.model_type, model.source_format, model.float32) == (None, None, None, "bf16")
    assert (model.metadata, model.generation) == ({}, {})
    assert model.conversation["name"] == "chatml"
    [cell] = project.matrix
    assert cell.library == "dist/libs/a-q4f32_1-x86_64-linux-cpu.so"
    assert cell.weights == "dist/a-q4f32_1-MLC"
    assert list(project.schemes) == ["q4f32_1"]
    assert project.platforms["x86_64-linux-cpu"].system_lib_prefix is None
    assert loaded.notes == ()


@pytest.mark.parametrize("word", ["checkpoint", "checkpoint!"])
def test_the_checkpoints_own_template_is_a_word_until_its_files_are_read(tmp_path: Path, word: str) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(SHORT.replace('"chatml"', f'"{word}"\nsystem-prompt = "Be kind."'))
    project = load_project(path)
    assert Project.from_json(json.loads(json.dumps(project.to_json()))) == project
    model = project.models["a"]
    assert (model.conversation, model.system_prompt) == (word, "Be kind.")


def test_without_build_everything_that_has_a_table_is_built(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(
        '[models]\na = { source = "a", conv-template = "LM" }\nb = { preset = "Qwen3-0.6B" }\n'
        "[quantizations]\nq0f32 = {}\nq4f32_1 = {}\n[platforms]\nx86_64-linux-cpu = {}\n"
    )
    project = load_project(path)
    assert [(cell.model, cell.scheme) for cell in project.matrix] == [
        ("a", "q0f32"),
        ("a", "q4f32_1"),
        ("b", "q0f32"),
        ("b", "q4f32_1"),
    ]
    assert [cell.weights for cell in project.matrix][2:] == ["", ""]
    assert project.name == tmp_path.name


def test_every_key_arrives(full: Path) -> None:
    loaded = load(full)
    project = loaded.project
    a, b = project.models["a"], project.models["b"]
    assert a.source == Source("hf", {"repo": "org/name", "revision": "v1"})
    assert a.adapter == Source("hf", {"repo": "org/lora", "revision": "main"})
    assert (a.model_type, a.source_format, a.float32) == ("llama", None, "exact")
    assert a.conversation["name"] == "mine"
    assert a.metadata == {
        "context-window-size": 2048,
        "prefill-chunk-size": 1024,
        "max-batch-size": 8,
        "disaggregation": False,
    }
    assert a.generation == {"temperature": 0.5, "top-p": 1.0, "repetition-penalty": 1.1}
    assert (b.source, b.preset) == (None, "Llama-2-7B")
    assert b.conversation["name"] == "LM"
    small = project.schemes["q3small"]
    assert (small.name, small.bits, small.group_size, small.dtype) == ("q3small", 3, 40, "float32")
    assert (small.quantize_embedding, small.quantize_head, small.method) == (True, False, "search")
    assert {scheme.method for name, scheme in project.schemes.items() if name != "q3small"} == {"round"}
    tarred = project.platforms["tarred"]
    assert (tarred.artifact, tarred.system_lib_prefix) == ("tar", "a_{quantization}_")
    host = {"kind": "llvm", "mtriple": "x86_64-unknown-linux-gnu", "mcpu": "x86-64-v4", "mattr": ["+avx512bf16"]}
    assert tarred.compile == {"host": host, "device": {**host, "num-cores": 2}}
    assert tarred.metadata == {"prefill-chunk-size": 128, "sliding-window-size": -1}
    assert set(tarred.opt.values()) == {False, "NONE"}
    mine = project.platforms["mine"]
    assert (mine.target, mine.artifact) == ("mine", "so")
    assert mine.link == {
        "compiler": "gcc",
        "flags": ["-Wl,-O1"],
        "triple": "x86_64-unknown-linux-gnu",
    }
    assert [(c.model, c.scheme, c.platform) for c in project.matrix] == [
        ("a", "q4f16_1", "tarred"),
        ("a", "q4f16_1", "mine"),
        ("a", "q3small", "tarred"),
        ("b", "q0f16", "x86_64-linux-cpu"),
    ]
    assert project.matrix[0].library == "out/put/libs/a-q4f16_1-tarred.tar"
    assert loaded.notes == ()


def test_precedence_of_metadata(full: Path) -> None:
    """Build over platform over model over [metadata] over the target's defaults."""
    project = load_project(full)
    model = project.models["a"].metadata
    for cell in project.matrix[:2]:
        effective = {**model, **project.platforms[cell.platform].metadata, **cell.metadata}
        assert effective["max-batch-size"] == 2
        assert effective["context-window-size"] == 2048
        assert effective["prefill-chunk-size"] == (128 if cell.platform == "tarred" else 1024)
        assert effective.get("attention-sink-size") == (None if cell.platform == "tarred" else 2)


def test_a_project_survives_json(full: Path) -> None:
    project = load_project(full)
    assert Project.from_json(json.loads(json.dumps(project.to_json()))) == project


def test_reading_a_project_from_json_needs_no_pydantic(full: Path, tmp_path: Path) -> None:
    loaded = load(full)
    stored = tmp_path / "project.json"
    stored.write_text(
        json.dumps({"project": loaded.project.to_json(), "reads": [read.to_json() for read in loaded.reads]})
    )
    code = (
        "import json, sys\n"
        "from llmbuild.manifest.inputs_read import Read, all_current\n"
        "from llmbuild.manifest.project import Project\n"
        "value = json.load(open(sys.argv[1]))\n"
        "assert all_current(map(Read.from_json, value['reads']))\n"
        "assert Project.from_json(value['project']).name == 'full'\n"
        "import llmbuild.manifest.load\n"
        "print([name for name in ('pydantic', 'tvm', 'numpy', 'tomllib') if name in sys.modules])\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code, str(stored)], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert result.stdout.strip() == "[]"


@pytest.mark.parametrize("name", ["buildfile.toml", "mine.toml", "targets/mine.toml"])
def test_a_changed_file_makes_the_project_stale(full: Path, name: str) -> None:
    reads = load(full).reads
    assert all_current(reads)
    path = full.parent / name
    path.write_text(path.read_text() + "\n# changed\n")
    assert not all_current(reads)


def test_a_new_or_lost_target_file_makes_the_project_stale(full: Path) -> None:
    reads = load(full).reads
    extra = full.parent / "targets" / "x86_64-linux-cpu.toml"
    extra.write_text('[target]\nextends = "x86_64-linux-cpu"\n')
    assert not all_current(reads)
    extra.unlink()
    assert all_current(reads)
    (full.parent / "targets" / "mine.toml").unlink()
    assert not all_current(reads)


def test_a_native_platform_reads_the_cpu(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(SHORT.replace("linux-cpu", "linux-cpu-native"))
    try:
        loaded = load(path)
    except LlmbuildError as error:
        assert "native target" in error.what
        return
    assert Read.cpu("x86_64-unknown-linux-gnu") in loaded.reads
    host = loaded.project.platforms["x86_64-linux-cpu-native"].compile["host"]
    assert isinstance(host, dict)
    assert str(host["mcpu"]).startswith("x86-64")


def test_what_has_no_effect_is_said(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(
        '[models.a]\nsource = "a"\nconv-template = "LM"\n[models.b]\nsource = "b"\nconv-template = "LM"\n'
        '[platforms.cpu]\ntarget = "x86_64-linux-cpu"\nsystem-lib-prefix = "p_"\nopt = "cutlass=1;cublas_gemm=0"\n'
        '[platforms.idle]\ntarget = "x86_64-linux-cpu"\nopt = "O3"\n'
        '[[build]]\nmodels = ["a"]\nquantizations = ["q0f32"]\nplatforms = ["cpu"]\n'
    )
    loaded = load(path)
    assert loaded.project.platforms["cpu"].system_lib_prefix is None
    assert [note.split(" was ")[0].split(" takes ")[0] for note in loaded.notes] == [
        "platforms.cpu: system-lib-prefix",
        "platforms.cpu: opt: cutlass",
        "models.b is in no build",
        "platforms.idle is in no build",
    ]


def test_the_example_manifest_loads() -> None:
    project = load_project(ROOT / "buildfile.example.toml")
    [cell] = project.matrix
    assert (cell.model, cell.scheme, cell.platform) == ("smollm2", "q4f32_1", "x86_64-linux-cpu")
    assert project.models["smollm2"].source.spec["sha256"].startswith("b179c952")


def test_a_model_type_may_be_that_of_a_file_of_the_project(tmp_path: Path) -> None:
    path, file = tmp_path / "buildfile.toml", tmp_path / "architectures/my_model.py"
    path.write_text(SHORT.replace('"chatml"', '"chatml"\nmodel-type = "my-model"'))
    with pytest.raises(LlmbuildError, match="unknown model type 'my-model'"):
        load(path)
    file.parent.mkdir()
    # It is not run.
    file.write_text("1 / 0\n")
    loaded = load(path)
    assert loaded.project.models["a"].architecture == "my_model"
    assert Project.from_json(json.loads(json.dumps(loaded.project.to_json()))) == loaded.project
    assert Read.file(file) in loaded.reads
    file.write_text("another\n")
    assert not all_current(loaded.reads)


def test_a_file_of_an_architecture_is_one_of_the_project(tmp_path: Path) -> None:
    root, outside = tmp_path / "project", tmp_path / "outside.py"
    path, file = root / "buildfile.toml", root / "architectures/mine.py"
    file.parent.mkdir(parents=True)
    path.write_text(SHORT.replace('"chatml"', '"chatml"\nmodel-type = "mine"'))
    outside.write_text("")
    pipe = functools.partial(os.mkfifo, file)
    for make in (lambda: file.symlink_to(outside), lambda: file.symlink_to("nothing.py"), file.mkdir, pipe):
        make()
        with pytest.raises(LlmbuildError, match=r"architectures/mine\.py is no file of the project"):
            load(path)
        file.rmdir() if file.is_dir() and not file.is_symlink() else file.unlink()
    (file.parent / "other.py").write_text("")
    file.symlink_to("other.py")
    assert load(path).project.models["a"].architecture == "mine"
    (file.parent / "llama.py").write_text("")
    path.write_text(SHORT.replace('"chatml"', '"chatml"\nmodel-type = "llama"'))
    with pytest.raises(LlmbuildError, match="'llama' is a model type of llmbuild, and"):
        load(path)
