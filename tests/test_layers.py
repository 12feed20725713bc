"""The architecture's layers: imports go downward only, and light layers stay light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Mapping, Set
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent / "llmbuild"

# From top to bottom; a module may import from its own layer and from those after it.
LAYERS = [
    "cli",
    "serving",
    "workspace",
    "report",
    "plan",
    "manifest",
    "executors",
    "remotes",
    "tasks",
    "packages",
    "engine",
    "publishing",
    "sources",
    "quality",
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
    "home",
    "pathtext",
    "variables",
    "host",
    "errors",
    "jsontext",
    "workflow",
    "printable",
    "urls",
    "canonical",
    "version",
]


MODULES = {
    ".".join(("llmbuild", *path.relative_to(ROOT).with_suffix("").parts)).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
}


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


def test_the_table_of_layers_in_the_document_has_every_layer() -> None:
    text = (ROOT.parent / "docs/architecture.md").read_text(encoding="utf-8").split("\n## Layers\n")[1]
    named = [
        name.rstrip("/")
        for row in re.findall(r"^\| (`.+?) \| ", text, re.MULTILINE)
        for name in row.replace("`", "").split(", ")
    ]
    assert sorted(named) == sorted(LAYERS)
    # Packages stand from top to bottom, as imports go.
    packages = [name for name in LAYERS if (ROOT / name).is_dir()]
    assert [name for name in named if name in packages] == packages


def test_no_file_needs_itself_through_others() -> None:
    """Files that import one another in a circle, in functions too, cannot be read or moved one by one."""
    edges = {name: _imported(path) for name, path in MODULES.items()}
    circles = [" -> ".join(circle) for circle in _circles(edges)]
    assert circles == []


def test_a_circle_is_found_wherever_it_starts() -> None:
    edges = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"e"}, "e": set[str]()}
    assert _circles(edges) == [["b", "c", "b"]]


def _imported(path: Path) -> set[str]:
    """The modules of llmbuild that a file imports; `from package import module` is the module."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {f"{node.module}.{alias.name}" for alias in node.names} & MODULES.keys() or {node.module}
    return found & MODULES.keys()


def _circles(edges: Mapping[str, Set[str]]) -> list[list[str]]:
    """One circle of each group of modules that need one another."""
    reached: dict[str, dict[str, list[str]]] = {}
    for start in edges:
        paths = {start: [start]}
        front = [start]
        for name in front:
            for other in sorted(edges[name]):
                if other not in paths:
                    paths[other] = [*paths[name], other]
                    front.append(other)
        reached[start] = paths
    circles, seen = [], set[str]()
    for start, paths in sorted(reached.items()):
        back = [paths[name] for name in paths if start in edges[name]]
        if back and start not in seen:
            seen |= {name for name in paths if start in reached[name]}
            circles.append([*min(back, key=len), start])
    return circles


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
