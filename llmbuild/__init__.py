"""llmbuild: a declarative, cached, exact build system for LLM libraries.

docs/python.md lists what this module offers.  Importing it loads nothing else of weight.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from llmbuild.errors import LlmbuildError as LlmbuildError

if TYPE_CHECKING:
    import os

    from llmbuild.runtime.model import Model

__version__ = "0.1.0"


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

    from llmbuild.runtime.model import Model

    path = None if library is None else Path(library)
    return Model.open(Path(model_dir), path, threads=threads, seed=seed, context=context)
