"""A user's own target file is part of the key: each of its values changes the tasks that read it, and no others."""

from __future__ import annotations

from pathlib import Path

import pytest

from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.engine.task import Task
from llmbuild.manifest.load import load
from llmbuild.plan.graph import expand
from llmbuild.tasks.lower import COMPILE_FIELDS
from tests.helpers import plans

MANIFEST = """\
[models.a]
source = "a"
conv-template = "chatml"
[[build]]
quantizations = ["q4f32_1"]
platforms = ["mine"]
"""
BASE = '[target]\nextends = "x86_64-linux-cpu"\n'
MINE = '[target]\nextends = "base"\n'


def tasks(place: Path, mine: str, base: str = BASE) -> dict[str, Task]:
    """The tasks of a project whose target `mine` extends `base`, both of the project's own, by kind."""
    place.mkdir()
    (place / "targets").mkdir()
    (place / "targets" / "mine.toml").write_text(mine)
    (place / "targets" / "base.toml").write_text(base)
    project = load(place / "buildfile.toml", MANIFEST).project
    kinds = {name: load_kind(name) for name in KIND_NAMES}
    return {task.kind: task for task in expand(project, plans.observed(project), kinds, COMPILE_FIELDS)}


EDITS: dict[str, tuple[str, set[str]]] = {
    "description": ('description = "another"\n', set()),
    "cpu": ('[host]\ncpu = "znver3"\n', {"lower"}),
    "features": ('[host]\nfeatures = ["+avx512bf16"]\n', {"lower"}),
    "triple": ('[host]\ntriple = "x86_64-alpine-linux-musl"\n', {"lower", "link"}),
    "device attribute": ("[device]\nnum-cores = 2\n", {"lower"}),
    "another device": ('[device]\nkind = "opencl"\n', {"lower"}),
    "architectures": ('[device]\nkind = "cuda"\narchs = ["sm_90"]\n', {"lower"}),
    "link flags": ('[link]\nflags = ["-s"]\n', {"link"}),
    "compiler": ('[link]\ncompiler = "gcc"\n', {"link"}),
    "linker": ('[link]\nlinker = "zig"\n', {"link"}),
    "minimum system": ('[link]\nminimum-os = "13.0"\n', {"link"}),
    "needed libraries": ('[link]\nneeded = ["c"]\n', {"link"}),
    "artifact": ('[artifact]\ndefault = "tar"\n', {"lower", "link"}),
    "prefix of a shared library": ('[artifact]\nsystem-lib-prefix = "x_"\n', set()),
    "prefix of an archive": ('[artifact]\ndefault = "tar"\nsystem-lib-prefix = "x_"\n', {"lower", "link"}),
    "sizes": ("[defaults]\nmetadata = { max-batch-size = 4 }\n", {"lower"}),
    "flags that a CPU cannot have": ('[defaults]\nopt = "O0"\n', set()),
    "number types": ('[supports]\ndtypes = ["float32"]\n', set()),
    "several devices": ("[supports]\nseveral-devices = true\n", set()),
    "commands": ('[requires]\ntools = ["sh"]\n', set()),
    "features of the scheme's number type": ('[requires]\nfeatures = { float32 = ["x"] }\n', {"lower"}),
    "features of another number type": ('[requires]\nfeatures = { float16 = ["x"] }\n', set()),
}


@pytest.mark.parametrize("name", EDITS)
@pytest.mark.parametrize("where", ["mine", "base"])
def test_an_edit_of_a_target_file_changes_the_tasks_that_read_it(tmp_path: Path, name: str, where: str) -> None:
    edit, kinds = EDITS[name]
    before = tasks(tmp_path / "before", MINE)
    after = tasks(tmp_path / "after", MINE + edit) if where == "mine" else tasks(tmp_path / "after", MINE, BASE + edit)
    changed = {kind for kind in before if dict(before[kind].params) != dict(after[kind].params)}
    assert changed == kinds
    assert {kind: task.tools for kind, task in before.items()} == {kind: task.tools for kind, task in after.items()}


def test_a_value_of_the_nearer_file_hides_that_of_the_base(tmp_path: Path) -> None:
    mine = MINE + '[host]\ncpu = "znver3"\n'
    before = tasks(tmp_path / "before", mine)
    after = tasks(tmp_path / "after", mine, BASE + '[host]\ncpu = "znver4"\n')
    assert {kind: task.params for kind, task in before.items()} == {kind: task.params for kind, task in after.items()}


def test_a_library_for_a_device_has_its_record_beside_it(tmp_path: Path) -> None:
    cpu = tasks(tmp_path / "cpu", MINE)
    assert [install.dest for install in cpu["lower"].installs] == []
    web = tasks(tmp_path / "web", '[target]\nextends = "wasm32-webgpu"\n')
    assert [(install.source, install.dest) for install in web["lower"].installs] == [
        ("metadata.json", "dist/libs/a-q4f32_1-mine.wasm.json")
    ]


def test_a_type_of_model_in_the_prefix_is_read_from_the_record(tmp_path: Path) -> None:
    phone = tasks(tmp_path / "phone", '[target]\nextends = "aarch64-ios-metal"\n')
    assert phone["lower"].params["system-lib-prefix"] == "{model_type}_q4f32_1_"
    assert set(phone["link"].inputs) == {"objects", "library"}
    own = tasks(
        tmp_path / "own",
        '[target]\nextends = "aarch64-ios-metal"\n[artifact]\nsystem-lib-prefix = "{model}_{quantization}_"\n',
    )
    assert own["link"].params["system-lib-prefix"] == "a_q4f32_1_"
    assert set(own["link"].inputs) == {"objects"}
