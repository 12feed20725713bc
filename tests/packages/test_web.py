"""The folder for browsers: where WebLLM looks for files, and what its records say of them."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from llmbuild.errors import InputError
from llmbuild.packages import chat_page
from llmbuild.packages.folder import Folder
from llmbuild.packages.kind import InputFile, Library, Member, Package, Platform, Use
from llmbuild.packages.kinds import package_kind
from llmbuild.packages.kinds.web import APP_CONFIG

KIND = package_kind("web")
WASM = Platform("wasm32-webgpu", "wasm", "wasm32-unknown-unknown-wasm", "webgpu")
CPU = Platform("x86_64-linux-cpu", "so", "x86_64-unknown-linux-gnu", "llvm")
RECORD = {
    "context_window_size": 512,
    "sliding_window_size": -1,
    "attention_sink_size": -1,
    "prefill_chunk_size": 64,
    "max_batch_size": 4,
    "kv_cache": {"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    "params": [
        {"name": "embed.weight", "shape": [1000, 64], "dtype": "float16"},
        {"name": "layer.weight", "shape": [128, 64], "dtype": "float16"},
    ],
    "memory_usage": {"embed": 100, "prefill": 1000, "decode": 200, "batch_prefill": 9000},
    "requires": ["shader-f16"],
}
CONFIG = {"vocab_size": 1000, "context_window_size": 2048, "sliding_window_size": -1, "attention_sink_size": -1}
MODEL_FILES = {
    "mlc-chat-config.json": json.dumps(CONFIG).encode(),
    "tokenizer.json": b"{}",
    "tokenizer_config.json": b"{ }",
    "tensor-cache.json": b"[]",
    "ndarray-cache.json": b"[] ",
    "params_shard_0.bin": b"weights",
}


class Files:
    """Files of inputs, and the folder that is made of them."""

    def __init__(self, root: Path) -> None:
        self.inputs, self.out = root / "inputs", root / "out"
        self.inputs.mkdir()
        self.out.mkdir()

    def add(self, name: str, data: bytes) -> InputFile:
        path = self.inputs / hashlib.sha256(data).hexdigest()
        path.write_bytes(data)
        return InputFile("input", name, path, path.name, len(data))

    def member(self, model: str = "tiny", scheme: str = "q4f16_1", platforms: Sequence[Platform] = (WASM,)) -> Member:
        files = {name: self.add(name, data) for name, data in MODEL_FILES.items()}
        libraries = [
            Library(one, self.add("library.wasm", f"{model} {one.name}".encode()), RECORD) for one in platforms
        ]
        return Member(model, scheme, CONFIG, files, libraries)

    def write(self, package: Package) -> Mapping[str, bytes]:
        """The folder's files."""
        known = {path.name: path for path in self.inputs.iterdir()}
        by_name = {
            (file.source, file.name): file
            for member in package.members
            for file in [*member.files.values(), *(one.file for one in member.libraries)]
        } | {(file.source, file.name): file for source in package.sources.values() for file in source.values()}

        def pass_on(source: str, name: str, to: str) -> None:
            place = self.out / to
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(known[by_name[source, name].digest].read_bytes())

        KIND.write(package, Folder(self.out, pass_on))
        return {p.relative_to(self.out).as_posix(): p.read_bytes() for p in self.out.rglob("*") if p.is_file()}


WEB_LLM = b"""class Engine {}
export { Engine as MLCEngine };
export async function hasModelInCache() {}
"""
"""What the page takes of WebLLM, in two of the ways that a module exports."""


@pytest.fixture
def files(tmp_path: Path) -> Files:
    return Files(tmp_path)


def records(written: Mapping[str, bytes]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(written[APP_CONFIG])["model_list"]
    return found


def sri(data: bytes) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(data).digest()).decode()


def test_the_folder_and_its_record(files: Files) -> None:
    written = files.write(Package({}, [files.member()]))
    library = "libs/tiny-q4f16_1-wasm32-webgpu.wasm"
    assert set(written) == {
        APP_CONFIG,
        library,
        *(f"models/tiny-q4f16_1-MLC/resolve/main/{name}" for name in MODEL_FILES),
    }
    (record,) = records(written)
    weights = (1000 * 64 + 128 * 64) * 2
    pages = (512 // 16 + 1) * 2 * 2 * 16 * 16 * 2
    assert record.pop("vram_required_MB") > (weights + 2 * pages + 1300) / 2**20
    # TVM's mask of a tree of tokens is larger than the embedding and the pages of a layer here.
    assert record.pop("buffer_size_required_bytes") == max(1000 * 64 * 2, pages, 256 * 256 * 4)
    downloaded = ("mlc-chat-config.json", "tokenizer.json", "tensor-cache.json", "params_shard_0.bin")
    size = sum(len(MODEL_FILES[name]) for name in downloaded) + len(written[library])
    assert record.pop("download_size_bytes") == size
    assert re.fullmatch("[0-9a-f]{64}", record.pop("version"))
    assert record == {
        "model": "models/tiny-q4f16_1-MLC/",
        "model_id": "tiny-q4f16_1-MLC",
        "model_lib": library,
        "low_resource_required": True,
        "required_features": ["shader-f16"],
        "overrides": {"context_window_size": 512},
        "integrity": {
            "config": sri(MODEL_FILES["mlc-chat-config.json"]),
            "model_lib": sri(written[library]),
            "tokenizer": {"tokenizer.json": sri(b"{}")},
        },
    }


def test_two_libraries_of_a_model_share_its_files(files: Files) -> None:
    other = Platform("small", "wasm", WASM.triple, "webgpu")
    written = files.write(Package({}, [files.member(platforms=[WASM, other]), files.member("second")]))
    ids = [(record["model_id"], record["model"]) for record in records(written)]
    assert ids == [
        ("tiny-q4f16_1-wasm32-webgpu-MLC", "models/tiny-q4f16_1-MLC/"),
        ("tiny-q4f16_1-small-MLC", "models/tiny-q4f16_1-MLC/"),
        ("second-q4f16_1-MLC", "models/second-q4f16_1-MLC/"),
    ]
    assert len({record["version"] for record in records(written)}) == 1


def test_models_at_an_address_of_their_own(files: Files) -> None:
    url = "https://huggingface.co/org/{model}-{quantization}-MLC"
    page = {"index.js": files.add("index.js", WEB_LLM)}
    written = files.write(Package({"url": url, "page": True}, [files.member()], sources={"web-llm": page}))
    assert not [name for name in written if name.startswith("models/")]
    assert records(written)[0]["model"] == "https://huggingface.co/org/tiny-q4f16_1-MLC"
    assert b"connect-src 'self' https:;" in written["index.html"]


@pytest.mark.parametrize(
    ("name", "module", "why"),
    [
        ("index.js", b"module.exports = leftPad", "exports no hasModelInCache or MLCEngine"),
        ("index.js", b"export{a as MLCEngine}", "exports no hasModelInCache"),
        ("main.js", WEB_LLM, "it has no module 'index.js'"),
    ],
)
def test_a_package_that_is_not_webllm(files: Files, name: str, module: bytes, why: str) -> None:
    package = Package({"page": True}, [files.member()], sources={"web-llm": {name: files.add(name, module)}})
    with pytest.raises(InputError, match="the chat page cannot work with this package") as caught:
        files.write(package)
    assert why in str(caught.value)
    assert 'write web-llm = "npm:@mlc-ai/web-llm==' in str(caught.value)


def test_the_page(files: Files) -> None:
    page = {"index.js": files.add("index.js", WEB_LLM), "LICENSE": files.add("LICENSE", b"Apache")}
    written = files.write(Package({"page": True}, [files.member()], sources={"web-llm": page}))
    assert {"index.html", "page.css", "page.js", "web-llm/index.js", "web-llm/LICENSE"} <= set(written)
    html, script = written["index.html"].decode(), written["page.js"].decode()
    assert "connect-src 'self';" in html
    assert "default-src 'none'" in html
    # What the page names is there, and nothing of it is elsewhere.
    named = re.findall(r'(?:src|href)="([^"]*)"', html) + re.findall(r'import\("\./([^"]*)"\)', script)
    assert {name for name in named if not name.startswith("data:")} <= set(written)
    assert APP_CONFIG in script
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg|localhost)\w", html + script)
    # What the script looks for, the page has.
    assert set(re.findall(r'at\("([\w-]+)"\)', script)) <= set(re.findall(r'id="([\w-]+)"', html))


def test_a_page_is_made_of_web_llm() -> None:
    assert KIND.sources({"page": True}) == {"web-llm": chat_page.WEB_LLM}
    assert KIND.sources({"page": True, "web-llm": "npm:@mlc-ai/web-llm==0.2.87"}) == {
        "web-llm": "npm:@mlc-ai/web-llm==0.2.87"
    }
    assert KIND.sources({"page": False}) == KIND.sources({}) == {}


def test_only_libraries_for_browsers() -> None:
    assert KIND.takes(WASM)
    assert not KIND.takes(CPU)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"url": "models"}, "by https only"),
        ({"url": "https://[::1/x"}, "Invalid IPv6 URL"),
        ({"url": "https://host/{name}"}, "{name} stands for nothing"),
        ({"url": "https://host/{model.real}"}, "{model.real} stands for nothing"),
        ({"url": "https://host/{model}-{quantization}?x=1"}, "append to its path"),
        ({"url": "https://me:pw@host/{model}-{quantization}"}, "no credentials"),
        ({"url": "http://host/{model}-{quantization}"}, "by https only"),
        ({"url": "https://host/{model}-{quantization}/resolve/main/"}, "append /resolve/main themselves"),
        ({"url": "https://host/{model}"}, "have the same URL"),
        ({"web-llm": "npm:@mlc-ai/web-llm==0.2.86"}, "only a page has WebLLM beside it"),
        ({"web-llm": "hf:org/name", "page": True}, "WebLLM is a package of npm"),
    ],
)
def test_mistakes(options: dict[str, Any], said: str) -> None:
    uses = [Use("tiny", "q4f16_1", WASM), Use("tiny", "q4f32_1", WASM)]
    (mistake,) = KIND.mistakes(options, uses)
    assert said in f"{mistake.what} {mistake.why}"
    assert "me:pw" not in mistake.what
    assert mistake.key == next(iter(options))


def test_no_mistakes() -> None:
    uses = [Use("tiny", "q4f16_1", WASM)]
    url = "https://host/{model}-{quantization}-MLC"
    assert list(KIND.mistakes({"url": url, "page": True, "web-llm": chat_page.WEB_LLM}, uses)) == []
    assert list(KIND.mistakes({"url": "https://host/one-model"}, uses)) == []
