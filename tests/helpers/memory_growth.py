"""How much memory a library takes on this machine's CPU: the growth of a process from before it loads the library.

`python -m tests.helpers.memory_growth LIBRARY MODEL_DIRECTORY TOKENS` prints {"grown", "loaded"} in bytes: after a prompt that
fills a cache of TOKENS but for one, in chunks as large as the library takes them, and a generated token; and after loading.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

_REPOSITORY = Path(__file__).parent.parent.parent


def growth(library: Path, weights: Path, tokens: int, *, timeout: float) -> int:
    """The growth in bytes, in a process of its own."""
    command = [sys.executable, "-m", "tests.helpers.memory_growth", str(library), str(weights), str(tokens)]
    done = subprocess.run(command, cwd=_REPOSITORY, capture_output=True, text=True, timeout=timeout, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    grown: int = json.loads(done.stdout)["grown"]
    return grown


def resident() -> int:
    """The resident bytes of this process, of files too (proc_pid_status(5))."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmRSS:"))


def main(library_path: str, weights: str, count: str) -> None:
    import tvm  # noqa: F401
    from tvm.contrib import tvmjs  # noqa: F401

    from llmbuild.runtime.library import configure_threads, load_library
    from llmbuild.runtime.session import Session
    from llmbuild.runtime.weights import load_parameters

    configure_threads(None)
    before = resident()
    library = load_library(Path(library_path))
    parameters = load_parameters(library, Path(weights))
    loaded = resident()
    tokens = int(count)
    session = Session(library, parameters, capacity=tokens)
    session.add()
    session.prefill([1] * (tokens - 1))
    session.decode(1)
    print(json.dumps({"grown": resident() - before, "loaded": loaded - before}))


if __name__ == "__main__":
    main(*sys.argv[1:])
