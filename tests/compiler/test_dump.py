"""Writing the module of a stage to a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.errors import StoreError


def test_a_module_is_written_and_stays_as_it_is(tmp_path: Path) -> None:
    import tvm

    from llmbuild.compiler.passes.dump import Dump

    module = tvm.IRModule({})
    assert Dump(tmp_path / "debug-phase0.py")(module).same_as(module)
    assert "class Module" in (tmp_path / "debug-phase0.py").read_text()


def test_a_file_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    import tvm

    from llmbuild.compiler.passes.dump import Dump

    with pytest.raises(StoreError, match="the module cannot be dumped") as caught:
        Dump(tmp_path / "none/debug-phase0.py").transform_module(tvm.IRModule({}), None)
    assert caught.value.where == str(tmp_path / "none/debug-phase0.py")
