"""The static import closure of a module inside llmbuild: every import in its source, in functions too."""

from __future__ import annotations

import ast
from pathlib import Path

import llmbuild

PACKAGE = Path(llmbuild.__file__).parent


def module_path(name: str) -> Path | None:
    """The file of a dotted llmbuild name, or None when it is no module (a class, a function)."""
    base = PACKAGE.joinpath(*name.split(".")[1:])
    if (base / "__init__.py").is_file():
        return base / "__init__.py"
    file = base.with_suffix(".py") if base != PACKAGE else None
    return file if file is not None and file.is_file() else None


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE).with_suffix("").parts)
    return ".".join(["llmbuild", *(parts[:-1] if parts[-1] == "__init__" else parts)])


class _Imports(ast.NodeVisitor):
    """Collects llmbuild imports that can happen at run time."""

    def __init__(self) -> None:
        self.names: set[str] = set()

    def visit_If(self, node: ast.If) -> None:
        test = ast.unparse(node.test)
        if test in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            for child in node.orelse:
                self.visit(child)
            return
        self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_Call(self, node: ast.Call) -> None:
        """`import_module(f"llmbuild.linkers.{…}")` may import every module of the package."""
        self.generic_visit(node)
        if ast.unparse(node.func).split(".")[-1] != "import_module" or not isinstance(node.args[0], ast.JoinedStr):
            return
        package = str(ast.literal_eval(node.args[0].values[0]))
        directory = module_path(package.removesuffix(".")) if package.startswith("llmbuild.") else None
        if directory is not None:
            self.names.update(module_name(path) for path in directory.parent.glob("*.py") if path != directory)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        assert node.level == 0, "llmbuild has no relative imports"
        assert node.module is not None
        if node.module != "llmbuild":
            self.names.add(node.module)
        self.names.update(f"{node.module}.{alias.name}" for alias in node.names)


def imports_of(path: Path) -> set[str]:
    """The llmbuild modules that a file may import itself."""
    visitor = _Imports()
    visitor.visit(ast.parse(path.read_text(encoding="utf-8")))
    return {name for name in visitor.names if name.split(".")[0] == "llmbuild" and module_path(name) is not None}


def closure(start: str, dynamic: dict[str, set[str]] | None = None) -> set[Path]:
    """The files that importing and using a module may load; `dynamic` adds imports that no static look can see.

    Packages count by their `__init__.py` only when they are imported themselves; see `inits_on_the_way`.
    """
    seen: set[Path] = set()
    todo = [start]
    while todo:
        name = todo.pop()
        path = module_path(name)
        assert path is not None, name
        if path in seen:
            continue
        seen.add(path)
        todo += imports_of(path) | (dynamic or {}).get(name, set())
    return seen


def inits_on_the_way(files: set[Path]) -> set[Path]:
    """The `__init__.py` of the packages that hold these files, which Python runs before them; llmbuild's own aside."""
    return {
        parent / "__init__.py"
        for file in files
        for parent in file.parents
        if parent.is_relative_to(PACKAGE) and parent != PACKAGE
    }
