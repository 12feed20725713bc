"""The model card and the difference as text."""

from __future__ import annotations

import json

import pytest

from llmbuild.packages.memory import MemoryUse
from llmbuild.publishing.kind import Difference, Facts
from llmbuild.report.model_card import Card, Library, model_card
from llmbuild.report.publish_text import difference_text
from llmbuild.report.style import Style

CONFIG = {"conv_template": {"name": "chat|ml`"}, "context_window_size": 2048, "sliding_window_size": -1}
FACTS = Facts("x", "q4f16_1", "llama", 1_100_048_384, "float16")


def card(**changes: object) -> str:
    values = {
        "facts": FACTS,
        "source": "pkg:huggingface/org/name@0123",
        "config": CONFIG,
        "nbytes": 618_000_000,
        "libraries": (Library("libs/x-web.wasm", "web", "wasm32-web-webgpu", "webgpu"),),
        "statements": ("provenance/x-q4f16_1-MLC.intoto.json",),
    }
    return model_card(Card(**{**values, **changes}))  # type: ignore[arg-type]


def test_a_card() -> None:
    text = card()
    assert text.startswith(
        '---\nlibrary_name: mlc-llm\npipeline_tag: text-generation\nbase_model: "org/name"\nbase_model_relation: quantized\n'
        'tags: ["mlc-llm", "web-llm", "llmbuild"]\n---\n\n# x-q4f16_1-MLC\n'
    )
    for line in (
        "| parameters | 1,100,048,384 |",
        "| weights | 618.0 MB to download |",
        "| conversation template | `chat/ml'` |",
        "| context window | 2048 tokens |",
        "| `libs/x-web.wasm` | `web` | `wasm32-web-webgpu` |",
        "The weights were made from `pkg:huggingface/org/name@0123`.",
        "| `provenance/x-q4f16_1-MLC.intoto.json` | `x-q4f16_1-MLC` |",
        'const model = { model: url, model_id: "x-q4f16_1-MLC", model_lib: `${url}/resolve/main/libs/x-web.wasm` };',
    ):
        assert line in text.splitlines()
    assert "sliding window" not in text
    assert "license" not in text
    assert "quality" not in text.lower()


def test_the_memory_of_each_library() -> None:
    web = Library(
        "libs/x-web.wasm", "web", "wasm32-web-webgpu", "webgpu", 4096, MemoryUse(600_000_000, 90_000_000, 75_000_000, 1)
    )
    other = Library("libs/x-cpu.so", "cpu", "x86_64-linux-cpu", "cpu")
    text = card(libraries=(web, other))
    line = "| `web` | 4096 tokens | 765.0 MB = weights 600.0 MB + cache 90.0 MB + temporaries 75.0 MB |"
    assert line in text.splitlines()
    assert "| `cpu` | 0 tokens" not in text
    assert "Memory on the device" not in card()
    assert (
        'engine = MLCEngine("x-q4f16_1-MLC", model_lib="x-q4f16_1-MLC/libs/x-cpu.so", device="cpu")'
        in text.splitlines()
    )
    assert "With MLC LLM's Python package on x86_64-linux-cpu, where" in text


@pytest.mark.parametrize("source", [None, "pkg:pypi/name@1"])
def test_a_base_model_is_a_repository_of_a_hub(source: str | None) -> None:
    assert "base_model" not in card(source=source)
    assert (source or "files of the publisher") in card(source=source)


def test_what_is_not_known_is_left_out() -> None:
    text = card(facts=Facts("x", "q0f32"), config={}, libraries=(), statements=())
    assert "## Libraries" not in text
    assert "parameters" not in text
    assert "WebLLM, where" not in text


def test_a_license_is_a_text() -> None:
    text = card(facts=Facts("x", "q0f32", license='a: "b"\nc'))
    (line,) = [line for line in text.splitlines() if line.startswith("license: ")]
    assert json.loads(line.removeprefix("license: ")) == 'a: "b"\nc'


def test_a_difference() -> None:
    found = Difference(("a", "b" * 100), ("c",), ("d",), ("e",), 1500, "hf:x@1")
    assert difference_text("hf:x", found, Style()) == (
        f"hf:x: 2 new, 1 changed, 1 removed, 1 same, 1.5 kB to send\n  + a\n  + {'b' * 100}\n  ~ c\n  - d"
    )
    assert (
        difference_text("hf:x", Difference(same=("a",), reference="hf:x@1"), Style())
        == "hf:x: nothing changed (1 file)"
    )
    assert difference_text("oci:x", Difference(same=("a",)), Style()) == "oci:x: 1 same, 0 B to send"
    assert difference_text("oci:x", Difference(), Style()) == "oci:x: nothing to send but its name"
