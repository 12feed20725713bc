"""The files in a kind's key: what its modules import by the source, and what they really load."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.engine.store import Store
from llmbuild.workspace.imports import Imports
from llmbuild.workspace.tool_identities import Toolchain
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project
from tests.helpers.imports import PACKAGE, module_name

FILES = {
    "__init__.py": "import llmbuild.never",
    "a.py": """
        import json
        from typing import TYPE_CHECKING
        import llmbuild.b
        from llmbuild.pack.inner import Name
        if TYPE_CHECKING:
            from llmbuild.typed import T
        else:
            import llmbuild.other

        def late():
            from llmbuild import c
            from importlib import import_module
            import_module(f"llmbuild.found.{late}")
            import_module(f"{late}.found")
            import_module("llmbuild.named")
            return Path(__file__).parent / "data", Path(__file__).with_name("table.json"), "mentioned.json"
    """,
    "b.py": "import llmbuild.a",
    "c.py": "",
    "named.py": "",
    "other.py": "",
    "typed.py": "",
    "never.py": "",
    "mentioned.json": "",
    "table.json": "",
    "data/one.txt": "",
    "data/deep/two.txt": "",
    "database.txt": "",
    "found/__init__.py": "",
    "found/x.py": "import llmbuild.pack.more",
    "found/y.py": "",
    "pack/__init__.py": "import llmbuild.by_package",
    "pack/inner.py": "",
    "pack/more.py": "",
    "pack/unused.py": "",
    "by_package.py": "",
}


def test_a_closure_has_all_that_may_be_loaded_and_the_named_data(tmp_path: Path) -> None:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(dedent(text))
    imports = Imports(tmp_path, sorted(FILES))
    unseen = {"__init__.py", "typed.py", "never.py", "mentioned.json", "database.txt", "pack/unused.py"}
    assert imports.closure(["llmbuild.a"]) == sorted(FILES.keys() - unseen)
    assert imports.closure(["llmbuild.b"]) == imports.closure(["llmbuild.a"])
    assert imports.closure(["llmbuild.c", "llmbuild.typed"]) == ["c.py", "typed.py"]
    with pytest.raises(KeyError, match=r"llmbuild\.nothing"):
        imports.closure(["llmbuild.nothing"])


BLOCKS = """
from typing import TYPE_CHECKING
import typing

class Thing:
    import llmbuild.in_class

    async def method(self):
        for _ in ():
            import llmbuild.in_for
        else:
            import llmbuild.after_for
        while True:
            import llmbuild.in_while
        with self as x, x:
            import llmbuild.in_with

try:
    import llmbuild.in_try
except ImportError:
    import llmbuild.in_except
else:
    import llmbuild.in_else
finally:
    import llmbuild.in_finally
try:
    pass
except* ValueError:
    import llmbuild.in_group
match 1:
    case 1:
        import llmbuild.in_case
if typing.TYPE_CHECKING:
    import llmbuild.typed
elif 1:
    import llmbuild.in_elif
"""


@pytest.mark.parametrize("text", [BLOCKS, BLOCKS + "__file__\n"], ids=["statements alone", "expressions too"])
def test_an_import_in_any_block_counts(text: str, tmp_path: Path) -> None:
    named = [f"{name}.py" for name in re.findall(r"import llmbuild\.(\w+)", BLOCKS)]
    for name in named:
        (tmp_path / name).touch()
    (tmp_path / "blocks.py").write_text(text)
    found = Imports(tmp_path, sorted(["blocks.py", *named])).closure(["llmbuild.blocks"])
    assert found == sorted({"blocks.py", *named} - {"typed.py"})


def test_fetching_depends_on_no_description_of_a_model() -> None:
    chain = Toolchain(Bytes())
    behind = {name: chain.tools_of(load_kind(name))[1] for name in KIND_NAMES}
    assert not any(name.startswith(("models/", "quantization/")) for name in behind["fetch"])
    # The kernels of a family are in no key but lower's.
    assert [name for name, found in behind.items() if "models/decoder.py" in found] == ["lower"]
    # A family is in the keys of its own models.
    assert not any(
        name.startswith("models/families/") for found in behind.values() for name in found if "__init__" not in name
    )
    assert chain.families["llama"].keys() == {"models/families/llama.py"}
    assert any(name.startswith("emscripten/headers/src/") for name in behind["runtime"])
    assert not any("headers/" in name for name in behind["link"])


def test_a_kind_of_package_is_in_the_keys_of_its_own_packages() -> None:
    chain = Toolchain(Bytes())
    behind = chain.tools_of(load_kind("package"))[1]
    assert not any(name.startswith("packages/kinds/") and "__init__" not in name for name in behind)
    assert {"tasks/package.py", "packages/folder.py", "packages/kinds/__init__.py"} <= behind.keys()
    assert {"server", "web"} <= chain.package_kinds.keys()
    for kind, files in chain.package_kinds.items():
        kinds = {name for name in files if name.startswith("packages/kinds/")}
        assert kinds == {"packages/kinds/__init__.py", f"packages/kinds/{kind}.py"}
    assert "packages/chat_page.py" in chain.package_kinds["web"].keys() - chain.package_kinds["server"].keys()


class Bytes:
    def digest(self, path: Path) -> str:
        return "0" * 64


LOADED = """
import json, sys
from pathlib import Path
import llmbuild.engine.execute
# The engine looks at the record of any action with this.
import llmbuild.tasks.shapes
from llmbuild.engine.store import Store
before = set(sys.modules)
store = Store(Path(sys.argv[1]))
llmbuild.engine.execute.execute(store, sys.argv[2])
print("LOADED", json.dumps([name for name in sys.modules if name.startswith("llmbuild") and name not in before]))
"""


def test_what_a_task_loads_is_in_its_key(tmp_path: Path) -> None:
    project = make_project(tmp_path, f"{TINY_MANIFEST}[package.server]\n", checkpoint=cached_checkpoint("llama"))
    project.build("package")
    store = Store(project.store)
    chain = Toolchain(Bytes())
    seen = {}
    for trace in store.traces.all():
        done = subprocess.run(
            [sys.executable, "-c", LOADED, str(project.store), trace.action], capture_output=True, text=True, check=True
        )
        loaded = json.loads(done.stdout.rpartition("LOADED ")[2])
        files = [*chain.tools_of(load_kind(trace.kind))[1]]
        if trace.kind in ("quantize", "config", "lower"):
            files += chain.families["llama"]
        if trace.kind == "inspect":
            files += [name for listed in chain.families.values() for name in listed]
        if trace.kind == "package":
            files += chain.package_kinds["server"]
        behind = {module_name(PACKAGE / name) for name in files if name.endswith(".py")}
        seen[trace.kind] = set(loaded) - behind
        assert f"llmbuild.tasks.{trace.kind}" in loaded
    store.close()
    assert {kind: names for kind, names in seen.items() if names} == {}
    assert len(seen) >= 5


PLANNED = """
import sys
from llmbuild.cli.main import main
assert main(["plan"]) == 0
print("LOADED", [name for name in sys.modules if name.startswith("llmbuild.models.") and name != "llmbuild.models.presets"])
"""


def test_a_plan_of_what_is_known_loads_no_family(tmp_path: Path) -> None:
    manifest = TINY_MANIFEST.replace('source = "checkpoint"', 'preset = "SmolLM2-135M"').replace('"chatml"', '"LM"')
    project = make_project(tmp_path, manifest)
    assert project.run("plan").code == 0
    done = subprocess.run(
        [sys.executable, "-c", PLANNED],
        cwd=project.root,
        env={**os.environ, "LLMBUILD_CACHE": str(project.store)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.endswith("LOADED []\n")
