"""docs/python.md keeps its promises, and so does each name of llmbuild's Python that a document has."""

from __future__ import annotations

import ast
import importlib
import os
import re
import subprocess
from pathlib import Path

from tests.helpers.wheel import install

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs/python.md").read_text(encoding="utf-8")
PLACES = {
    "Workspace": "workspace/workspace.py",
    "Explanation": "workspace/workspace.py",
    "BuildOutcome": "workspace/outcome.py",
    "LockOutcome": "workspace/pinning.py",
    "BuildReport": "report/build_report.py",
    "Output": "workspace/outcome.py",
    "Plan": "plan/planner.py",
    "Verdict": "plan/planner.py",
    "Model": "runtime/model.py",
    "TurnStatistics": "runtime/completer.py",
}
"""Where the classes of the listing are; its functions are in `llmbuild` itself."""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.DOTALL | re.MULTILINE)


def signatures(body: list[ast.stmt]) -> dict[str, str]:
    """The functions and fields that a user may call and read, as their definitions begin."""
    found = {}
    for node in body:
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
            decorators = [ast.unparse(one) for one in node.decorator_list]
            found[node.name] = (
                f"{decorators} ({ast.unparse(node.args)}) -> {node.returns and ast.unparse(node.returns)}"
            )
        elif isinstance(node, ast.AnnAssign):
            found[ast.unparse(node.target)] = ast.unparse(node.annotation)
    return found


def test_the_listing_is_what_there_is() -> None:
    (listing,) = blocks("py")
    listed = ast.parse(listing).body
    own = ast.parse((ROOT / "llmbuild/__init__.py").read_text(encoding="utf-8")).body
    assert signatures(listed) == signatures(own)
    for node in listed:
        if isinstance(node, ast.ClassDef):
            source = ast.parse((ROOT / "llmbuild" / PLACES[node.name]).read_text(encoding="utf-8"))
            (real,) = [one for one in source.body if isinstance(one, ast.ClassDef) and one.name == node.name]
            # What has no default here is a field there, or is set by the constructor.
            assert signatures(node.body).items() <= {**_set_by_init(real), **signatures(real.body)}.items()


def _set_by_init(node: ast.ClassDef) -> dict[str, str]:
    """The attributes that a constructor sets, with the type that it says or that of the value."""
    found = {}
    for each in ast.walk(node):
        if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Attribute):
            found[each.target.attr] = ast.unparse(each.annotation)
        elif isinstance(each, ast.Assign) and isinstance(each.targets[0], ast.Attribute):
            called = each.value.func if isinstance(each.value, ast.Call) else each.value
            found[each.targets[0].attr] = ast.unparse(called)
    return found


def test_the_examples_run_in_an_empty_directory_from_the_wheel(
    tmp_path: Path, distributions: tuple[Path, Path]
) -> None:
    python = install(distributions[1], tmp_path / "environment")
    work = tmp_path / "work"
    work.mkdir()
    # Nothing of this environment but what any has: no path of Python, no cache, no compiler's choice.
    environment = {"HOME": str(tmp_path), "PATH": os.defpath, "PYTHONIOENCODING": "utf-8", "TVM_BIND_THREADS": "0"}
    result = subprocess.run(
        [python, "-c", "\n".join([*blocks("python"), "print(llmbuild.__file__)"])],
        cwd=work,
        env=environment,
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
        timeout=600,
    )
    assert result.returncode == 0, result.stderr
    assert "the context window" in result.stdout
    assert result.stdout.splitlines()[-1].startswith(str(python.parent.parent))


def test_every_module_and_function_that_a_document_names_is_there() -> None:
    named = {}
    for path in (*ROOT.glob("docs/*.md"), ROOT / "README.md"):
        for name in re.findall(r"\bllmbuild(?:\.[A-Za-z_]\w*)+(?![\w/*-])", path.read_text(encoding="utf-8")):
            named.setdefault(name, path.name)
    # The lock file is no module.
    named.pop("llmbuild.lock", None)
    assert {"llmbuild.load", "llmbuild.open", "llmbuild.LlmbuildError"} <= named.keys()
    assert {name: place for name, place in named.items() if not _there(name)} == {}


def _there(name: str) -> bool:
    module, _, attribute = name.rpartition(".")
    try:
        return hasattr(importlib.import_module(module), attribute) or bool(importlib.import_module(name))
    except ImportError:
        return False
