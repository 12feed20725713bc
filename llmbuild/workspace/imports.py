"""The source files of llmbuild that running a module may load: its static import closure, and the data that it names.

Every import in a module's source counts, in functions too, but for those that only a type checker sees.  `import_module` of a
text that starts with a package's name, such as `f"llmbuild.linkers.{name}"`, counts as every module of that package.  The
`__init__.py` of the packages on the way count, since Python runs them; llmbuild's own does not.  Files and directories that
are named in one expression with `__file__` are data of the module.
"""

from __future__ import annotations

import ast
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

_ROOT = "llmbuild"

_IN_EXPRESSIONS = (b"import_module", b"__file__")
"""The words of expressions that count."""

_STATEMENTS = ("body", "orelse", "handlers", "finalbody", "cases")
"""The fields of statements that list statements, or parts of them that do."""


class Imports:
    """Reads the modules below `package`, llmbuild's directory, in which there are the files `listed` (relative paths).

    Texts with a module of the packages `apart` do not count: which of these is imported is looked at elsewhere.
    """

    def __init__(self, package: Path, listed: Sequence[str], apart: Sequence[str] = ()) -> None:
        self._package = package
        self._apart = frozenset(apart)
        self._listed = listed
        self._files = frozenset(listed)
        self._found: dict[str, tuple[set[str], set[str]]] = {}
        self._closures: dict[tuple[str, ...], list[str]] = {}

    def closure(self, names: Iterable[str]) -> list[str]:
        """The files behind modules, by their dotted names, and all that these may load: sorted relative paths.

        Raises KeyError for a name that is no module of llmbuild.
        """
        key = tuple(names)
        if key not in self._closures:
            self._closures[key] = self._closure(key)
        return self._closures[key]

    def _closure(self, names: Sequence[str]) -> list[str]:
        seen: set[str] = set()
        data: set[str] = set()
        todo: list[str] = []
        for name in names:
            file = self.file_of(name)
            if file is None:
                raise KeyError(name)
            todo.append(file)
        while todo:
            file = todo.pop()
            if file in seen:
                continue
            seen.add(file)
            imported, named = self._scan(file)
            todo += imported
            todo += self._packages_of(file)
            for name in named:
                data.update(one for one in self._listed if one == name or one.startswith(f"{name}/"))
        return sorted(seen | {one for one in data if not one.endswith(".py")})

    def file_of(self, name: str) -> str | None:
        """The file of a dotted name, None where it is no module of llmbuild (a class, a function, another package)."""
        root, _, rest = name.partition(".")
        if root != _ROOT or not rest:
            return None
        path = rest.replace(".", "/")
        return next((one for one in (f"{path}/__init__.py", f"{path}.py") if one in self._files), None)

    def _packages_of(self, file: str) -> list[str]:
        parts = file.split("/")[:-1]
        inits = ("/".join((*parts[:count], "__init__.py")) for count in range(1, len(parts) + 1))
        return [init for init in inits if init in self._files]

    def _scan(self, file: str) -> tuple[set[str], set[str]]:
        """The files that a file imports itself, and the data that it names."""
        if file not in self._found:
            visitor = _read((self._package / file).read_bytes())
            imported = {found for name in visitor.names if (found := self.file_of(name)) is not None}
            for package in visitor.packages - self._apart:
                place = package.removeprefix(f"{_ROOT}.").replace(".", "/") + "/"
                imported |= {one for one in self._listed if one.startswith(place) and one.endswith(".py")}
            place = file.rpartition("/")[0]
            self._found[file] = imported, {f"{place}/{name}" if place else name for name in visitor.data}
        return self._found[file]


@cache
def _read(source: bytes) -> _Visitor:
    visitor = _Visitor(expressions=any(word in source for word in _IN_EXPRESSIONS))
    visitor.visit(ast.parse(source))
    return visitor


class _Visitor(ast.NodeVisitor):
    """Collects the modules that a file names in imports, packages of which it may import any, and names of data.

    Without `expressions` only statements are visited, which is a small part of a file and all that counts in most of them.
    """

    def __init__(self, expressions: bool) -> None:
        self._expressions = expressions
        self.names: set[str] = set()
        self.packages: set[str] = set()
        self.data: set[str] = set()

    def generic_visit(self, node: ast.AST) -> None:
        if self._expressions:
            super().generic_visit(node)
            return
        for name in _STATEMENTS:
            for child in getattr(node, name, ()):
                self.visit(child)

    def visit_If(self, node: ast.If) -> None:
        match node.test:
            case ast.Name(id="TYPE_CHECKING") | ast.Attribute(value=ast.Name(id="typing"), attr="TYPE_CHECKING"):
                for child in node.orelse:
                    self.visit(child)
            case _:
                self.generic_visit(node)

    def visit_Import(self, node: ast.Import) -> None:
        self.names.update(alias.name for alias in node.names)

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module is not None:
            self.names.add(node.module)
            self.names.update(f"{node.module}.{alias.name}" for alias in node.names)

    def visit_Call(self, node: ast.Call) -> None:
        function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if function == "import_module" and node.args:
            match node.args[0]:
                case ast.Constant(value=str(name)):
                    self.names.add(name)
                case ast.JoinedStr(values=[ast.Constant(value=str(start)), *_]) if start.startswith(f"{_ROOT}."):
                    self.packages.add(start.rpartition(".")[0])
        self._visit_data(node)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        self._visit_data(node)
        self.generic_visit(node)

    def _visit_data(self, node: ast.expr) -> None:
        below = list(ast.walk(node))
        if any(isinstance(one, ast.Name) and one.id == "__file__" for one in below):
            self.data |= {one.value for one in below if isinstance(one, ast.Constant) and isinstance(one.value, str)}
