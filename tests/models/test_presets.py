"""Presets: each is a configuration of its family, has the published number of parameters, and lowers for browsers."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from llmbuild.errors import InputError
from llmbuild.models import presets as module
from llmbuild.models.family import Overrides
from llmbuild.models.presets import preset, presets
from llmbuild.models.registry import family, infer_model_type
from tests.helpers.tiny_library import chat_config

MLC_NAMES = """
    llama2_7b llama2_13b llama2_70b codellama_7b codellama_13b codellama_34b tinyllama_1b_chat_v0.4 tinyllama_1b_chat_v1.0
    mistral_7b mistral_7b_v03 ministral3_3b_2512 gpt2 gpt2_medium gpt_bigcode Mixtral-8x7B-v0.1 redpajama_3b_v1 phi-1_5 phi-2
    phi-3_5 phi-3_5-vision phi-4 qwen qwen2 qwen2moe deepseek_v2_lite stablelm baichuan internlm gemma_2b gemma2_2b
    gemma2_2b-jpn gemma2_9b gemma3_1b_it gemma2_27b rwkv5_3b orion llava chatglm llama3_1_8b llama3_1_70b llama3_2_1b
    llama3_2_3b snowflake-arctic-embed-m stablelm-2-zephyr-1_6b qwen2_0_5b qwen2_1_5b qwen2.5_3b qwen2_7b qwen3_0.6b
    qwen3_1.7b internlm2 internlm2_5_7b starcoder2 smollm_1_7b smollm_360m smollm_135m smollm2_135m smollm2_360m aya-23
    minicpm_2b minicpm_2b_sft_bf16 minicpm-moe-8x2b deepseek gpt_j olmo2_7b olmo2_13b olmo2_32b
"""
"""The names of MODEL_PRESETS in mlc_llm/model/model_preset.py."""

WITHOUT_FAMILY = {
    "experts": {"Mixtral-8x7B-v0.1", "qwen2moe", "deepseek", "minicpm-moe-8x2b"},
    "latent attention": {"deepseek_v2_lite"},
    "recurrent state": {"rwkv5_3b"},
    "encoders": {"snowflake-arctic-embed-m", "phi-3_5-vision", "llava"},
}


TOO_MANY_HEADS = {"starcoder2-7b"}
"""What TVM's attention kernel for decode does not compute within WebGPU's 256 threads a block."""


@pytest.mark.parametrize("name", presets())
def test_every_preset_configures(name: str) -> None:
    config = preset(name)
    model = family(infer_model_type(config))
    assert model.parameters(model.configure(config, Overrides()))


def test_no_name_stands_for_two_presets() -> None:
    files = Path(module.__file__).with_name("data").glob("*.json")
    entries = [item for path in files for item in json.loads(path.read_text(encoding="utf-8")).items()]
    names = [word for name, entry in entries for word in (name, *entry["aliases"])]
    assert sorted(names) == sorted(set(names))


def test_mlcs_names_stand_for_presets_where_there_is_a_family() -> None:
    without = set[str]().union(*WITHOUT_FAMILY.values())
    assert without < set(MLC_NAMES.split())
    for name in MLC_NAMES.split():
        if name in without:
            with pytest.raises(InputError, match="unknown preset"):
                preset(name)
        else:
            assert preset(name)


def test_preset_aliases_and_suggestions() -> None:
    assert preset("llama2_7b") is preset("Llama-2-7B")
    assert preset("redpajama_3b_v1")["vocab_size"] == 50432
    assert preset("Mistral-7B-Instruct-v0.2")["sliding_window"] is None
    with pytest.raises(InputError, match="did you mean 'smollm2_135m'"):
        preset("smollm2_135")


@pytest.mark.parametrize(
    ("name", "billions"),
    [
        ("RedPajama-INCITE-Chat-3B", 2.776),
        ("Llama-2-7B", 6.738),
        ("Llama-3-70B", 70.55),
        ("Llama-3.1-8B", 8.030),
        ("Llama-3.2-3B", 3.213),
        ("Mistral-7B-Instruct-v0.2", 7.242),
        ("CodeLlama-7B", 6.739),
        ("CodeLlama-34B", 33.74),
        ("Qwen1.5-1.8B", 1.837),
        ("Qwen2.5-0.5B", 0.494),
        ("Qwen2.5-7B", 7.616),
        ("Qwen3-0.6B", 0.596),
        ("Qwen3-8B", 8.191),
        ("SmolLM-1.7B", 1.711),
        ("SmolLM2-135M", 0.1345),
        ("phi-2", 2.780),
        ("Phi-3.5-mini-instruct", 3.821),
        ("Phi-4-mini-instruct", 3.836),
        ("gemma-2b", 2.506),
        ("gemma-2-2b", 2.614),
        ("gemma-2-9b", 9.242),
        ("gemma-2-27b", 27.23),
        ("gemma-3-1b", 1.000),
        ("Ministral-3-3B-2512", 3.429),
        ("gpt-j-6b", 6.051),
        ("chatglm3-6b", 6.244),
        ("MiniCPM-2B-sft-bf16", 2.725),
        ("Qwen-1_8B", 1.837),
        ("Baichuan2-7B", 7.506),
        ("internlm-7b", 7.322),
        ("internlm2-7b", 7.738),
        ("Orion-14B", 14.50),
        ("OLMo-2-0425-1B", 1.485),
        ("OLMo-2-1124-7B", 7.299),
        ("OLMo-2-0325-32B", 32.23),
        ("stablelm-3b-4e1t", 2.795),
        ("stablelm-2-zephyr-1_6b", 1.645),
        ("aya-23-8B", 8.028),
    ],
)
def test_preset_parameter_counts_are_the_published_ones(name: str, billions: float) -> None:
    config = preset(name)
    model = family(infer_model_type(config))
    shapes = [parameter.shape for parameter in model.parameters(model.configure(config, Overrides()))]
    assert sum(map(math.prod, shapes)) / 1e9 == pytest.approx(billions, rel=1e-3)


@pytest.mark.full
@pytest.mark.parametrize("name", presets())
def test_every_preset_lowers_for_browsers(name: str, tmp_path: Path) -> None:
    """In the scheme and with the window and the chunk of most records of WebLLM."""
    from llmbuild.compiler.lower import lower
    from llmbuild.quantization.scheme import SCHEMES
    from llmbuild.targets.files import load_target

    whole = family(infer_model_type(preset(name))).configure(preset(name), Overrides())
    sizes = Overrides(min(4096, whole.context_window_size), prefill_chunk_size=1024, max_batch_size=1)
    config, target = chat_config(preset(name), "q4f16_1", sizes), load_target("wasm32-webgpu").compile_part()
    if name in TOO_MANY_HEADS:
        with pytest.raises(InputError, match="cannot compute 9 heads of 128 for each key-value head"):
            lower(config, SCHEMES["q4f16_1"], {}, target, system_lib=True, system_lib_prefix=None, out=tmp_path)
        return
    record = lower(config, SCHEMES["q4f16_1"], {}, target, system_lib=True, system_lib_prefix=None, out=tmp_path)
    assert (record["model_type"], record["prefill_chunk_size"]) == (config["model_type"], 1024)
    assert b"@compute @workgroup_size" in (tmp_path / "devc.o").read_bytes()
