"""An error that a pass raises keeps its class on its way through TVM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from llmbuild.compiler.lower import lower
from llmbuild.compiler.passes import kv_cache
from llmbuild.compiler.passes.own_errors import own_errors
from llmbuild.errors import StoreError, ToolchainError
from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.tiny_library import TARGET, chat_config


def test_of_a_pass(tmp_path: Path) -> None:
    import tvm

    from llmbuild.compiler.passes.dump import Dump

    with pytest.raises(StoreError, match="the module cannot be dumped") as caught, own_errors():
        tvm.transform.Sequential([Dump(tmp_path / "none/phase0.py")])(tvm.IRModule({}))
    assert caught.value.where == str(tmp_path / "none/phase0.py")
    with pytest.raises(RuntimeError, match="another"), own_errors():
        raise RuntimeError("another")


def test_of_lowering(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(**_: Any) -> None:
        raise ToolchainError("this is not the attention that is known", why="it is another")

    monkeypatch.setattr(kv_cache, "TIRPagedKVCache", refuse)
    with pytest.raises(ToolchainError, match="not the attention") as caught:
        lower(chat_config(), SCHEMES["q4f32_1"], {}, TARGET, system_lib=False, system_lib_prefix=None, out=tmp_path)
    assert caught.value.why == "it is another"
