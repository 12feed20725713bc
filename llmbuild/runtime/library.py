"""Load a compiled model library for this machine's CPU with TVM's runtime.

The functions and the metadata record of a library are described in docs/library-interface.md.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llmbuild.errors import ToolchainError, UsageError, VerifyError
from llmbuild.runtime.libraries import require_loadable
from llmbuild.variables import whole_number

MOST_THREADS = 1024
"""TVM reserves a stack and a queue for each thread before it computes: 22 GB for a thousand million of them."""

SPINS = 200
"""How often a thread looks for work before it sleeps: about 0.1 ms, more than lies between two kernels of a step.  TVM's own
number is 300,000."""


@dataclass(frozen=True, slots=True)
class ParameterRecord:
    """One parameter as a library's metadata records it."""

    name: str
    shape: tuple[int | str, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Library:
    """A loaded library: its virtual machine, its metadata record, and the device it runs on."""

    path: Path
    vm: Any
    metadata: Mapping[str, Any]
    device: Any

    def function(self, name: str) -> Callable[..., Any]:
        """An exported function; raises VerifyError when the library lacks it."""
        try:
            function: Callable[..., Any] = self.vm[name]
        except (AttributeError, ValueError) as error:
            raise VerifyError(
                f"the library has no function '{name}'",
                where=str(self.path),
                fix="build it again with `llmbuild build`",
            ) from error
        return function

    @property
    def parameters(self) -> tuple[ParameterRecord, ...]:
        return tuple(
            ParameterRecord(record["name"], tuple(record["shape"]), record["dtype"])
            for record in self.metadata["params"]
        )


def configure_threads(threads: int | None) -> None:
    """Set how many threads TVM computes with in this process; None leaves the number unchanged: initially every CPU that this
    process may use.

    TVM's own default leaves out half of the CPUs where it takes them for hyper-threads, which halves the speed on many
    virtual machines.  Pinning is off unless the user requested it: pinned threads lose 2.7 times their speed beside
    another busy process.

    Raises UsageError for a number outside 1 to `MOST_THREADS`, the user's own in $TVM_NUM_THREADS included, and for a larger one
    than the threads that already run.
    """
    os.environ.setdefault("TVM_BIND_THREADS", "0")
    os.environ.setdefault("TVM_THREAD_POOL_SPIN_COUNT", str(SPINS))
    if threads is None:
        # TVM reads any text as some number.
        number = whole_number("TVM_NUM_THREADS", MOST_THREADS) or min(_cpus(), MOST_THREADS)
        os.environ["TVM_NUM_THREADS"] = str(number)
        return
    if not 1 <= threads <= MOST_THREADS:
        raise UsageError(
            f"the number of threads must be 1 to {MOST_THREADS}, not {threads}",
            fix="give the number of cores to compute with, such as 4, or none for all of them",
        )
    # TVM starts the threads, as many as the variable sets, when a thread of Python first computes with it.
    os.environ["TVM_NUM_THREADS"] = str(threads)
    if "tvm" in sys.modules:
        from tvm import get_global_func

        get_global_func("runtime.config_threadpool")(_EVEN, threads)
        running = get_global_func("runtime.NumThreads")()
        if running < threads:
            os.environ["TVM_NUM_THREADS"] = str(running)
            raise UsageError(
                f"{threads} threads cannot be had any more: TVM runs with {running} in this process",
                why="it starts them once, and can use fewer of them but not more",
                fix="load with the larger number first, in a new process (in a notebook: restart the kernel)",
            )


_EVEN = 1
"""TVM's mode for threads that each compute an equal share of the work."""


def _cpus() -> int:
    """The CPUs that this process may use; only Linux reports them."""
    affinity = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity is not None else os.cpu_count() or 1


def _require_installed_tvm() -> None:
    """Raise ToolchainError where a variable would load another TVM than the installed one; builds do not see it either."""
    if os.environ.get("TVM_LIBRARY_PATH"):
        raise ToolchainError(
            "the variable TVM_LIBRARY_PATH is set",
            why="what runs would not be the TVM that is installed, and that the library was built with",
            fix="unset TVM_LIBRARY_PATH",
        )


def load_library(path: Path) -> Library:
    """Load a shared library.

    Raises UsageError for a file that cannot be loaded here, StoreError for an unreadable and VerifyError for a broken one.
    """
    if path.suffix == ".tar":
        raise UsageError(
            "an archive of objects cannot be loaded",
            where=str(path),
            why="a .tar is linked into an application, it is not a shared library",
            fix='build the platform with artifact = "so" to run it here',
        )
    if not path.is_file():
        raise UsageError("no such library", where=str(path), fix="run `llmbuild build` first")
    require_loadable(path)
    _require_installed_tvm()
    import tvm

    # Not through tvm.relax: running a library takes TVM's runtime and not its compiler.
    from tvm.runtime.vm import VirtualMachine

    try:
        executable = tvm.runtime.load_module(str(path))
        device = tvm.cpu()
        vm = VirtualMachine(executable, device)
        metadata = json.loads(vm["_metadata"]())
    except Exception as error:  # TVM raises its own types, RuntimeError and OSError alike; all mean the same here.
        raise VerifyError(
            "the library cannot be loaded",
            where=str(path),
            why=str(error).strip().splitlines()[-1],
            fix="build it for this machine's platform with `llmbuild build`",
        ) from error
    return Library(path, vm, checked_metadata(metadata, path), device)


def checked_metadata(metadata: Any, path: Path) -> Mapping[str, Any]:
    """The metadata record of the library at `path`; raises VerifyError when a field lacks that a runtime needs."""
    wrong = _wrong_field(metadata)
    if wrong is not None:
        raise VerifyError(
            f"the library's metadata has no {wrong} of the right type",
            where=str(path),
            fix="build it again with `llmbuild build`",
        )
    record: Mapping[str, Any] = metadata
    return record


def _wrong_field(metadata: Any) -> str | None:
    """A field of a library's metadata that is missing or of a wrong type, or None."""
    if not isinstance(metadata, dict) or not isinstance(metadata.get("params"), list):
        return "params"
    for name in ("context_window_size", "sliding_window_size", "prefill_chunk_size"):
        if type(metadata.get(name)) is not int:
            return name
    for record in metadata["params"]:
        match record:
            case {"name": str(), "shape": list(shape), "dtype": str()} if all(
                isinstance(size, int | str) for size in shape
            ):
                pass
            case _:
                return "params"
    return None
