"""Number types, device features and prefixes over the matrix: what is accepted, what is noted, and the ways out of a clash."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.errors import UsageError
from llmbuild.manifest.load import Loaded, load
from llmbuild.quantization.scheme import SCHEMES

LLAMA = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
MISTRAL = {"architectures": ["MistralForCausalLM"], "model_type": "mistral"}


def project(place: Path, configs: dict[str, dict[str, object] | None], rest: str) -> Loaded:
    """A manifest with a model of each configuration; None is a model whose type nothing says before it is fetched."""
    text = ""
    for name, config in configs.items():
        source = f"hf:org/{name}" if config is None else name
        text += f'[models.{name}]\nsource = "{source}"\nconv-template = "chatml"\n'
        if config is not None:
            (place / name).mkdir()
            (place / name / "config.json").write_text(json.dumps(config))
    return load(place / "buildfile.toml", text + rest)


def build(platform: str, *schemes: str) -> str:
    return f"[[build]]\nquantizations = {json.dumps(schemes)}\nplatforms = [{json.dumps(platform)}]\n"


def test_the_default_prefix_of_a_phone(tmp_path: Path) -> None:
    loaded = project(tmp_path, {"a": LLAMA, "b": MISTRAL}, build("aarch64-ios-metal", "q4f16_1", "q4f32_1"))
    platform = loaded.project.platforms["aarch64-ios-metal"]
    assert (platform.artifact, platform.system_lib_prefix) == ("tar", "{model_type}_{quantization}_")
    assert str(tmp_path / "a/config.json") in [read.path for read in loaded.reads]


@pytest.mark.parametrize("target", ["aarch64-ios-metal", "aarch64-macabi-metal", "aarch64-android-opencl"])
def test_two_models_of_one_type_clash_on_a_phone(tmp_path: Path, target: str) -> None:
    with pytest.raises(UsageError, match="are archives with the prefix 'llama_q4f16_1_'") as caught:
        project(tmp_path, {"a": LLAMA, "b": LLAMA}, build(target, "q4f16_1"))
    assert caught.value.fix is not None
    assert '"{model}_{quantization}_"' in caught.value.fix


def test_the_way_out_that_the_message_names(tmp_path: Path) -> None:
    own = '[platforms.ios]\ntarget = "aarch64-ios-metal"\nsystem-lib-prefix = "{model}_{quantization}_"\n'
    loaded = project(tmp_path, {"a": LLAMA, "b": LLAMA}, own + build("ios", "q4f16_1", "q4f32_1"))
    assert loaded.project.platforms["ios"].system_lib_prefix == "{model}_{quantization}_"


@pytest.mark.parametrize("content", ["[1]", "[" * 100_000, '{"model_type": "\\ud800"}', '{"architectures": 5}', "\xff"])
def test_a_configuration_that_is_none_is_left_to_the_task_that_reads_it(tmp_path: Path, content: str) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "config.json").write_text(content)
    other = '[models.b]\nsource = "b"\nconv-template = "chatml"\n'
    assert "model-type" in str(project(tmp_path, {"a": LLAMA}, other + build("aarch64-ios-metal", "q4f16_1")).notes)


def test_a_preset_has_a_type(tmp_path: Path) -> None:
    preset = '[models.p]\npreset = "Llama-2-7B"\n'
    with pytest.raises(UsageError, match="prefix 'llama_q4f16_1_'"):
        project(tmp_path, {"a": LLAMA}, preset + build("aarch64-ios-metal", "q4f16_1"))


def test_a_type_that_is_not_known_yet_is_noted(tmp_path: Path) -> None:
    loaded = project(tmp_path, {"a": LLAMA, "b": None}, build("aarch64-ios-metal", "q4f16_1"))
    [note] = [note for note in loaded.notes if "same prefix" in note]
    assert "models.b is; write model-type there" in note


def test_one_library_needs_no_type(tmp_path: Path) -> None:
    loaded = project(tmp_path, {"a": None}, build("aarch64-ios-metal", "q4f16_1"))
    assert not any("prefix" in note for note in loaded.notes)


def test_shared_libraries_never_clash(tmp_path: Path) -> None:
    loaded = project(tmp_path, {"a": LLAMA, "b": LLAMA}, build("aarch64-android-adreno-so", "q4f16_1"))
    assert loaded.project.platforms["aarch64-android-adreno-so"].system_lib_prefix is None


def test_a_wasm_library_has_no_prefix_and_says_so(tmp_path: Path) -> None:
    own = '[platforms.web]\ntarget = "wasm32-webgpu"\nsystem-lib-prefix = "x_"\n'
    loaded = project(tmp_path, {"a": LLAMA, "b": LLAMA}, own + build("web", "q4f16_1", "q4f32_1"))
    assert loaded.project.platforms["web"].system_lib_prefix == ""
    assert any("system-lib-prefix takes no effect" in note for note in loaded.notes)


def test_activations_are_a_matter_of_cpus(tmp_path: Path) -> None:
    own = (
        '[platforms.web]\ntarget = "wasm32-webgpu"\nactivations = "int8"\n'
        '[platforms.small]\ntarget = "x86_64-linux-cpu"\nactivations = "int8"\n'
    )
    loaded = project(
        tmp_path, {"a": LLAMA}, own + build("web", "q4f32_1") + build("small", "q4f32_1") + build("host", "q4f32_1")
    )
    found = {name: platform.activations for name, platform in loaded.project.platforms.items()}
    assert found == {"web": None, "small": "int8", "host": "int8x2"}
    assert any("platforms.web: activations takes no effect on webgpu; it is for CPUs" in note for note in loaded.notes)


def test_features_are_noted_for_the_schemes_that_need_them(tmp_path: Path) -> None:
    loaded = project(tmp_path, {"a": LLAMA}, build("wasm32-webgpu", "q4f16_1", "q4f32_1", "q0f16"))
    assert [note for note in loaded.notes if "shader-f16" in note] == [
        "platforms.wasm32-webgpu: q4f16_1 and q0f16 in float16: the device that runs the library must have shader-f16"
    ]


def test_a_note_about_several_platforms_is_one_line(tmp_path: Path) -> None:
    matrix = (
        build("x86_64-linux-opencl", "q4f16_1")
        + build("aarch64-linux-mali", "q4f16_1")
        + build("wasm32-webgpu", "q4f16_1")
    )
    need = "q4f16_1 in float16: the device that runs the library must have"
    assert project(tmp_path, {"a": LLAMA}, matrix).notes == (
        f"platforms.x86_64-linux-opencl, platforms.aarch64-linux-mali: {need} cl_khr_fp16",
        f"platforms.wasm32-webgpu: {need} shader-f16",
    )


@pytest.mark.parametrize("key", ["tensor-parallel-shards", "pipeline-parallel-stages"])
@pytest.mark.parametrize("target", ["x86_64-linux-cuda", "x86_64-linux-rocm", "x86_64-linux-cpu"])
def test_a_model_is_not_split_between_devices(tmp_path: Path, target: str, key: str) -> None:
    with pytest.raises(UsageError, match=rf"{key} 2 (is not built yet|needs several GPUs)") as caught:
        project(tmp_path, {"a": LLAMA}, f"[metadata]\n{key} = 2\n" + build(target, "q4f16_1"))
    assert str(caught.value.where).endswith(f"metadata.{key}")
    # No other platform takes it, so that excluding one is no advice.
    assert caught.value.fix == f"set {key} = 1, or remove it"


def test_schemes_that_a_cpu_has_no_kernels_for_are_noted(tmp_path: Path) -> None:
    assert all(scheme.has_cpu_kernels for scheme in SCHEMES.values())
    own = "".join(f'[quantizations.small{size}]\nbase = "q4f16_1"\ngroup-size = {size}\n' for size in (8, 16, 64))
    schemes = ("q0f32", "q4f32_1", "q4f16_0", "q3f16_1", "q4f16_awq", "small8", "small16", "small64")
    matrix = own + build("x86_64-linux-cpu", *schemes) + build("x86_64-linux-cuda", "small8")
    (note,) = (note for note in project(tmp_path, {"a": LLAMA}, matrix).notes if "kernel" in note)
    assert note.startswith(
        "platforms.x86_64-linux-cpu: small8 and small16: no kernel of llmbuild for CPUs reads groups"
    )


def cell_metadata(loaded: Loaded) -> dict[str, object]:
    (cell,) = loaded.project.matrix
    model, platform = loaded.project.models[cell.model], loaded.project.platforms[cell.platform]
    return {**model.metadata, **platform.metadata, **cell.metadata}


@pytest.mark.parametrize(
    ("target", "chunk"),
    [
        ("wasm32-webgpu", 1024),
        ("aarch64-ios-metal", 512),
        ("aarch64-android-opencl", 512),
        ("aarch64-android-adreno", 512),
        ("aarch64-android-adreno-so", 512),
        ("aarch64-macabi-metal", None),
        ("x86_64-linux-cuda", None),
    ],
)
def test_browsers_and_phones_have_sizes_of_their_own(tmp_path: Path, target: str, chunk: int | None) -> None:
    found = cell_metadata(project(tmp_path, {"a": LLAMA}, build(target, "q4f16_1")))
    assert found == ({} if chunk is None else {"prefill-chunk-size": chunk, "max-batch-size": 1})


def test_the_manifest_wins_over_the_sizes_of_a_target(tmp_path: Path) -> None:
    own = "[metadata]\nprefill-chunk-size = 2048\n[platforms.web]\ntarget = 'wasm32-webgpu'\nmetadata = { max-batch-size = 4 }\n"
    found = cell_metadata(project(tmp_path, {"a": LLAMA}, own + build("web", "q4f16_1")))
    assert found == {"prefill-chunk-size": 2048, "max-batch-size": 4}


def test_a_default_chunk_is_no_larger_than_the_window(tmp_path: Path) -> None:
    from llmbuild.models.family import Overrides
    from llmbuild.models.registry import family
    from tests.helpers.checkpoints import CONFIGS

    small = "[metadata]\ncontext-window-size = 256\n"
    found = cell_metadata(project(tmp_path, {"a": LLAMA}, small + build("wasm32-webgpu", "q4f16_1")))
    values = {key.replace("-", "_"): value for key, value in found.items()}
    config = family("llama").configure({**CONFIGS["llama"], "max_position_embeddings": 4096}, Overrides(**values))  # type: ignore[arg-type]
    assert (config.context_window_size, config.prefill_chunk_size, config.max_batch_size) == (256, 256, 1)


def test_subgroups_are_required_where_kernels_use_them(tmp_path: Path) -> None:
    own = '[platforms.web]\ntarget = "wasm32-webgpu"\ndevice = { supports_subgroups = true }\n'
    loaded = project(tmp_path, {"a": LLAMA}, own + build("web", "q4f16_1", "q4f32_1"))
    features = loaded.project.platforms["web"].features
    assert features == {"float16": ["shader-f16", "subgroups"], "float32": ["subgroups"]}
    need = "the device that runs the library must have"
    assert loaded.notes == (
        f"platforms.web: q4f16_1 in float16: {need} shader-f16 and subgroups",
        f"platforms.web: q4f32_1 in float32: {need} subgroups",
    )


def test_a_limit_that_no_runtime_asks_a_device_for_is_noted(tmp_path: Path) -> None:
    own = '[platforms.web]\ntarget = "wasm32-webgpu"\ndevice = { max_shared_memory_per_block = 65536, max_num_threads = 512 }\n'
    (note,) = project(tmp_path, {"a": LLAMA}, own + build("web", "q4f32_1")).notes
    assert note.startswith(
        "platforms.web: the runtimes ask a webgpu device for max_shared_memory_per_block 32768 at most"
    )


def test_a_named_flag_without_effect_is_noted(tmp_path: Path) -> None:
    own = '[platforms.gpu]\ntarget = "x86_64-linux-cuda"\nopt = "O2;cutlass=1;cudagraph=1"\n'
    (note,) = project(tmp_path, {"a": LLAMA}, own + build("gpu", "q4f16_1")).notes
    assert note == "platforms.gpu: opt: cutlass was asked for and has no effect: no TVM on PyPI has its library"


def test_a_platform_chooses_architectures(tmp_path: Path) -> None:
    own = '[platforms.gpu]\ntarget = "x86_64-linux-cuda"\ndevice = { archs = ["sm_100", "sm_90a"] }\n'
    compiled = project(tmp_path, {"a": LLAMA}, own + build("gpu", "q4f16_1")).project.platforms["gpu"].compile
    assert compiled["archs"] == ["sm_90a", "sm_100"]
    assert isinstance(compiled["device"], dict)
    assert compiled["device"]["arch"] == "sm_90a"


def test_an_architecture_may_be_named_as_tvm_does(tmp_path: Path) -> None:
    own = '[platforms.gpu]\ntarget = "x86_64-linux-cuda"\ndevice = { arch = "sm_89" }\n'
    compiled = project(tmp_path, {"a": LLAMA}, own + build("gpu", "q4f16_1")).project.platforms["gpu"].compile
    assert compiled["archs"] == ["sm_89"]
