"""Objects of a tiny library for any triple, as the lower task makes them: host code, and a second object with the imports."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

FUNCTION = "scaled_exp"
"""The library's Relax function: of 8 numbers x it makes exp(x) * scale."""


def write_objects(
    triple: str, out: Path, *, scale: float = 2.0, prefix: str | None = None, calls: str | None = None
) -> list[Path]:
    """Compile for a triple into `out`; returns the objects, sorted.  With a prefix they are a system library.

    The host code calls expf; with `calls` also a C function of that name.
    """
    import tvm
    from tvm import relax, te, tirx

    def compute(x: Any) -> Any:
        def element(*index: Any) -> Any:
            value = tirx.exp(x(*index)) * tirx.const(scale, "float32")
            return value if calls is None else tirx.call_extern("float32", calls, value)

        return te.compute(x.shape, element, name="scaled")

    builder = relax.BlockBuilder()
    x = relax.Var("x", relax.TensorType((8,), "float32"))
    with builder.function(FUNCTION, [x]):
        with builder.dataflow():
            scaled = builder.emit_output(builder.emit_te(compute, x, primfunc_name_hint="scaled"))
        builder.emit_func_output(scaled)
    module = builder.get()
    if prefix is not None:
        module = module.with_attrs({"system_lib_prefix": prefix})

    def keep(_: str, objects: Sequence[str], **__: Any) -> None:
        for path in map(Path, objects):
            shutil.copyfile(path, out / ("devc.o" if path.name.endswith("devc.o") else path.name))

    keep.object_format = "o"  # type: ignore[attr-defined]
    out.mkdir(parents=True, exist_ok=True)
    executable = relax.build(module, target=tvm.target.Target({"kind": "llvm", "mtriple": triple}))
    executable.export_library(str(out / "unlinked.so"), fcompile=keep)
    return sorted(out.glob("*.o"))
