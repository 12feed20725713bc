"""The part of the environment that tasks and the programs that they run see: one table, each name with its reason.

Most variables that a compiler, a linker, a loader or Python reads change what is built: search paths (COMPILER_PATH,
LIBRARY_PATH, LD_LIBRARY_PATH), words that are added to a command (LD_RUN_PATH, CCC_OVERRIDE_OPTIONS), other libraries of
TVM (TVM_LIBRARY_PATH).  So a task sees the names of this table and no others.  The table locates files; keys contain the hashes
of their content.  A target adds names with `[link] environment`, which are part of the keys.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Mapping

from llmbuild.errors import ToolchainError

TABLE: Mapping[str, str] = {
    "PATH": "where programs are: those that write bytes of a result count by their content",
    "HOME": "where programs keep their caches",
    "TMPDIR": "where temporary files go; programs get a directory of their own",
    "TEMP": "the same on Windows",
    "TMP": "the same on Windows",
    "LANG": "how file names are encoded; programs speak English whatever it says",
    "LC_ALL": "the same",
    "LC_CTYPE": "the same",
    "TZ": "the times in logs",
    "XDG_CACHE_HOME": "where zig and Emscripten keep libraries that they compiled",
    "PYTHONPATH": "where Python packages are, as for the process that put their versions into the keys",
    "PYTHONHOME": "the same",
    "PYTHONNOUSERSITE": "the same",
    "PYTHONUSERBASE": "the same",
    "PYTHONPYCACHEPREFIX": "where Python keeps what it compiled",
    "PYTHONDONTWRITEBYTECODE": "whether it does",
    "PYTHONUTF8": "how file names are encoded, as for the process that wrote them down",
    "PYTHONCOERCECLOCALE": "the same",
    "CC": "which C compiler links: it counts by its content",
    "CUDA_HOME": "where nvcc is",
    "CUDA_PATH": "the same",
    "ROCM_PATH": "where ROCm's linker is",
    "ANDROID_NDK": "where the NDK is",
    "ANDROID_NDK_HOME": "the same",
    "ANDROID_NDK_ROOT": "the same",
    "EMSDK": "where Emscripten is",
    "EMSDK_NODE": "the Node.js that it runs on",
    "EMSDK_PYTHON": "the Python that it runs on",
    "EM_CONFIG": "the file that says where Emscripten's LLVM and Binaryen are",
    "EM_CACHE": "where Emscripten keeps libraries that it compiled",
    "ZIG_GLOBAL_CACHE_DIR": "where zig does",
    "DEVELOPER_DIR": "which Xcode is used",
    "VCTOOLSINSTALLDIR": "where Microsoft's linker is",
    "VCTOOLSVERSION": "its version",
    "SystemRoot": "no program starts without it on Windows",
    "PATHEXT": "what a program's name ends with on Windows",
    "USERPROFILE": "HOME on Windows",
    "LOCALAPPDATA": "the user's cache on Windows",
}
"""The variables that every task sees when they are set, and why."""

OWN = "LLMBUILD_"
"""The prefix of llmbuild's own variables: none changes a task's output, but for the modules of further task kinds."""

CREDENTIALS = ("LLMBUILD_REGISTRY", "LLMBUILD_REGISTRY_USERNAME", "LLMBUILD_REGISTRY_PASSWORD")
"""Those that no task and no program sees: what they print goes to logs."""

CONSTANTS: Mapping[str, str] = {
    "PYTHONHASHSEED": "0",
    # The number of threads changes the order of the sums in a matrix product, and with it the last bits.
    "OPENBLAS_NUM_THREADS": "1",
}
"""Values that are the same for every action on every machine."""

LANGUAGE: Mapping[str, str] = {"LC_ALL": "C"}
"""Values that only programs receive: they print English, and sort by bytes."""

VARIABLE = "variable "
"""The prefix of the names of variables among a key's tools."""

UNSET = "unset"
"""The identity of a variable that a target names and that is not set."""

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}\Z", re.ASCII)


def seen(further: Iterable[str] = (), environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables of the table, and the `further` ones that a target names, as they are set now."""
    environ = os.environ if environ is None else environ
    names = {*TABLE, *further}
    return {
        name: value
        for name, value in environ.items()
        if name in names or (name.startswith(OWN) and name not in CREDENTIALS)
    }


def variables(tools: Iterable[str]) -> tuple[str, ...]:
    """The variables among the names of a key's tools."""
    return tuple(name.removeprefix(VARIABLE) for name in tools if name.startswith(VARIABLE))


def required_variables(tools: Mapping[str, str]) -> tuple[str, ...]:
    """The same; raises ToolchainError for one that has another value in this process than in the key."""
    names = variables(tools)
    for name in names:
        if identity(name) != tools[VARIABLE + name]:
            raise ToolchainError(
                f"the variable {name} has another value than in the action's key",
                why="a target names it in [link] environment, so what is built depends on it",
                fix="set it as it was, or run `llmbuild build` for the value that it has now",
            )
    return names


def wrong_name(name: str) -> str | None:
    """Why a target cannot name this variable, or None."""
    if not _NAME.match(name):
        return f"'{name}' cannot be the name of a variable"
    if name in CONSTANTS or name in LANGUAGE:
        return f"'{name}' is the same in every task"
    if name in CREDENTIALS:
        return f"'{name}' is a credential, which no task sees"
    if name in TABLE or name.startswith(OWN):
        return f"'{name}' is seen by every task"
    return None


def identity(name: str, environ: Mapping[str, str] | None = None) -> str:
    """A variable's value in a key: "unset", or the digest of its value, which itself is never written."""
    value = (os.environ if environ is None else environ).get(name)
    return UNSET if value is None else f"set+sha256.{hashlib.sha256(os.fsencode(value)).hexdigest()}"
