"""A project of two tiny models of different families, for what several libraries become together."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import ProjectDir, make_project

MODELS = ("llama", "qwen2")

_TABLES = """\
[models]
llama = { source = "llama", conv-template = "chatml" }
qwen2 = { source = "qwen2", conv-template = "chatml" }

[metadata]
context-window-size = 512

"""


def make_two_models(directory: Path, tables: str) -> ProjectDir:
    """The project with the checkpoints of `MODELS`; `tables` are the manifest's further ones."""
    project = make_project(directory, _TABLES + tables)
    for model in MODELS:
        shutil.copytree(cached_checkpoint(model), project.root / model)
    return project
