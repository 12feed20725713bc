"""The architecture's layers: imports go downward only, and light layers stay light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llmbuild"

# From top to bottom; a module may import from its own layer and from those after it.
LAYERS = [
    "cli",
    "report",
    "plan",
    "manifest",
    "executors",
    "engine",
    "tasks",
    "sources",
    "runtime",
    "linkers",
    "emscripten",
    "compiler",
    "models",
    "quantization",
    "conversation",
    "checkpoints",
    "targets",
    "tomlfile",
    "programs",
    "errors",
    "jsontext",
    "canonical",
]


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Every llmbuild module that a file imports anywhere, inside functions too."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found.append((node.module, node.lineno))
    return [(name, line) for name, line in found if name.split(".")[0] == "llmbuild"]


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_downward_only(layer: str) -> None:
    files = sorted((ROOT / layer).rglob("*.py")) if (ROOT / layer).is_dir() else [ROOT / f"{layer}.py"]
    assert files
    upward = []
    for path in files:
        for name, line in imports_of(path):
            target = layer_of(name)
            if target and LAYERS.index(target) < LAYERS.index(layer):
                upward.append(f"{path.relative_to(ROOT)}:{line} imports {name}")
    assert upward == []


def test_every_module_belongs_to_a_layer() -> None:
    names = {path.stem if path.is_file() else path.name for path in ROOT.iterdir() if path.name != "__pycache__"}
    names -= {"__init__", "__main__", "py", "_targets"}
    assert names - set(LAYERS) == set()


@pytest.mark.parametrize("module", ["llmbuild.cli.main", "llmbuild.plan.graph", "llmbuild.engine.scheduler"])
def test_light_modules_import_nothing_heavy(module: str) -> None:
    heavy = ("tvm", "pydantic", "networkx", "rich", "numpy", "huggingface_hub", "tokenizers", "diskcache", "torch")
    code = f"import sys, {module}; print([name for name in {heavy!r} if name in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
