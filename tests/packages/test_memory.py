"""The memory that libraries need: the formula against TVM's own records and against what a process takes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.models.family import Overrides
from llmbuild.models.presets import preset
from llmbuild.models.registry import family, infer_model_type
from llmbuild.packages.expected import expected_record
from llmbuild.packages.memory import PAGE, Sizes, memory_of, sizes_of, web_figures, window_that_fits
from llmbuild.quantization.overrides import Override
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers import memory_growth
from tests.helpers.checkpoints import CONFIGS
from tests.helpers.cli import ProjectDir
from tests.helpers.made_weights import write_weights
from tests.helpers.tiny_library import TARGET, TINY_LLAMA, chat_config, link_shared

MIB = 1 << 20

BIG: Mapping[str, Any] = {
    **TINY_LLAMA,
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_attention_heads": 16,
    "num_key_value_heads": 8,
    "vocab_size": 256000,
    "max_position_embeddings": 4096,
}
"""Two layers and a large vocabulary: tensors take far more than what a process needs besides, and compute little."""


def expected(source: Mapping[str, Any], scheme: str, **sizes: int) -> dict[str, Any]:
    architecture = family(infer_model_type(source))
    return expected_record(architecture, architecture.configure(source, Overrides(**sizes)), SCHEMES[scheme])  # type: ignore[arg-type]


def llama_1b(scheme: str, **sizes: int) -> dict[str, Any]:
    return expected(
        preset("Llama-3.2-1B"), scheme, **{"context_window_size": 4096, "prefill_chunk_size": 1024, **sizes}
    )


@pytest.mark.parametrize("variant", ["llama-tied", "gpt_neox", "qwen3"])
@pytest.mark.parametrize("scheme", ["q0f16", "q4f32_1", "q4f16_0", "q4f16_2", "q3f16_1", "q8f16_1"])
def test_the_expected_record_is_that_of_the_library(variant: str, scheme: str) -> None:
    from llmbuild.compiler.lower import metadata_record
    from llmbuild.models.build import export

    source = CONFIGS[variant]
    architecture = family(infer_model_type(source))
    config = architecture.configure(source, Overrides())
    record = metadata_record(
        chat_config(source), config, SCHEMES[scheme], export(config, architecture, SCHEMES[scheme])
    )
    found = expected_record(architecture, config, SCHEMES[scheme])
    keys = ("name", "shape", "dtype")
    assert found["params"] == [{key: one[key] for key in keys} for one in record["params"]]
    assert found == {**{key: record[key] for key in found}, "params": found["params"]}


@pytest.mark.parametrize("variant", ["llama-tied", "gpt_neox", "qwen3"])
def test_the_expected_record_of_mixed_bits(variant: str) -> None:
    """Layers, head and embedding of other bits are those of the weights, in the layout that has linear layers transposed too."""
    from llmbuild.compiler.lower import metadata_record
    from llmbuild.models.build import export

    source = CONFIGS[variant]
    architecture = family(infer_model_type(source))
    config = architecture.configure(source, Overrides())
    overrides = (
        Override("*.mlp.*", 3, 40),
        Override("*", 8, 32, "1"),
        Override("*embed*", 0),
        Override("*head", 8, 32),
    )
    scheme = dataclasses.replace(SCHEMES["q4f16_0"], overrides=overrides)
    record = metadata_record(chat_config(source), config, scheme, export(config, architecture, scheme))
    found = expected_record(architecture, config, scheme)
    keys = ("name", "shape", "dtype")
    assert found["params"] == [{key: one[key] for key in keys} for one in record["params"]]
    assert len({one["shape"][0] for one in found["params"] if one["name"].endswith("q_weight")}) > 3


def test_a_scheme_whose_weights_come_packed_has_no_expected_record() -> None:
    with pytest.raises(ValueError, match="the checkpoint says"):
        expected(TINY_LLAMA, "q4f16_awq")


def test_weights_and_cache_of_a_model_of_a_billion() -> None:
    record = llama_1b("q4f32_1")
    sizes = Sizes(tokens=4096, chunk=1024)
    assert sizes_of(record) == sizes
    use = memory_of(record, "webgpu", sizes)
    # 16 layers of 257 pages, and six buffers for a chunk with 32 heads and 8 key-value heads of 64.
    pages = 16 * 257 * 2 * 8 * 16 * 64 * 4
    attention = 1024 * (2 * 32 + 2 * 8) * 64 * 4 + 2 * 1024 * 32 * 4
    # A mask of 256 x 256 for each depth, the pages twice, and places of a chunk's tokens.
    indices = 4 * (2 * (65536 + 257 + 10) + 5 + 6 * 1024 + 2 * 256)
    assert use.kv_cache == pages + attention + indices
    assert use.weights == 772612096
    assert use.largest == 128256 * 256 * 4
    assert use.about
    assert use.total == use.weights + use.kv_cache + use.temporaries


def test_a_rolling_cache_has_two_more_pages_a_sequence() -> None:
    record = expected(CONFIGS["mistral"], "q4f32_1", sliding_window_size=32, attention_sink_size=4)
    sizes = sizes_of(record)
    assert sizes.tokens == 32
    assert sizes.rolling
    page = 2 * 2 * PAGE * 32 * 4 * 2
    plain = memory_of(record, "llvm", dataclasses.replace(sizes, rolling=False))
    assert memory_of(record, "llvm", sizes).kv_cache - plain.kv_cache == 2 * page
    four = dataclasses.replace(sizes, sequences=4)
    assert memory_of(record, "llvm", four).kv_cache - plain.kv_cache == 8 * page


def test_the_index_arrays_depend_on_the_device() -> None:
    record, sizes = llama_1b("q4f16_1"), Sizes(4096, 1024)
    cache = {device: memory_of(record, device, sizes).kv_cache for device in ("llvm", "cuda", "vulkan", "webgpu")}
    assert cache["cuda"] - cache["llvm"] == 128 * MIB + 16 + 2 * 256 * 4
    assert cache["vulkan"] == cache["webgpu"]
    # On the others each sequence has two masks of 256 x 256.
    more = memory_of(record, "vulkan", dataclasses.replace(sizes, sequences=5)).kv_cache - cache["vulkan"]
    assert 4 * 2 * 65536 * 4 < more < 4 * 2 * 65536 * 4 * 1.01


@pytest.mark.slow
@pytest.mark.parametrize("batches", [False, True])
def test_an_estimate_is_near_the_record(batches: bool, built: ProjectDir) -> None:
    """For a runtime of several sequences too, for which the planner has bounded the functions by the library's batch."""
    from llmbuild.runtime.library import load_library

    record = load_library(built.root / "dist/libs/tiny-q0f32-x86_64-linux-cpu.so").metadata
    sizes = sizes_of(record, batches=batches)
    found = memory_of({**record, "memory_usage": None}, "llvm", sizes, repacks=False).temporaries
    assert found == pytest.approx(memory_of(record, "llvm", sizes, repacks=False).temporaries, rel=0.15)


def test_temporaries_are_those_of_the_functions_that_a_runtime_calls() -> None:
    usage = {
        "embed": 1,
        "prefill": 20,
        "decode": 300,
        "batch_prefill": 4000,
        "batch_decode": 200,
        "alloc_embedding_tensor": 50000,
        "batch_verify": 600000,
    }
    record = {**llama_1b("q4f32_1"), "memory_usage": usage}
    one, several = Sizes(4096, 1024), Sizes(4096, 1024, batches=True)
    assert memory_of(record, "webgpu", one).temporaries == 321
    assert memory_of(record, "webgpu", several).temporaries == 54301
    assert not memory_of(record, "webgpu", one).about
    # A chunk of the widest input, in float32.
    assert memory_of(record, "llvm", one).temporaries == 321 + 1024 * 8192 * 4
    assert memory_of(record, "llvm", one, repacks=False).temporaries == 321


@pytest.mark.parametrize("scheme", ["q4f32_1", "q4f16_0", "q0f16"])
def test_the_widest_layer_is_found_in_each_layout(scheme: str) -> None:
    record = {**expected(TINY_LLAMA, scheme), "memory_usage": {}}
    assert memory_of(record, "llvm", Sizes(256, 100)).temporaries == 100 * 96 * 4


def test_the_window_that_fits_is_the_largest() -> None:
    record, sizes = llama_1b("q4f32_1"), Sizes(4096, 1024)
    limit = memory_of(record, "webgpu", sizes).total - 100 * MIB
    tokens = window_that_fits(record, "webgpu", sizes, limit)
    assert tokens % PAGE == 0

    def total(window: int) -> int:
        return memory_of(record, "webgpu", dataclasses.replace(sizes, tokens=window)).total

    assert total(tokens) <= limit < total(tokens + PAGE)
    assert window_that_fits(record, "webgpu", sizes, 10**12) == 4096
    assert window_that_fits(record, "webgpu", sizes, 700 * 10**6) == 0


def test_the_figures_of_an_app_config() -> None:
    small, large = (memory_of(llama_1b(scheme), "webgpu", Sizes(4096, 1024)) for scheme in ("q4f16_1", "q0f32"))
    assert web_figures(small) == {
        "vram_required_MB": round(small.total / MIB, 2),
        "low_resource_required": True,
        "buffer_size_required_bytes": 128256 * 256 * 4,
    }
    assert web_figures(large)["low_resource_required"] is False
    # WebLLM's list has these, typed by hand.
    assert web_figures(small)["vram_required_MB"] == pytest.approx(879.04, rel=0.02)
    assert web_figures(large)["vram_required_MB"] == pytest.approx(5106.26, rel=0.05)


def test_a_process_grows_by_it(tmp_path: Path) -> None:
    grows_by_what_the_record_says(BIG, "q4f32_1", 256, 128, tmp_path)


@pytest.mark.full
@pytest.mark.parametrize("scheme", ["q4f32_1", "q4f16_1", "q0f16"])
def test_a_process_grows_by_it_for_a_model_of_a_billion(scheme: str, tmp_path: Path) -> None:
    grows_by_what_the_record_says(preset("Llama-3.2-1B"), scheme, 1024, 1024, tmp_path)


def grows_by_what_the_record_says(
    source: Mapping[str, Any], scheme: str, context: int, chunk: int, place: Path
) -> None:
    """Build a library for this machine's CPU and compare the growth of a process that fills its window."""
    from llmbuild.compiler.lower import lower

    sizes = Overrides(context_window_size=context, prefill_chunk_size=chunk, max_batch_size=1)
    config = chat_config(source, scheme, sizes)
    objects = place / "objects"
    objects.mkdir()
    record = lower(
        config, SCHEMES[scheme], {}, TARGET, system_lib=False, system_lib_prefix=None, out=objects
    )  # fmt: skip
    link_shared(objects, place / "model.so")
    write_weights(place / "weights", record, config)
    grown = memory_growth.growth(place / "model.so", place / "weights", context, timeout=1500)
    use = memory_of(record, "llvm", sizes_of(record))
    assert grown == pytest.approx(use.total, rel=0.05), use
    # Without a library's record the temporaries are an estimate.
    estimate = memory_of({key: record[key] for key in record if key != "memory_usage"}, "llvm", sizes_of(record))
    assert estimate.total == pytest.approx(use.total, rel=0.1)
