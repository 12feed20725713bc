"""Imports TVM in a third of the time.  Import this module before any other that imports TVM, in a process that compiles.

TVM imports torch wherever it is installed, to take its tensors.  That is half of the time of `import tvm`, and a compiler
has none.  Torch can be imported afterwards; in a process that has torch or tvm_ffi already, it stays.

Each of TVM's fifty modules for a part of its functions lists all the thousands of functions there are: here they are listed
again only where there are more.  What is imported stays, so that it is no concern of the garbage collector.  And NumPy's library
for matrix products has no thread for each of the machine's cores, which wait for work by spinning: a compiler has none.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from llmbuild.compiler.collection import uncollected


def _import_tvm() -> None:
    alone = not {"torch", "tvm_ffi"} & sys.modules.keys()
    if alone:
        # Python answers an import of a module that stands for None with ImportError.
        sys.modules["torch"] = None  # type: ignore[assignment]
    try:
        from tvm_ffi import registry

        listed = registry.list_global_func_names
        registry.list_global_func_names = _where_more(registry.get_global_func("ffi.FunctionListGlobalNamesFunctor"))
        try:
            import tvm  # noqa: F401
        finally:
            registry.list_global_func_names = listed
    finally:
        if alone:
            del sys.modules["torch"]


def _where_more(functions: Callable[[], Callable[[int], int | str]]) -> Callable[[], list[str]]:
    """TVM's list of the names of all functions, which is made again where their number is another than before."""
    names: list[str] = []

    def listed() -> list[str]:
        at = functions()
        count = at(-1)
        assert isinstance(count, int)
        if count != len(names):
            names[:] = [str(at(index)) for index in range(count)]
        return names

    return listed


@contextmanager
def _without_threads() -> Iterator[None]:
    """Within this context OpenBLAS starts no threads, which it does as NumPy is imported."""
    name = "OPENBLAS_NUM_THREADS"
    given = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if given is None:
            del os.environ[name]
        else:
            os.environ[name] = given


with uncollected(), _without_threads():
    _import_tvm()
    gc.freeze()
