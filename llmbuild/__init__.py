"""llmbuild: a declarative, cached, exact build system for LLM libraries.

docs/python.md lists what this module offers.  Its import loads no heavy module.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbuild.version import __version__ as __version__

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Sequence

    from llmbuild.errors import LlmbuildError as LlmbuildError
    from llmbuild.runtime.model import Model
    from llmbuild.workspace.workspace import Workspace
else:

    def __getattr__(name: str) -> object:
        # `llmbuild --help` has no use for errors, and a dataclass costs more than the rest of it.
        if name != "LlmbuildError":
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        from llmbuild.errors import LlmbuildError

        globals()[name] = LlmbuildError
        return LlmbuildError


def open(
    path: str | os.PathLike[str],
    *,
    models: str | Sequence[str] = (),
    quantizations: str | Sequence[str] = (),
    platforms: str | Sequence[str] = (),
    cache: str | os.PathLike[str] | None = None,
    offline: bool | None = None,
    locked: bool | None = None,
    trust: bool = False,
    on_note: Callable[[str], None] = lambda _note: None,
) -> Workspace:
    """Open a manifest, or the one in a directory, to plan and build what it describes.

    `models`, `quantizations` and `platforms` are names of the manifest (one, or several) that everything is narrowed to.
    `cache` is the store (default: $LLMBUILD_CACHE or the user's cache).  `offline` forbids the network; `locked` requires an
    up-to-date llmbuild.lock, and never writes it (default: $LLMBUILD_OFFLINE and $LLMBUILD_LOCKED).  With `trust` the programs
    and flags that the project's targets name run without a record of trust (`llmbuild trust` writes one).  `on_note` receives,
    a sentence at a time, what is found later that is worth reporting and stops nothing.

    Raises LlmbuildError where the manifest is wrong or does not have such names, and where the store cannot be read.
    """
    from pathlib import Path

    from llmbuild.host import require_host

    require_host()
    from llmbuild.workspace.options import Options, Selection
    from llmbuild.workspace.place import find_manifest
    from llmbuild.workspace.workspace import Workspace

    names = ((one,) if isinstance(one, str) else tuple(one) for one in (models, quantizations, platforms))
    options = Options(None if cache is None else Path(cache), offline, locked, trust)
    return Workspace.open(find_manifest(Path(path)), Selection(*names), options, on_note=on_note)


def load(
    model_dir: str | os.PathLike[str],
    library: str | os.PathLike[str] | None = None,
    *,
    threads: int | None = None,
    seed: int | None = None,
    context: int | None = None,
) -> Model:
    """Load a built model (`dist/<model>-<scheme>-MLC`) to generate text with it.

    `library` is by default the one in `libs/` beside the directory that this machine can load.  `threads` is the number of
    CPU threads, for the whole process (default: all).  With a `seed`, the answers that follow are the same each time the
    model is loaded.  `context` bounds the tokens of a prompt and its answer (default: the model's window), and so the memory.

    Raises LlmbuildError for what is no model, a library that is missing, ambiguous or not for this machine, and for a
    library and weights that do not belong together.
    """
    from pathlib import Path

    from llmbuild.host import require_host

    require_host()
    from llmbuild.runtime.model import Model

    path = None if library is None else Path(library)
    return Model.open(Path(model_dir), path, threads=threads, seed=seed, context=context)
