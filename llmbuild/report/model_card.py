"""The model card of a publication: what the model is, what is beside it, where it came from, how it is used.

A card holds only what is known.  It is the same at every destination.  The fields of its head are those of
https://huggingface.co/docs/hub/model-cards; a JSON text is a YAML scalar.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from llmbuild.packages.memory import MemoryUse
from llmbuild.publishing.kind import CHECKSUMS, Facts
from llmbuild.report.memory_text import figures
from llmbuild.report.units import size

_HUB = re.compile(r"pkg:huggingface/([^@]+)@(.+)")


@dataclass(frozen=True, slots=True)
class Library:
    """A library: its path in the publication, its platform, the target and the device of that (as MLC's engine calls it), the
    tokens of its window, and the memory that it needs for one conversation of so many (None where that is not known)."""

    path: str
    platform: str
    target: str
    device: str
    tokens: int = 0
    use: MemoryUse | None = None


@dataclass(frozen=True, slots=True)
class Card:
    """What a card is made of.  `source` is the universal name of the checkpoint, `config` mlc-chat-config.json, `nbytes` the
    bytes of the shards of weights, `statements` the paths of the provenance statements, `overrides` what has other bits than
    most weights."""

    facts: Facts
    source: str | None
    config: Mapping[str, Any]
    nbytes: int
    libraries: tuple[Library, ...]
    statements: tuple[str, ...]
    overrides: tuple[str, ...] = ()


def model_card(card: Card) -> str:
    """The text of README.md."""
    name = f"{card.facts.model}-{card.facts.scheme}-MLC"
    parts = [
        "\n".join(_head(card)),
        f"# {name}",
        f"The model {_code(card.facts.model)} in the format of [MLC LLM](https://llm.mlc.ai) and "
        "[WebLLM](https://webllm.mlc.ai), built with llmbuild.",
        "\n".join(_table("| | |", _about(card))),
        "\n".join(_libraries(card)),
        "\n".join(_origin(card)),
        "\n".join(_use(card, name)),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(card: Card) -> Iterator[str]:
    yield "---"
    yield "library_name: mlc-llm"
    yield "pipeline_tag: text-generation"
    if (base := _base(card)) is not None:
        yield f"base_model: {json.dumps(base)}"
        yield "base_model_relation: quantized"
    if card.facts.license is not None:
        yield f"license: {json.dumps(card.facts.license)}"
    yield 'tags: ["mlc-llm", "web-llm", "llmbuild"]'
    yield "---"


def _base(card: Card) -> str | None:
    found = _HUB.fullmatch(card.source or "")
    return None if found is None else found[1]


def _about(card: Card) -> Iterator[tuple[str, str]]:
    facts, config = card.facts, card.config
    yield "quantization", _code(facts.scheme)
    if card.overrides:
        yield "in other bits", "; ".join(map(_code, card.overrides))
    if facts.family is not None:
        yield "architecture", _code(facts.family)
    if facts.parameters is not None:
        yield "parameters", f"{facts.parameters:,}"
    yield "weights", f"{size(card.nbytes)} to download"
    if facts.precision is not None:
        yield "computes in", facts.precision
    template = config.get("conv_template")
    if isinstance(template, dict) and isinstance(template.get("name"), str):
        yield "conversation template", _code(template["name"])
    for key, label in (
        ("context_window_size", "context window"),
        ("sliding_window_size", "sliding window"),
        ("prefill_chunk_size", "prefill chunk"),
    ):
        value = config.get(key)
        if isinstance(value, int) and value > 0:
            yield label, f"{value} tokens"


def _table(head: str, rows: Iterable[Sequence[str]]) -> Iterator[str]:
    yield head
    yield "|" + "---|" * (head.count("|") - 1)
    for cells in rows:
        yield f"| {' | '.join(cells)} |"


def _libraries(card: Card) -> Iterator[str]:
    if not card.libraries:
        return
    yield "## Libraries"
    yield ""
    rows = [(_code(one.path), _code(one.platform), _code(one.target)) for one in card.libraries]
    yield from _table("| file | platform | target |", rows)
    known = [
        (_code(one.platform), f"{one.tokens} tokens", figures(one.use)) for one in card.libraries if one.use is not None
    ]
    if not known:
        return
    yield ""
    yield "Memory on the device for one conversation with a full window: the weights, the KV cache, and the temporaries of the"
    yield "library's functions."
    yield ""
    yield from _table("| platform | window | memory |", known)


def _origin(card: Card) -> Iterator[str]:
    yield "## Provenance"
    yield ""
    if card.source is not None:
        yield f"The weights were made from {_code(card.source)}."
    else:
        yield "The weights were made from files of the publisher; the statements have their digests."
    yield f"Each result has a statement of what it was made from (in-toto, SLSA provenance v1), and `{CHECKSUMS}` the SHA-256 of"
    yield f"every file, which `sha256sum -c {CHECKSUMS}` checks."
    yield ""
    rows = [(_code(path), _code(PurePosixPath(path).name.removesuffix(".intoto.json"))) for path in card.statements]
    yield from _table("| statement | of |", rows)


def _use(card: Card, name: str) -> Iterator[str]:
    yield "## Use"
    yield ""
    native = next((one for one in card.libraries if one.path.endswith((".so", ".dylib", ".dll"))), None)
    machine = "" if native is None else f" on {native.target}"
    yield f"With MLC LLM's Python package{machine}, where this repository was downloaded to a folder:"
    yield ""
    yield "```python"
    yield "from mlc_llm import MLCEngine"
    yield ""
    if native is None:
        yield f'engine = MLCEngine("{name}")'
    else:
        yield f'engine = MLCEngine("{name}", model_lib="{name}/{native.path}", device="{native.device}")'
    yield 'messages = [{"role": "user", "content": "What is the capital of France?"}]'
    yield "print(engine.chat.completions.create(messages=messages).choices[0].message.content)"
    yield "```"
    web = next((one for one in card.libraries if one.path.endswith(".wasm")), None)
    if web is None:
        return
    yield ""
    yield "In a browser with WebLLM, where `url` is the address of this repository:"
    yield ""
    yield "```js"
    yield f'const model = {{ model: url, model_id: "{name}", model_lib: `${{url}}/resolve/main/{web.path}` }};'
    yield f'const engine = await CreateMLCEngine("{name}", {{ appConfig: {{ model_list: [model] }} }});'
    yield "```"


def _code(text: str) -> str:
    """A text as code in a table: nothing in it ends the code or the cell."""
    return f"`{text.replace('`', chr(39)).replace('|', '/')}`" if text.isprintable() else "`?`"
