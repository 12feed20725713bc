"""Applications that embed TVM's runtime: tests/drivers/greedy.cc, alone or with static archives of models.

Here it is compiled by clang; tests/helpers/wine.py compiles it by MinGW.

`site` is a directory of wheels: this machine's packages, or those of another system (tests/helpers/aarch64.py).
"""

from __future__ import annotations

import json
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from llmbuild.engine.store import Store
from tests.helpers import wheels

DRIVER = Path(__file__).parent.parent / "drivers" / "greedy.cc"


def here() -> Path:
    """The packages of this machine."""
    import tvm_ffi

    return Path(tvm_ffi.__file__).parent.parent


def runtimes(site: Path) -> list[Path]:
    """TVM's libraries that the application opens."""
    return [site / "tvm/lib" / name for name in ("libtvm_runtime.so", "libtvm_runtime_extra.so")]


def link_application(compiler: Sequence[str], site: Path, out: Path, archives: Sequence[Path] = ()) -> None:
    """Link the driver with the whole of each archive, as MLC's applications do (their objects register themselves)."""
    command = [*compiler, "-std=c++17", "-O1", f"-I{site / 'tvm_ffi/include'}", str(DRIVER)]
    command += ["-Wl,--whole-archive", *map(str, archives), "-Wl,--no-whole-archive"]
    libraries = [f"-L{site / 'tvm_ffi/lib'}", f"-L{site / 'tvm/lib'}", "-ltvm_runtime", "-ltvm_ffi", "-lm", "-ldl"]
    paths = [f"-Wl,-rpath,{site / name}" for name in ("tvm_ffi/lib", "tvm/lib")]
    wheels.run([*command, *libraries, *paths, "-o", str(out)])


def greedy(
    command: Sequence[str | Path],
    opened: Sequence[str | Path],
    library: Path | str,
    weights: Path,
    parameters: Sequence[str],
    prompt: Sequence[int],
    count: int,
    environment: Mapping[str, str] | None = None,
) -> list[int]:
    """`count` tokens after a prompt, by the application that `command` starts; it opens TVM's libraries `opened`.

    `library` is a shared library, or "system:<prefix>" for one that is linked into the application; `parameters` are the
    names in the order of the library's metadata.
    """
    with tempfile.NamedTemporaryFile("w", suffix=".parameters") as names:
        names.write("".join(f"{name}\n" for name in parameters))
        names.flush()
        words = [*command, library, weights, 512, count, names.name, *opened, "--", *prompt]
        done = subprocess.run(
            list(map(str, words)), env=environment, capture_output=True, text=True, timeout=300, check=False
        )
    if done.returncode != 0:
        raise RuntimeError(f"the application ended with {done.returncode}: {done.stdout}{done.stderr}")
    return [int(word) for word in done.stdout.split()]


def parameters(store_directory: Path, model_type: str) -> list[str]:
    """The names of the parameters in the order in which libraries take them, from a record that lower wrote."""
    store = Store(store_directory)
    for run in store.index.recent("lower"):
        trace = store.traces.get(run.action)
        assert trace is not None
        (record,) = (file for file in store.cas.get_tree(trace.output).files if file.path == "metadata.json")
        metadata = json.loads(store.cas.get_bytes(record.digest))
        if metadata["model_type"] == model_type:
            break
    store.close()
    return [parameter["name"] for parameter in metadata["params"]]
