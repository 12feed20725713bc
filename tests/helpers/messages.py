"""What llmbuild can say, read from its source, and what the golden files show that it says.

A template is a piece of text in a call that makes an error: f-strings have gaps where their values go.  Functions that pass
a parameter on to such a call count as well, so a helper that is given the text is followed to where the text stands.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
GOLDEN = ROOT / "tests" / "messages" / "golden"

ERRORS = frozenset({
    "LlmbuildError", "UsageError", "InputError", "FetchError", "ToolchainError", "StoreError", "VerifyError", "Interrupted",
    "SourceError", "RefusedError", "UnfitValueError", "MissingBlobError", "TaskFailure", "run_tool",
})  # fmt: skip
"""What carries a message to the user; those that are no LlmbuildError become the text of one."""

_Function = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Template:
    """A text in the source; `pieces` are its constant parts, in order."""

    file: str
    line: int
    pieces: tuple[str, ...]

    @property
    def text(self) -> str:
        return "…".join(self.pieces)

    @property
    def pattern(self) -> re.Pattern[str]:
        return _pattern(self.pieces)

    def __str__(self) -> str:
        return f"llmbuild/{self.file}:{self.line}: {self.text}"


@cache
def _pattern(pieces: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(r"[\s\S]{0,4000}?".join(re.escape(plain(piece)) for piece in pieces))


def plain(text: str) -> str:
    """The text without colours and with its white space as single blanks, as wrapping leaves it comparable."""
    return re.sub(r"\s+", " ", re.sub(r"(?:\x1b|␛)\[\d+m", "", text)).strip()


@cache
def templates() -> tuple[Template, ...]:
    """Every text of every error, by file and line.  What has no word in it (a separator, a plural's s) is left out."""
    found: dict[tuple[str, tuple[str, ...]], Template] = {}
    for path in sorted((ROOT / "llmbuild").rglob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = _carriers(tree)
        file = path.relative_to(ROOT / "llmbuild").as_posix()
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and (_name(node) in names or _adds_problem(node) or _names_key(node)):
                for line, pieces in _texts([*node.args, *(keyword.value for keyword in node.keywords)]):
                    found.setdefault((file, pieces), Template(file, line, pieces))
    return tuple(found.values())


def _name(call: ast.Call) -> str:
    return getattr(call.func, "id", getattr(call.func, "attr", ""))


def _adds_problem(call: ast.Call) -> bool:
    """`problems.add(key, what, …)`: the collected errors of a manifest."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "add" and len(call.args) == 2


def _names_key(call: ast.Call) -> bool:
    """`source.error(key, what, …)`: an error about a key of a configuration, and functions of that shape."""
    return isinstance(call.func, ast.Attribute) and call.func.attr == "error"


def _carriers(tree: ast.Module) -> frozenset[str]:
    """The errors, and the module's functions that pass one of their parameters on to one as a text of it."""
    names = set(ERRORS)
    functions = [node for node in ast.walk(tree) if isinstance(node, _Function) and not node.name.startswith("__")]
    passing = [(one.name, given_to) for one in functions if (given_to := _passes_on_to(one))]
    while more := {name for name, given_to in passing if name not in names and given_to & names}:
        names |= more
    return frozenset(names)


def _passes_on_to(function: _Function) -> set[str]:
    """What the function calls with a parameter of its own that is a text."""
    arguments = function.args
    own = {one.arg for one in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)}
    own &= {"what", "why", "fix", "message", "text", "problem", "wrong", "said", "sentence", "reason"}
    if not own:
        return set()
    return {
        _name(node)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        for value in (*node.args, *(keyword.value for keyword in node.keywords))
        if isinstance(value, ast.Name) and value.id in own
    }


def _texts(nodes: Iterable[ast.expr]) -> Iterator[tuple[int, tuple[str, ...]]]:
    for node in nodes:
        match node:
            case ast.Constant(value=str(text)):
                if _says_something(text):
                    yield node.lineno, (text,)
            case ast.JoinedStr(values=values):
                pieces = tuple(str(part.value) for part in values if isinstance(part, ast.Constant))
                if _says_something(" ".join(pieces)):
                    yield node.lineno, pieces
            case ast.IfExp(body=body, orelse=orelse):
                yield from _texts([body, orelse])
            case ast.BoolOp(values=values):
                yield from _texts(values)
            case ast.BinOp(left=left, right=right):
                yield from _texts([left, right])


def _says_something(text: str) -> bool:
    """Whether it is a sentence's part: two words, and no key or path."""
    return len(re.findall(r"[A-Za-z]{2,}", text)) > 1 and " " in text.strip()


def shown(leave_out: Collection[Path] = ()) -> tuple[str, ...]:
    """What each golden file of the tests shows, made plain."""
    found = sorted(set((ROOT / "tests").rglob("golden/*.txt")) - set(leave_out))
    return tuple(plain(path.read_text(encoding="utf-8")) for path in found)


def missing(texts: Sequence[str], wanted: Iterable[Template]) -> list[Template]:
    """The templates that no text matches."""
    return [one for one in wanted if not any(one.pattern.search(text) for text in texts)]
