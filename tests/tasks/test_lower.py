"""The lower task: what it declares, and what it writes."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

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
        "system-lib-prefix": "{model_type}_q4f32_1_",
        "system-lib": True,
        "requires": ["shader-f16"],
    }
    assert set(params) == set(lower.KIND.params)
    lower.run(Job(params, {"config": tmp_path / "config.json"}, {}, tmp_path / "out", tmp_path, lambda *_: None))
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["devc.o", "lib0.o", "metadata.json"]
    record = json.loads((tmp_path / "out/metadata.json").read_text())
    assert record["context_window_size"] == 64
    # What the library cannot say itself: how an application finds it, and what the device must have.
    prefix = f"{config['model_type']}_q4f32_1_"
    assert (record["system_lib_prefix"], record["requires"]) == (prefix, ["shader-f16"])
    assert f"__tvm_ffi_{prefix}".encode() in (tmp_path / "out/lib0.o").read_bytes()
