"""`web`: models and libraries for WebLLM on any server of files, and a chat page where one is asked for.

    models/<model>-<scheme>-MLC/resolve/main/…      what WebLLM asks for below a record's `model`
    libs/<model>-<scheme>-<platform>.wasm           its `model_lib`
    webllm-app-config.json                          WebLLM's AppConfig, with addresses that are relative to the page
    index.html, page.css, page.js, web-llm/…        with `page = true`

Fields of a record: `ModelRecord` of WebLLM 0.2.86.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from llmbuild.canonical import Digest, Json, digest_json
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.packages.chat_page import WEB_LLM, write_page
from llmbuild.packages.kind import InputFile, Library, Member, Mistake, Out, Package, PackageKind, Platform, Use
from llmbuild.packages.memory import MemoryUse, memory_of, sizes_in, web_figures
from llmbuild.packages.model_url import url_of, wrong_url

APP_CONFIG = "webllm-app-config.json"
_TOKENIZERS = ("tokenizer.json", "tokenizer.model")
_OVERRIDDEN = ("context_window_size", "sliding_window_size", "attention_sink_size")
"""What WebLLM takes of mlc-chat-config.json, and what a platform of the manifest may have other values for."""


class Web(PackageKind):
    """WebLLM's own rules, and nothing that a server would have to be configured for."""

    name: ClassVar[str] = "web"
    options: ClassVar[frozenset[str]] = frozenset({"page", "url", "web-llm"})
    wants: ClassVar[str] = "libraries for browsers (.wasm)"

    def takes(self, platform: Platform) -> bool:
        return platform.artifact == "wasm"

    def sources(self, options: Mapping[str, Json]) -> Mapping[str, str]:
        return {"web-llm": str(options.get("web-llm", WEB_LLM))} if options.get("page") else {}

    def mistakes(self, options: Mapping[str, Json], uses: Sequence[Use]) -> Iterable[Mistake]:
        yield from wrong_url(options, uses)
        if "web-llm" in options and not options.get("page"):
            yield Mistake("only a page has WebLLM beside it", fix="add page = true, or remove web-llm", key="web-llm")
        elif not str(options.get("web-llm", WEB_LLM)).startswith("npm:"):
            yield Mistake("WebLLM is a package of npm", fix=f"write {WEB_LLM}", key="web-llm")

    def write(self, package: Package, out: Out) -> None:
        records: list[Json] = []
        for member in package.members:
            url = url_of(package.options, member.model, member.scheme)
            if url is None:
                for name, file in member.files.items():
                    out.pass_on(file, f"models/{member.model_id}/resolve/main/{name}")
            for library in member.libraries:
                place = f"libs/{member.library_name(library)}"
                out.pass_on(library.file, place)
                use = memory_of(library.metadata, library.platform.device, sizes_in(self, library.metadata))
                records.append(_record(member, library, place, url, use))
        out.write_json(APP_CONFIG, {"model_list": records})
        if package.options.get("page"):
            write_page(out, package.sources["web-llm"], elsewhere="url" in package.options)


def _record(member: Member, library: Library, place: str, url: str | None, use: MemoryUse) -> Json:
    """A `ModelRecord` with two fields more, for a page: how much is downloaded, and a digest of weights and tokenizer."""
    where = f"models/{member.model_id}/" if url is None else url
    # Each record has an id of its own.
    alone = len(member.libraries) == 1
    model_id = member.model_id if alone else f"{member.model}-{member.scheme}-{library.platform.name}-MLC"
    downloaded = _downloaded(member.files)
    return {
        "model": where,
        "model_id": model_id,
        "model_lib": place,
        **web_figures(use),
        "required_features": list(library.metadata.get("requires", [])),
        "overrides": {
            name: library.metadata[name] for name in _OVERRIDDEN if library.metadata[name] != member.config.get(name)
        },
        "integrity": {
            "config": integrity(member.files[CHAT_CONFIG].digest),
            "model_lib": integrity(library.file.digest),
            "tokenizer": {name: integrity(member.files[name].digest) for name in _TOKENIZERS if name in member.files},
        },
        "download_size_bytes": sum(file.size for file in downloaded) + library.file.size,
        "version": digest_json({file.name: file.digest for file in downloaded if file.name != CHAT_CONFIG}),
    }


def integrity(digest: Digest) -> str:
    """A SHA-256 as Subresource Integrity writes it (https://www.w3.org/TR/sri-2/)."""
    return "sha256-" + base64.b64encode(bytes.fromhex(digest)).decode()


def _downloaded(files: Mapping[str, InputFile]) -> list[InputFile]:
    """The files of a model's directory that WebLLM asks for: of the tokenizers the first."""
    tokenizers = [name for name in _TOKENIZERS if name in files][:1]
    shards = [name for name in files if name.startswith("params_shard_")]
    return [files[name] for name in (CHAT_CONFIG, *tokenizers, "tensor-cache.json", *shards)]


KIND = Web()
