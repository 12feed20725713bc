"""The runtime's objects: the same bytes wherever they are compiled, and what is missing is said."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from llmbuild.emscripten import runtime
from llmbuild.errors import ToolchainError


def build(where: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    # The smallest unit stands for the others, of which one takes more than a minute.
    monkeypatch.setattr(runtime, "UNITS", ("tvmjs_support",))
    steps: list[tuple[int, int]] = []
    for name in ("out", "scratch"):
        (where / name).mkdir(parents=True)
    runtime.compile_runtime(where / "out", where / "scratch", progress=lambda done, total: steps.append((done, total)))
    assert steps == [(0, 1), (1, 1)]
    return {path.name: path.read_bytes() for path in (where / "out").iterdir()}


@pytest.mark.skipif(shutil.which("emcc") is None, reason="no Emscripten (apt install emscripten)")
def test_same_bytes_in_other_directories(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = build(tmp_path / "a", monkeypatch)
    assert list(first) == ["tvmjs_support.o"]
    assert first == build(tmp_path / "a much longer directory name", monkeypatch)
    assert str(tmp_path).encode() not in first["tvmjs_support.o"]


def test_headers_of_a_wheel_win_over_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in ("tvm/web/emcc/a.cc", "tvm/src/runtime/b.cc", "tvm/include/tvm/support/io.h", "tvm_ffi/src/c.cc"):
        path = tmp_path / place
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("theirs")
    (tmp_path / "tvm_ffi/include").mkdir()
    (tmp_path / "tvm_ffi/include/d.h").write_text("theirs")
    monkeypatch.setattr(runtime, "_package", lambda name: tmp_path / name)
    runtime.prepare_sources(tmp_path / "out")
    assert (tmp_path / "out/include/tvm/support/io.h").read_text() == "theirs"
    assert "namespace support" in (tmp_path / "out/include/tvm/support/serializer.h").read_text()
    shutil.rmtree(tmp_path / "tvm/src")
    with pytest.raises(ToolchainError, match="sources for the browser are missing") as caught:
        runtime.prepare_sources(tmp_path / "again")
    assert "src/runtime" in str(caught.value)
