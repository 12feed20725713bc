"""The lower task: what it declares, and what it writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from llmbuild.engine.kind import Job
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.tasks import lower
from tests.helpers.tiny_library import TARGET, chat_config


def test_writes_objects_and_metadata(tmp_path: Path) -> None:
    config = chat_config()
    assert set(config) <= set(lower.COMPILE_FIELDS)
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "out").mkdir()
    params = {
        "scheme": asdict(SCHEMES["q4f32_1"]),
        "overrides": {"context_window_size": 64},
        "target": TARGET,
        "opt": {"cudagraph": False},
        "activations": None,
        "system-lib-prefix": "{model_type}_q4f32_1_",
        "system-lib": True,
        "requires": ["shader-f16"],
        "taps": False,
        "architecture": None,
    }
    assert set(params) == set(lower.KIND.params)
    (tmp_path / "dump").mkdir()
    job = Job(
        params,
        {"config": tmp_path / "config.json"},
        {},
        tmp_path / "out",
        tmp_path,
        lambda *_: None,
        dump=tmp_path / "dump",
    )
    lower.run(job)
    # The names of mlc_llm's --debug-dump; memory is planned in the last one.
    dumped = {path.name: path.read_text() for path in (tmp_path / "dump").iterdir()}
    assert sorted(dumped) == [f"debug-phase{phase}.py" for phase in (0, 2, 3, 4, 5)]
    assert ["alloc_storage" in dumped[name] for name in sorted(dumped)] == [False, False, False, False, True]
    assert "def create_tir_paged_kv_cache" in dumped["debug-phase0.py"]
    names = sorted(path.name for path in (tmp_path / "out").iterdir())
    assert names == ["devc.o", "lib0.o", "lib1.o", "lib2.o", "metadata.json"]
    record = json.loads((tmp_path / "out/metadata.json").read_text())
    assert record["context_window_size"] == 64
    # What the library cannot say itself: how an application finds it, and what the device must have.
    prefix = f"{config['model_type']}_q4f32_1_"
    assert (record["system_lib_prefix"], record["requires"]) == (prefix, ["shader-f16"])
    assert f"__tvm_ffi_{prefix}".encode() in (tmp_path / "out/lib0.o").read_bytes()


def test_what_webllm_refuses_is_a_note_of_a_library_for_browsers(tmp_path: Path) -> None:
    from llmbuild.compiler.webllm import refusals

    config = {"vocab_size": 300_000}
    small = {"params": [{"name": "w", "shape": [4, 4], "dtype": "float32"}]}
    large = {"params": [{"name": "w", "shape": ["vocab_size", 1024], "dtype": "float32"}]}
    assert list(refusals(config, small)) == []
    (wide,) = refusals(config, large)
    assert "binds at most 1073741824 bytes of one tensor, and w has 1228800000" in wide
    half = {"params": [{**large["params"][0], "dtype": "float16"}]}
    assert list(refusals(config, half)) == []


def test_the_note_is_that_of_a_library_for_browsers_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import llmbuild.compiler.lower

    params = [{"name": "w", "shape": [1 << 20, 1024], "dtype": "float32"}]
    monkeypatch.setattr(llmbuild.compiler.lower, "lower", lambda *_, **__: {"params": params})
    (tmp_path / "config.json").write_text(json.dumps(chat_config()))
    notes: list[str] = []
    for kind in ("cuda", "webgpu"):
        job = Job(
            {
                "scheme": asdict(SCHEMES["q0f32"]),
                "overrides": {},
                "target": {"device": {"kind": kind}, "host": {"kind": "llvm"}},
                "opt": None,
                "activations": None,
                "system-lib-prefix": None,
                "system-lib": False,
                "requires": [],
                "taps": False,
            },
            {"config": tmp_path / "config.json"},
            {},
            tmp_path,
            tmp_path,
            lambda *_: None,
            note=notes.append,
        )
        lower.run(job)
    (note,) = notes
    assert note.startswith("WebLLM binds at most")
