"""Checkpoints that are refused: by plan and build, before anything is fetched, in one message."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild.errors import InputError
from llmbuild.workspace import refusals
from llmbuild.workspace.workspace import Workspace
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project
from tests.helpers.gguf_files import make_gguf
from tests.helpers.hub_server import COMMIT, Hub, Repo, git_sha1, running_hub

MANIFEST = """\
[project]
name = "tiny"

[models.tiny]
source = "SOURCE"
conv-template = "chatml"

[metadata]
context-window-size = 64

[[build]]
models = ["tiny"]
quantizations = ["q0f32", "q4f32_1"]
platforms = ["x86_64-linux-cpu"]
"""
LARGE_TOKENIZER = b" " * (20 << 20)
SMALL = {"config.json", "generation_config.json", "tokenizer_config.json"}
"""What is read before a fetch."""
UNKNOWN = {"architectures": ["MixtralForCausalLM"]}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with running_hub() as hub:
        for name, value in {"HF_ENDPOINT": hub.url, "HF_TOKEN": "", "HF_HUB_OFFLINE": "", "NO_PROXY": "*"}.items():
            monkeypatch.setenv(name, value)
        yield hub


@pytest.fixture
def project(tmp_path: Path) -> ProjectDir:
    return make_project(tmp_path, MANIFEST.replace("SOURCE", "hf:org/tiny"))


def repository(changes: Mapping[str, object] = UNKNOWN, **files: bytes) -> Repo:
    """A tiny Llama with a large tokenizer, and some keys of its config.json changed."""
    found = {path.name: path.read_bytes() for path in cached_checkpoint("llama").iterdir()}
    config = {**json.loads(found["config.json"]), **changes}
    found |= {"config.json": json.dumps(config).encode(), "tokenizer.json": LARGE_TOKENIZER, **files}
    return Repo(found, large={"model.safetensors", "tokenizer.json"})


def moved(hub: Hub) -> dict[str, int]:
    """The files that were sent, each with its bytes."""
    sent = [seen.path.rpartition("/")[2] for seen in hub.seen if "/resolve/" in seen.path]
    return {name: sent.count(name) * len(hub.repos["org/tiny"].files[name]) for name in sent}


def opened(project: ProjectDir, **options: bool) -> Workspace:
    return llmbuild.open(str(project.root), cache=str(project.store), **options)


def states(workspace: Workspace) -> dict[str, str]:
    """The state of each task that is blocked or runs, by its label without the platform."""
    return {one.task.label.replace(", x86_64-linux-cpu", ""): one.state for one in workspace.plan().verdicts}


def refused_by(workspace: Workspace) -> str:
    """The one message with which a build of nothing but refused tasks ends."""
    with pytest.raises(InputError) as caught:
        workspace.build()
    return str(caught.value)


def local(tmp_path: Path, changes: Mapping[str, object]) -> ProjectDir:
    project = make_project(tmp_path, MANIFEST.replace("SOURCE", "checkpoint"), cached_checkpoint("llama"))
    change(project.root / "checkpoint", changes)
    return project


def change(checkpoint: Path, changes: Mapping[str, object]) -> None:
    path = checkpoint / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_refused_repository_moves_nothing(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = repository()
    message = (
        "error: hf:org/tiny: config.json: architectures: architecture 'MixtralForCausalLM' is not supported\n"
        "  fix: choose another checkpoint: docs/models.md lists"
    )
    plan = project.run("plan", env={"COLUMNS": "200"})
    assert plan.code == 3 and plan.err.startswith(message)
    assert plan.out.startswith("tiny: 10 tasks: 10 blocked\n\n  blocked  fetch[tiny]")
    assert (plan.out.count("Mixtral"), plan.out.count("as fetch[tiny]")) == (1, 9)
    assert sum(moved(hub).values()) < 64 << 10 and moved(hub).keys() == SMALL

    hub.seen.clear()
    build = project.run("build", env={"COLUMNS": "200"})
    assert (build.code, build.out) == (3, "") and build.err == plan.err
    keeping_on = project.run("build", "--keep-going")
    assert keeping_on.code == 3 and keeping_on.err.count("Mixtral") == 1
    assert "llmbuild exec" not in keeping_on.err  # There is no record of what never started.
    offline = project.run("build", "--offline", env={"COLUMNS": "200"})
    assert offline.code == 3 and offline.err == plan.err
    assert project.run("build", "-n").code == 3 and hub.seen == []


def with_a_large_index(repo: Repo) -> Repo:
    """The same, with its weights in two files that an index of 300 kB names."""
    shards = {f"model-0000{number}-of-00002.safetensors": b"" for number in (1, 2)}
    names = {f"model.layers.{number}.mlp.down_proj.weight": shard for shard in shards for number in range(5000)}
    del repo.files["model.safetensors"]
    index = json.dumps({"weight_map": names}).encode()
    assert len(index) > 300_000
    repo.files |= shards | {"model.safetensors.index.json": index}
    return repo


def test_a_large_index_of_a_refused_repository_is_not_read(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = with_a_large_index(repository(**{"quantize_config.json": b'{"bits": 4}'}))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert list(moved(hub)) == ["config.json", "quantize_config.json"]
        assert sum(moved(hub).values()) < 64 << 10
        hub.seen.clear()
        assert refused_by(workspace).startswith("hf:org/tiny: config.json: architectures: architecture 'Mixtral")
    with opened(project, offline=True) as workspace:
        assert set(states(workspace).values()) == {"blocked"} and hub.seen == []


def test_what_was_refused_without_its_index_is_whole_when_it_is_fetched(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = with_a_large_index(repository({"is_causal": False}, **{"tokenizer.json": b"{}"}))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
    project.write(MANIFEST.replace('"SOURCE"', '"hf:org/tiny"\nignore-keys = ["is_causal"]'))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}
        assert workspace.build("fetch").ok
    assert "model.safetensors.index.json" in moved(hub)
    assert "model-00002-of-00002.safetensors" in (project.root / "llmbuild.lock").read_text()


def test_a_build_alone_moves_as_little(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = repository()
    assert project.run("build").code == 3
    assert moved(hub).keys() == SMALL
    assert project.run("plan", "--json").out.count('"state": "blocked"') == 10


def test_what_is_supported_is_planned_as_ever(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = repository({})
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}
        assert moved(hub).keys() == SMALL
        hub.seen.clear()
        assert set(states(workspace).values()) == {"run"}
        assert hub.seen == []


def test_a_recorded_verdict_reads_nothing(
    hub: Hub, project: ProjectDir, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hub.repos["org/tiny"] = repository({})
    here = local(tmp_path / "local", {})
    for each in (project, here):
        with opened(each) as workspace:
            workspace.plan()

    def read(*_: object) -> Any:
        raise AssertionError("a verdict is recorded")

    monkeypatch.setattr(refusals, "_description", read)
    for each in (project, here):
        with opened(each) as workspace:
            assert set(states(workspace).values()) == {"run"}
    # Another content is another question, and so are other tasks.
    change(here.root / "checkpoint", {"max_position_embeddings": 128})
    with opened(here) as workspace, pytest.raises(AssertionError):
        workspace.plan()
    project.write(MANIFEST.replace("SOURCE", "hf:org/tiny").replace("= 64", "= 32"))
    with opened(project) as workspace, pytest.raises(AssertionError):
        workspace.plan()


def test_a_commit_without_a_lock_is_known_offline(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = repository()
    project.write(MANIFEST.replace("SOURCE", f"hf:org/tiny@{COMMIT}"))
    with opened(project) as workspace:
        workspace.plan()
    (project.root / "llmbuild.lock").unlink()
    with opened(project, offline=True) as workspace:
        assert set(states(workspace).values()) == {"blocked"}


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(b'{"architectures": ["MixtralForCausalLM"], "x": "' + b"y" * (1 << 20) + b'"}', id="large"),
        pytest.param(b"other", id="announced-otherwise"),
        pytest.param(None, id="none"),
    ],
)
def test_what_cannot_be_read_early_is_left_to_the_fetch(hub: Hub, project: ProjectDir, config: bytes | None) -> None:
    hub.repos["org/tiny"] = repo = repository()
    if config == b"other":
        repo.announced["config.json"] = git_sha1(config)
    elif config is None:
        hub.failures += [("status", 503)]
    else:
        repo.files["config.json"] = config
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (b"[" * 100_000, "is refused"),
        (b"\xff\xfe", "is not UTF-8"),
        (b"null", "is not a JSON object"),
        (b'{"model_type": ', "is not valid JSON"),
        (b"version https://git-lfs.github.com/spec/v1\n", "is a git-lfs pointer"),
    ],
)
def test_a_config_that_is_none_is_refused(
    hub: Hub, project: ProjectDir, tmp_path: Path, config: bytes, message: str
) -> None:
    hub.repos["org/tiny"] = repository(**{"config.json": config})
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert refused_by(workspace).startswith(f"hf:org/tiny: config.json: {message}\n")
    here = local(tmp_path / "local", {})
    (here.root / "checkpoint/config.json").write_bytes(config)
    with opened(here) as workspace:
        assert refused_by(workspace).startswith(f"checkpoint/config.json: {message}\n")


def test_a_directory(tmp_path: Path) -> None:
    project = local(tmp_path, UNKNOWN)
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert refused_by(workspace).startswith(
            "checkpoint/config.json: architectures: architecture 'MixtralForCausalLM'"
        )
    change(project.root / "checkpoint", {"architectures": ["LlamaForCausalLM"], "rope_scaling": {"type": "unheard-of"}})
    with opened(project) as workspace:
        assert refused_by(workspace).startswith("checkpoint/config.json: rope_scaling.rope_type: ")


def test_advice_fits_a_directory(tmp_path: Path) -> None:
    project = local(tmp_path, {})
    (project.root / "checkpoint/model.safetensors").unlink()
    (project.root / "checkpoint/model.safetensors.index.json").write_text("{}")
    plan = project.run("plan", env={"COLUMNS": "200"})
    assert plan.code == 3 and plan.err.startswith(
        "error: checkpoint/model.safetensors.index.json: weight_map: the weight index has no weight_map"
    )
    assert "fix: get the checkpoint again from where you have it from" in plan.err


@pytest.mark.parametrize(
    ("source", "fix"),
    [
        ("./no/../where", "put it there, or write hf:org/name for the hub's"),
        ("checkpoint/x.gguf", "put it there, or write hf:org/name for the hub's"),
        ("chekpoint", "did you mean 'checkpoint'?"),
        ("chekpoint/x.gguf", "did you mean 'checkpoint'?"),
        ("$MODELS/x", "write ${MODELS} for the variable"),
        ("~nobody2/x", "write the path of ~nobody2: only '~/', your own home directory, is replaced"),
    ],
)
def test_a_source_that_is_missing_has_its_name_in_the_manifest(source: str, fix: str, tmp_path: Path) -> None:
    project = make_project(tmp_path, MANIFEST.replace("SOURCE", source), cached_checkpoint("llama"))
    plan = project.run("plan")
    line = (project.root / "buildfile.toml").read_text().splitlines().index(f'source = "{source}"') + 1
    assert plan.code == 4
    assert plan.err.startswith(f"error: buildfile.toml:{line}: models.tiny.source: '{source}' does not exist\n")
    assert f"fix: {fix}" in " ".join(plan.err.split())


def test_a_gguf_file_has_its_tokenizer_itself(tmp_path: Path) -> None:
    project = make_project(tmp_path, MANIFEST.replace("SOURCE", "tiny.gguf"))
    make_gguf(project.root / "tiny.gguf", "llama")
    planned = project.run("plan")
    assert planned.code == 0, planned.text


def test_a_gguf_file(tmp_path: Path) -> None:
    import gguf

    project = make_project(tmp_path, MANIFEST.replace("SOURCE", "./weights/strange.gguf"))
    (project.root / "weights").mkdir()
    writer = gguf.GGUFWriter(project.root / "weights/strange.gguf", "strange")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        message = refused_by(workspace)
    assert message.startswith("./weights/strange.gguf: ") and "strange" in message and str(tmp_path) not in message


@pytest.mark.parametrize(("architecture", "state"), [("strange", "blocked"), ("llama", "run")])
@pytest.mark.parametrize("source", ["hf:org/tiny/a.gguf", "hf:org/tiny", "URL/raw/org/tiny/resolve/main/a.gguf"])
def test_a_gguf_file_that_is_elsewhere(
    hub: Hub, project: ProjectDir, source: str, architecture: str, state: str
) -> None:
    import gguf

    file = project.root / "a.gguf"
    writer = gguf.GGUFWriter(file, architecture)
    writer.add_array("tokenizer.ggml.tokens", ["token"] * 10_000)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    content = file.read_bytes() + bytes(1 << 20)
    hub.repos["org/tiny"] = Repo({"a.gguf": content}, large={"a.gguf"})
    source = source.replace("URL", hub.url)
    promise = f'"\nsha256 = "{hashlib.sha256(content).hexdigest()}' if source.startswith("http") else ""
    project.write(MANIFEST.replace("SOURCE", source + promise))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {state}
        assert [seen.range for seen in hub.seen if seen.range is not None][-1] == "bytes=0-32767"
        hub.seen.clear()
        assert set(states(workspace).values()) == {state} and hub.seen == []
        if state == "blocked":
            assert refused_by(workspace) == (
                f"{source}: architecture 'strange' is not supported\n"
                "  fix: use the original weights, or another model: docs/models.md lists the architectures"
            )


@pytest.mark.parametrize(("architecture", "state"), [("strange", "blocked"), ("llama", "run")])
@pytest.mark.parametrize(
    "source", ["hf:org/tiny/x-00001-of-00003.gguf", "hf:org/tiny/x-00003-of-00003.gguf", "hf:org/tiny"]
)
def test_the_first_part_of_a_gguf_file_tells(
    hub: Hub, project: ProjectDir, source: str, architecture: str, state: str
) -> None:
    import gguf

    writer = gguf.GGUFWriter(project.root / "part", architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    parts = {f"x-0000{number}-of-00003.gguf": b"GGUF" for number in (2, 3)}
    first = (project.root / "part").read_bytes()
    hub.repos["org/tiny"] = Repo({"x-00001-of-00003.gguf": first, **parts}, large={"x-00001-of-00003.gguf", *parts})
    project.write(MANIFEST.replace("SOURCE", source))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {state}
        assert set(moved(hub)) == {"x-00001-of-00003.gguf"}
        if state == "blocked":
            assert refused_by(workspace).startswith(f"{source}: architecture 'strange' is not supported")


TOKENIZERS: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "none": ({}, "tokenizer.json: the checkpoint has no tokenizer"),
    "half of a pair": ({"vocab.json": b"{}"}, "tokenizer.json: the checkpoint has no tokenizer"),
    "an unknown class": (
        {"tokenizer.model": b"", "tokenizer_config.json": b'{"tokenizer_class": "OddTokenizer"}'},
        "tokenizer_config.json: tokenizer_class: a tokenizer.json cannot be made of tokenizer.model: the rules of Odd",
    ),
    "a class of config.json": (
        {"tokenizer.model": b""},
        "config.json: tokenizer_class: a tokenizer.json cannot be made",
    ),
    "no object": ({"tokenizer.model": b"", "tokenizer_config.json": b"[]"}, "tokenizer_config.json: "),
}


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("name", TOKENIZERS)
def test_a_tokenizer_that_cannot_be_read(
    hub: Hub, project: ProjectDir, tmp_path: Path, name: str, remote: bool
) -> None:
    files, message = TOKENIZERS[name]
    repo = repository({"tokenizer_class": "OddTokenizer"} if name == "a class of config.json" else {})
    repo.files = {name: repo.files[name] for name in ("config.json", "model.safetensors")} | files
    hub.repos["org/tiny"] = repo
    if not remote:
        (project.root / "checkpoint").mkdir()
        for file, content in repo.files.items():
            (project.root / "checkpoint" / file).write_bytes(content)
        project.write(MANIFEST.replace("SOURCE", "checkpoint"))
    where = "hf:org/tiny: " if remote else "checkpoint/"
    with opened(project) as workspace:
        assert states(workspace)["config[tiny, q0f32]"] == "blocked"
        assert refused_by(workspace).startswith(where + message)
        assert not remote or moved(hub).keys() <= {"config.json", "tokenizer_config.json"}
    # A file that was added is looked at.
    if not remote:
        (project.root / "checkpoint/tokenizer.json").write_bytes(b"{}")
        with opened(project) as workspace:
            assert states(workspace)["config[tiny, q0f32]"] == ("blocked" if name == "no object" else "run")


def test_tokenizer_settings_that_are_large_are_left_to_the_fetch(hub: Hub, project: ProjectDir) -> None:
    odd = b'{"tokenizer_class": "OddTokenizer", "chat_template": "' + b" " * (56 << 10) + b'"}'
    hub.repos["org/tiny"] = repo = repository({}, **{"tokenizer.model": b"", "tokenizer_config.json": odd})
    del repo.files["tokenizer.json"]
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}
        assert moved(hub).keys() == {"config.json", "generation_config.json"}


def test_an_adapter_that_no_merge_expresses_is_refused_before_the_fetch(tmp_path: Path) -> None:
    project = local(tmp_path, {})
    adapter = project.root / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(bytes(2048))
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA", "use_qalora": True}))
    project.write(
        MANIFEST.replace("SOURCE", "checkpoint").replace("conv-template", 'adapter = "adapter"\nconv-template')
    )
    plan = project.run("plan", env={"COLUMNS": "200"})
    assert plan.code == 3 and plan.err.startswith("error: adapter/adapter_config.json: use_qalora: ")
    assert plan.out.count("use_qalora") == 1 and "run  " not in plan.out
    build = project.run("build", env={"COLUMNS": "200"})
    assert (build.code, build.err) == (3, plan.err)
    (adapter / "adapter_config.json").write_text(json.dumps({"peft_type": "LORA"}))
    assert project.run("plan").code == 0


WEIGHTLESS: Mapping[str, tuple[Mapping[str, bytes], str]] = {
    "none": ({}, "there are none of safetensors, torch or GGUF"),
    "an index alone": (
        {"model.safetensors.index.json": b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'},
        "none of the shards that model.safetensors.index.json names is there",
    ),
    "an adapter beside it": ({"adapter_model.safetensors": b"", "adapter_config.json": b"{}"}, "there are none of "),
}


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize("name", WEIGHTLESS)
def test_a_checkpoint_without_weights(hub: Hub, project: ProjectDir, name: str, remote: bool) -> None:
    files, why = WEIGHTLESS[name]
    repo = repository({}, **files)
    del repo.files["model.safetensors"]
    hub.repos["org/tiny"] = repo
    if not remote:
        (project.root / "checkpoint").mkdir()
        for file, content in repo.files.items():
            (project.root / "checkpoint" / file).write_bytes(content)
        project.write(MANIFEST.replace("SOURCE", "checkpoint"))
    where = "hf:org/tiny" if remote else "checkpoint"
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert refused_by(workspace).startswith(f"{where}: the checkpoint has no weights\n  why: {why}")
    assert project.run("plan").code == 3 and project.run("build").code == 3
    assert not remote or moved(hub).keys() <= {"config.json", "model.safetensors.index.json"}
    if remote:
        return
    (project.root / "checkpoint/model.safetensors").write_bytes(bytes(2048))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}


def test_a_checkpoint_without_weights_of_a_format(tmp_path: Path) -> None:
    project = local(tmp_path, {})
    project.write(MANIFEST.replace('"SOURCE"', '"checkpoint"\nsource-format = "huggingface-torch"'))
    with opened(project) as workspace:
        assert refused_by(workspace) == (
            "checkpoint: the checkpoint has no weights\n  why: there are none of huggingface-torch\n"
            "  fix: name a source that has them, or another source-format"
        )


@pytest.mark.parametrize("remote", [True, False])
def test_a_shard_that_is_missing_is_told_before_a_fetch(hub: Hub, project: ProjectDir, remote: bool) -> None:
    """Transformers wants every file of an index, whatever tensors are in it."""
    index = {"weight_map": {"lm_head.weight": "one.safetensors", "of no layer": "two.safetensors"}}
    files = {"one.safetensors": b"", "model.safetensors.index.json": json.dumps(index).encode()}
    hub.repos["org/tiny"] = repo = repository({}, **files)
    del repo.files["model.safetensors"]
    if not remote:
        (project.root / "checkpoint").mkdir()
        for file, content in repo.files.items():
            (project.root / "checkpoint" / file).write_bytes(content)
        project.write(MANIFEST.replace("SOURCE", "checkpoint"))
    for command in ("plan", "build"):
        found = project.run(command, env={"COLUMNS": "200"})
        assert found.code == 3 and "shard two.safetensors is missing" in found.err
        assert ("fix: name another source" if remote else "fix: get the checkpoint again from where") in found.err
    assert moved(hub).keys() <= {"config.json", "model.safetensors.index.json"}


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"


@pytest.mark.parametrize("file", ["model.safetensors", "tokenizer.json", "tokenizer.model", "generation_config.json"])
def test_a_pointer_in_the_place_of_a_file(tmp_path: Path, file: str) -> None:
    project = local(tmp_path, {})
    before = (project.root / "checkpoint" / file).read_bytes() if (project.root / "checkpoint" / file).exists() else b""
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}
    (project.root / "checkpoint" / file).write_bytes(POINTER)
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert refused_by(workspace) == (
            f"checkpoint/{file}: is a git-lfs pointer\n  why: the file itself, of 12345 bytes, is not there\n"
            "  fix: run `git lfs pull` in the repository that it is from"
        )
    (project.root / "buildfile.toml").unlink()
    init = project.run("init", "checkpoint")
    assert init.code == 3 and f"checkpoint/{file}: is a git-lfs pointer" in init.err
    assert not (project.root / "buildfile.toml").exists()
    project.write(MANIFEST.replace("SOURCE", "checkpoint"))
    (project.root / "checkpoint" / file).write_bytes(before or b"{}")
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}


def test_token_numbers_of_generation_config(hub: Hub, project: ProjectDir, tmp_path: Path) -> None:
    generation = b'{"eos_token_id": [2, 320]}'
    hub.repos["org/tiny"] = repository({}, **{"generation_config.json": generation})
    here = local(tmp_path / "local", {})
    (here.root / "checkpoint/generation_config.json").write_bytes(generation)
    for each, where in ((project, "hf:org/tiny: "), (here, "checkpoint/")):
        with opened(each) as workspace:
            assert set(states(workspace).values()) == {"blocked"}
            assert refused_by(workspace).startswith(
                f"{where}generation_config.json: eos_token_id: there is no token 320\n  why: the embedding has 320 rows"
            )
    assert moved(hub).keys() == SMALL
    # As many rows as the configuration says count, whatever the tokenizer has.
    change(here.root / "checkpoint", {"vocab_size": 321})
    with opened(here) as workspace:
        assert set(states(workspace).values()) == {"run"}


@pytest.mark.parametrize(("rows", "state"), [(275, "run"), (260, "blocked")])
def test_a_gguf_file_that_lists_more_tokens_than_rows(tmp_path: Path, rows: int, state: str) -> None:
    project = make_project(tmp_path, MANIFEST.replace("SOURCE", "tiny.gguf"))
    make_gguf(project.root / "tiny.gguf", "llama", config={"vocab_size": rows})
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {state}
        if state == "blocked":
            message = refused_by(workspace)
            assert (
                message.startswith("tiny.gguf: the token ") and "the embedding has 260 rows, and 15 tokens" in message
            )


@pytest.mark.parametrize("remote", [True, False])
@pytest.mark.parametrize(
    ("settings", "template", "message"),
    [
        (b"{}", "checkpoint", ": the checkpoint has no chat template\n"),
        (None, "checkpoint!", ": the checkpoint has no chat template\n"),
        (
            b'{"chat_template": [{"name": "tool_use", "template": ""}]}',
            "checkpoint",
            "none of the chat templates is called",
        ),
        (b"{}", "chatml", ""),
        (b'{"chat_template": "{{ messages }}"}', "checkpoint", ""),
    ],
)
def test_a_chat_template_that_is_not_there(
    hub: Hub, project: ProjectDir, remote: bool, settings: bytes | None, template: str, message: str
) -> None:
    repo = hub.repos["org/tiny"] = repository({})
    del repo.files["tokenizer_config.json"]
    repo.files |= {} if settings is None else {"tokenizer_config.json": settings}
    source = "hf:org/tiny" if remote else "checkpoint"
    if not remote:
        (project.root / "checkpoint").mkdir()
        for file, content in repo.files.items():
            (project.root / "checkpoint" / file).write_bytes(content)
    project.write(MANIFEST.replace("SOURCE", source).replace('"chatml"', f'"{template}"'))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked" if message else "run"}
        if message:
            said = refused_by(workspace)
            assert said.startswith(source) and message in said
    assert not moved(hub).keys() & {"model.safetensors", "tokenizer.json"}
    # A template of its own is looked at by the task alone.
    if message and not remote:
        (project.root / "checkpoint/chat_template.jinja").write_text("{{ messages }}")
        with opened(project) as workspace:
            assert set(states(workspace).values()) == {"run"}


def test_a_refused_configuration_leaves_weights_alone(tmp_path: Path) -> None:
    """Who names the weights' task gets them all the same."""
    project = local(tmp_path, {"top_p": 1.5})
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert {one.task.kind: one.state for one in workspace.plan("quantize").verdicts} == {
            "fetch": "run",
            "inspect": "run",
            "quantize": "run",
        }


def test_metadata_that_does_not_fit(tmp_path: Path) -> None:
    project = local(tmp_path, {})
    project.write(
        MANIFEST.replace("SOURCE", "checkpoint").replace("context-window-size = 64", "attention-sink-size = 4")
    )
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert refused_by(workspace) == (
            f"{project.root}/buildfile.toml: models.tiny: metadata: attention-sink-size: "
            "a llama model has no attention-sink-size\n  fix: remove the key"
        )


def test_metadata_that_does_not_fit_a_preset(tmp_path: Path) -> None:
    manifest = MANIFEST.replace('source = "SOURCE"', 'preset = "Llama-2-7B"')
    project = make_project(tmp_path, manifest.replace("context-window-size = 64", "attention-sink-size = 4"))
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        assert "models.tiny: metadata: attention-sink-size: a llama model has no" in refused_by(workspace)
    project.write(manifest)
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"run"}


@pytest.mark.parametrize(
    ("changes", "template", "message"),
    [
        ({"pad_token_id": 320}, "chatml", "pad_token_id: there is no token 320\n  why: the embedding has 320 rows"),
        (
            {"eos_token_id": [2, 999]},
            "checkpoint",
            "eos_token_id: there is no token 999\n  why: the embedding has 320 rows",
        ),
        ({"top_p": 1.5}, "chatml", "top_p: must be a number, more than 0 and at most 1, not 1.5"),
        ({}, "llama-3", "the conversation template 'llama-3' begins with the token 128000"),
        ({"tensor_parallel_shards": 2}, "chatml", "tensor_parallel_shards: is 2, and a library computes on one device"),
    ],
)
def test_token_numbers_that_the_embedding_has_not(
    tmp_path: Path, changes: dict[str, object], template: str, message: str
) -> None:
    project = local(tmp_path, changes)
    project.write(MANIFEST.replace("SOURCE", "checkpoint").replace('"chatml"', f'"{template}"'))
    with opened(project) as workspace:
        assert states(workspace)["config[tiny, q0f32]"] == "blocked"
        assert refused_by(workspace).startswith(f"checkpoint/config.json: {message}")


def test_one_scheme_of_two(tmp_path: Path) -> None:
    project = local(tmp_path, {})
    project.write(MANIFEST.replace("SOURCE", "checkpoint").replace('"q0f32"', '"q4f16_awq"'))
    with opened(project) as workspace:
        found = states(workspace)
        assert [label for label, state in found.items() if state == "blocked"] == ["quantize[tiny, q4f16_awq]"]
        assert found["fetch[tiny]"] == "run"
        assert refused_by(workspace).startswith("checkpoint/config.json: quantization_config: q4f16_awq needs ")


@pytest.mark.parametrize(
    ("changes", "files", "message"),
    [
        ({"quantization_config": {"quant_method": "hqq"}}, {}, "config.json: quantization_config.quant_method: "),
        ({}, {"hf_quant_config.json": b'{"quantization": {"quant_algo": "NVFP4"}}'}, "hf_quant_config.json: "),
    ],
)
def test_quantized_weights_that_are_not_read(
    hub: Hub, project: ProjectDir, changes: Mapping[str, object], files: Mapping[str, bytes], message: str
) -> None:
    hub.repos["org/tiny"] = repository(changes, **files)
    with opened(project) as workspace:
        assert set(states(workspace).values()) == {"blocked"}
        found = refused_by(workspace)
    assert found.startswith(f"hf:org/tiny: {message}") and found.count("\n") == 2
    assert sum(moved(hub).values()) < 64 << 10


def test_what_the_store_has_is_judged_without_the_source(hub: Hub, project: ProjectDir) -> None:
    hub.repos["org/tiny"] = repository({}, **{"tokenizer.json": b"{}"})
    project.write(MANIFEST.replace("SOURCE", "hf:org/tiny"))
    with opened(project) as workspace:
        assert workspace.build("fetch").ok
    hub.seen.clear()
    project.write(
        MANIFEST.replace("SOURCE", "hf:org/tiny").replace("context-window-size = 64", "attention-sink-size = 4")
    )
    with opened(project) as workspace:
        assert "blocked" in states(workspace).values() and states(workspace)["fetch[tiny]"] == "cached"
    assert hub.seen == []
