"""Packages for phones: what is wrong in a manifest is said at its line, and the applications' list is as they read it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Digest, Json
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.manifest.load import load_project
from llmbuild.packages.kind import InputFile, Library, Member, Package, Platform
from llmbuild.packages.kinds import package_kind
from llmbuild.packages.phone import Phone

MANIFEST = """\
[models]
smol = { source = "hf:o/smol", model-type = "llama", conv-template = "chatml" }
qwen = { source = "hf:o/qwen", model-type = "qwen2", conv-template = "chatml" }

[platforms.iphone]
target = "aarch64-ios-metal"
PREFIX

[platforms.mac]
target = "aarch64-macabi-metal"

[platforms.adreno]
target = "aarch64-android-adreno"

[[build]]
models = ["smol", "qwen"]
quantizations = ["q4f16_1"]
platforms = ["iphone", "mac", "adreno", "aarch64-android-opencl", "x86_64-linux-cpu"]

[package.ios]
IOS

[package.android]
ANDROID
"""
URL = 'url = "https://huggingface.co/o/{model}-{quantization}-MLC"'


def manifest(prefix: str = "", ios: str = 'platforms = ["iphone"]', android: str = 'platforms = ["adreno"]') -> str:
    return MANIFEST.replace("PREFIX", prefix).replace("IOS", ios).replace("ANDROID", android)


def error_of(text: str, directory: Path) -> str:
    path = directory / "buildfile.toml"
    path.write_text(text)
    with pytest.raises(LlmbuildError) as caught:
        load_project(path)
    return str(caught.value).replace(f"{directory}/", "")


def test_what_packages_take(tmp_path: Path) -> None:
    path = tmp_path / "buildfile.toml"
    path.write_text(manifest(android='platforms = ["aarch64-android-opencl"]'))
    packages = load_project(path).packages
    assert [(one.model, one.platform, one.archive) for one in packages["ios"].libraries] == [
        ("smol", "iphone", ""),
        ("qwen", "iphone", ""),
    ]
    assert {one.archive for one in packages["android"].libraries} == {"arm64-v8a"}


WRONG: Mapping[str, tuple[Mapping[str, str], str]] = {
    "a prefix without its underscore": (
        {"prefix": 'system-lib-prefix = "{model}_{quantization}"'},
        "buildfile.toml:7: platforms.iphone.system-lib-prefix: the libraries of platform 'iphone' have the prefix "
        "'{model}_{quantization}', by which MLC's applications do not find them",
    ),
    "no prefix": (
        {"prefix": 'system-lib-prefix = ""'},
        "buildfile.toml:7: platforms.iphone.system-lib-prefix: the libraries of platform 'iphone' have no prefix, "
        "by which MLC's applications do not find them",
    ),
    "two systems": (
        {"ios": ""},
        "buildfile.toml:20: package.ios: the platforms iphone and mac do not go into one libmodel_iphone.a",
    ),
    "a model twice": (
        {"android": ""},
        "buildfile.toml:23: package.android: 'smol, q4f16_1' would be in libmodel_android.a twice",
    ),
    "weights elsewhere without a URL": (
        {"ios": 'platforms = ["iphone"]\nweights = "url"'},
        "buildfile.toml:22: package.ios.weights: nothing says where the weights are",
    ),
    "weights of an unknown model": (
        {"ios": f'platforms = ["iphone"]\nweights = {{ smoll = "url" }}\n{URL}'},
        "buildfile.toml:22: package.ios.weights: the package has no model 'smoll' whose weights could be elsewhere",
    ),
    "another place of weights": (
        {"ios": 'platforms = ["iphone"]\nweights = "cloud"'},
        "buildfile.toml:22: package.ios.weights",
    ),
    "a placeholder": (
        {"ios": 'platforms = ["iphone"]\nurl = "https://o.example/{scheme}"'},
        "buildfile.toml:22: package.ios.url: 'https://o.example/{scheme}' cannot be the URL of the models",
    ),
    "an open brace": (
        {"ios": 'platforms = ["iphone"]\nurl = "https://o.example/{model"'},
        "package.ios.url: 'https://o.example/{model' cannot be the URL of the models",
    ),
    "http": (
        {"ios": 'platforms = ["iphone"]\nurl = "http://o.example/{model}"'},
        "package.ios.url: 'http://o.example/{model}' cannot be the URL of the models",
    ),
    "a query": (
        {"ios": 'platforms = ["iphone"]\nurl = "https://o.example/{model}?x=1"'},
        "package.ios.url: 'https://o.example/{model}' cannot be the URL of the models",
    ),
    "the applications' own part": (
        {"ios": 'platforms = ["iphone"]\nurl = "https://o.example/{model}/resolve/main/"'},
        "package.ios.url: 'https://o.example/{model}/resolve/main/' cannot be the URL of the models",
    ),
    "one URL for all": (
        {"ios": 'platforms = ["iphone"]\nurl = "https://o.example/{quantization}"'},
        "package.ios.url: 'smol, q4f16_1' and 'qwen, q4f16_1' have the same URL",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_manifest(name: str, tmp_path: Path) -> None:
    changes, message = WRONG[name]
    assert message in error_of(manifest(**changes), tmp_path)


def test_prefixes_of_two_processors_must_be_the_same(tmp_path: Path) -> None:
    targets = tmp_path / "targets"
    targets.mkdir()
    (targets / "emulator.toml").write_text(
        '[target]\nname = "emulator"\nextends = "aarch64-android-opencl"\n[host]\ntriple = "x86_64-linux-android"\n'
    )
    text = manifest(android='platforms = ["adreno", "emulator"]').replace('"x86_64-linux-cpu"', '"emulator"')
    (tmp_path / "buildfile.toml").write_text(text)
    found = load_project(tmp_path / "buildfile.toml").packages["android"]
    assert {one.archive for one in found.libraries} == {"arm64-v8a", "x86_64"}
    other = '[platforms.emulator]\nsystem-lib-prefix = "emulator_{model}_"\n\n[[build]]'
    message = error_of(text.replace("[[build]]", other), tmp_path)
    assert "platforms.emulator.system-lib-prefix: the platforms adreno and emulator have different prefixes" in message
    assert 'system-lib-prefix = "{model_type}_{quantization}_"' in message


RECORD: Mapping[str, Any] = {
    "model_type": "llama",
    "quantization": "q4f16_1",
    "context_window_size": 512,
    "sliding_window_size": -1,
    "attention_sink_size": -1,
    "prefill_chunk_size": 32,
    "max_batch_size": 4,
    "params": [
        {"name": "model.embed_tokens.weight", "shape": [160, 64], "dtype": "float16"},
        {"name": "model.layers.0.mlp.gate_up_proj.weight", "shape": [192, 64], "dtype": "float16"},
    ],
    "kv_cache": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "memory_usage": {"prefill": 1000, "decode": 100, "batch_prefill": 1500, "batch_decode": 100},
    "system_lib_prefix": "llama_q4f16_1_",
}
METAL = Platform("iphone", "tar", "arm64-apple-ios17.0.0", "metal", "{model_type}_{quantization}_")
OPENCL = Platform("adreno", "tar", "aarch64-linux-android", "opencl", "{model_type}_{quantization}_")


class Written:
    """Remembers what a kind writes."""

    def __init__(self) -> None:
        self.files: dict[str, str] = {}

    def pass_on(self, file: InputFile, name: str) -> None:
        self.files[name] = file.name

    def write(self, name: str, text: str) -> None:
        self.files[name] = text

    def write_json(self, name: str, value: Json) -> None:
        self.write(name, json.dumps(value))


def file(name: str) -> InputFile:
    return InputFile("input", name, Path("nowhere") / name, Digest("0" * 64), 1)


def written(kind: str, options: Mapping[str, Json], record: Mapping[str, Any] = RECORD) -> Mapping[str, str]:
    phone = package_kind(kind)
    assert isinstance(phone, Phone)
    platform = METAL if kind == "ios" else OPENCL
    members = [
        Member(
            model,
            "q4f16_1",
            {},
            {"mlc-chat-config.json": file("mlc-chat-config.json"), "params_shard_0.bin": file("params_shard_0.bin")},
            [Library(platform, file("lib.tar"), {**record, "system_lib_prefix": f"{model}_q4f16_1_", **over})],
        )
        for model, over in (("smol", {}), ("qwen", {"context_window_size": 1024}))
        for over in [{**over, **({} if "system_lib_prefix" in record else {"system_lib_prefix": None})}]
    ]
    out = Written()
    phone.write(Package(options, members, {phone.archive(platform): file("lib.a")}), out)
    return out.files


def entries(files: Mapping[str, str]) -> list[dict[str, Any]]:
    (key,) = json.loads(files["bundle/mlc-app-config.json"]).items()
    assert key[0] == "model_list"
    found: list[dict[str, Any]] = key[1]
    return found


def test_an_ios_package_with_its_weights() -> None:
    files = written("ios", {})
    assert set(files) == {
        "bundle/mlc-app-config.json",
        *(f"bundle/{model}-q4f16_1-MLC/{name}" for model in ("smol", "qwen") for name in FILES),
        "lib/libmodel_iphone.a",
    }
    first, second = entries(files)
    assert list(first) == ["model_id", "model_lib", "model_path", "estimated_vram_bytes"]
    assert {**first, "estimated_vram_bytes": 0} == {
        "model_id": "smol-q4f16_1-MLC",
        "model_lib": "smol_q4f16_1",
        "model_path": "smol-q4f16_1-MLC",
        "estimated_vram_bytes": 0,
    }
    # 512 tokens more: 32 pages of 16 tokens, K and V of 2 heads of 16 numbers of two bytes, in 2 layers.
    more = second["estimated_vram_bytes"] - first["estimated_vram_bytes"]
    assert 0 <= more - 32 * 16 * 2 * 2 * 16 * 2 * 2 < 1024  # The rest says where the pages are.
    # The weights, and a cache of 33 pages of 4096 bytes in 2 layers.
    assert first["estimated_vram_bytes"] > (160 + 192) * 64 * 2 + 2 * 33 * 4096


FILES = ("mlc-chat-config.json", "params_shard_0.bin")


def test_an_ios_package_whose_application_downloads_one_models_weights() -> None:
    options: dict[str, Json] = {"weights": {"qwen": "url"}, "url": "https://hub.example/o/{model}-{quantization}-MLC/"}
    files = written("ios", options)
    first, second = entries(files)
    assert first["model_path"] == "smol-q4f16_1-MLC" and "model_url" not in first
    assert second["model_url"] == "https://hub.example/o/qwen-q4f16_1-MLC" and "model_path" not in second
    assert [name for name in files if "qwen" in name] == []


def test_an_android_package_has_a_url_for_each_model() -> None:
    """The application's reader has no model_path, and its model_url must not be missing."""
    files = written("android", {})
    assert "lib/arm64-v8a/libmodel_android.a" in files
    for entry in entries(files):
        assert list(entry) == ["model_id", "model_lib", "model_url", "estimated_vram_bytes"]
        assert entry["model_url"] == entry["model_id"]
        assert f"bundle/{entry['model_id']}/params_shard_0.bin" in files
    files = written("android", {"weights": "url", "url": "https://hub.example/{model}-{quantization}"})
    assert [entry["model_url"] for entry in entries(files)] == [
        "https://hub.example/smol-q4f16_1",
        "https://hub.example/qwen-q4f16_1",
    ]
    assert set(files) == {"bundle/mlc-app-config.json", "lib/arm64-v8a/libmodel_android.a"}


def test_a_record_without_a_prefix() -> None:
    with pytest.raises(InputError, match="no prefix that MLC's applications find"):
        written("ios", {}, {key: value for key, value in RECORD.items() if key != "system_lib_prefix"})
