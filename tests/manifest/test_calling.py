"""Platforms by alias, by pattern, and `host`: which libraries a manifest then builds, under which names."""

from __future__ import annotations

import platform as machine
from pathlib import Path

import pytest

from llmbuild.errors import LlmbuildError, UsageError
from llmbuild.manifest.inputs_read import all_current
from llmbuild.manifest.load import load
from llmbuild.manifest.project import Project
from llmbuild.plan.narrow import narrow
from llmbuild.targets.names import HOST, TargetNames, host_target
from llmbuild.workspace.named_platforms import platforms_named
from llmbuild.workspace.patterns import as_named, with_named

MODEL = '[models.a]\npreset = "smollm2_135m"\n'


def build(platforms: str, *more: str, scheme: str = "q4f32_1") -> str:
    return "\n".join((MODEL, "[[build]]", f'quantizations = ["{scheme}"]', f"platforms = {platforms}", *more, ""))


def project(path: Path, text: str) -> Project:
    return load(path / "buildfile.toml", text).project


def platforms(path: Path, text: str) -> list[str]:
    return [cell.platform for cell in project(path, text).matrix]


@pytest.mark.parametrize(
    ("alias", "target", "library"),
    [
        ("web", "wasm32-webgpu", "a-q4f32_1-web.wasm"),
        ("iphone", "aarch64-ios-metal", "a-q4f32_1-iphone.tar"),
        ("android", "aarch64-android-opencl", "a-q4f32_1-android.tar"),
        ("cuda", "x86_64-linux-cuda", "a-q4f32_1-cuda.so"),
    ],
)
def test_an_alias_is_the_name_of_a_platform_of_its_target(
    tmp_path: Path, alias: str, target: str, library: str
) -> None:
    found = project(tmp_path, build(f'["{alias}"]'))
    plain = project(tmp_path, build(f'["{target}"]'))
    (cell,) = found.matrix
    assert (cell.platform, cell.library) == (alias, f"dist/libs/{library}")
    platform, same = found.platforms[alias], plain.platforms[target]
    assert platform.target == target and not platform.by_machine
    # Nothing that a key is made of depends on the name.
    assert (platform.compile, platform.link, platform.artifact) == (same.compile, same.link, same.artifact)


def test_a_table_of_an_aliass_name_wins_and_takes_its_target_where_it_gives_none(tmp_path: Path) -> None:
    text = build('["web", "cuda"]')
    found = project(
        tmp_path,
        text
        + '[platforms.web]\nmetadata = { prefill-chunk-size = 64 }\n[platforms.cuda]\ntarget = "x86_64-linux-cpu"\n',
    )
    assert found.platforms["web"].target == "wasm32-webgpu"
    assert found.platforms["web"].metadata == {"prefill-chunk-size": 64}
    assert found.platforms["cuda"].target == "x86_64-linux-cpu"
    assert project(tmp_path, text + '[platforms.x]\ntarget = "web"\n').platforms["x"].target == "wasm32-webgpu"


def test_a_target_of_the_projects_own_with_an_aliass_name_wins(tmp_path: Path) -> None:
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "web.toml").write_text('[target]\nextends = "x86_64-linux-cpu"\n')
    (tmp_path / "targets" / "mine.toml").write_text('[target]\nextends = "x86_64-linux-cuda"\naliases = ["box"]\n')
    assert project(tmp_path, build('["web"]')).platforms["web"].target == "web"
    # An alias belongs to the file that has it, and is not inherited.
    assert project(tmp_path, build('["box"]')).platforms["box"].target == "mine"
    (tmp_path / "targets" / "other.toml").write_text('[target]\nextends = "mine"\naliases = ["box"]\n')
    with pytest.raises(UsageError, match="two targets have the alias 'box'"):
        project(tmp_path, build('["box"]'))


@pytest.mark.parametrize(
    ("system", "cpu", "target"),
    [
        ("linux", "x86_64", "x86_64-linux-cpu"),
        ("linux", "AARCH64", "aarch64-linux-cpu"),
        ("linux", "arm64", "aarch64-linux-cpu"),
    ],
)
def test_host_is_this_machines_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, system: str, cpu: str, target: str
) -> None:
    monkeypatch.setattr("sys.platform", system)
    monkeypatch.setattr(machine, "machine", lambda: cpu)
    found = project(tmp_path, build('["host"]'))
    assert found.platforms[HOST].target == target and found.platforms[HOST].by_machine
    assert found.matrix[0].library == "dist/libs/a-q4f32_1-host.so"


def test_a_machine_without_a_target_has_no_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "machine", lambda: "riscv64")
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UsageError, match="unknown platform 'host'") as caught:
        project(tmp_path, build('["host"]'))
    assert caught.value.fix is not None
    assert caught.value.fix.startswith("there is no target for this machine's CPU (riscv64-linux-cpu)")


def test_an_expanded_manifest_is_read_again_on_another_kind_of_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "machine", lambda: "x86_64")
    (tmp_path / "buildfile.toml").write_text(build('["host"]'))
    reads = load(tmp_path / "buildfile.toml").reads
    assert all_current(reads)
    monkeypatch.setattr(machine, "machine", lambda: "aarch64")
    assert not all_current(reads)


def test_a_pattern_calls_every_target_that_no_table_is_for(tmp_path: Path) -> None:
    everything = {name for name in TargetNames().own if not name.endswith("-native")}
    assert set(platforms(tmp_path, build('["*"]'))) == everything
    table = '[platforms.page]\ntarget = "wasm32-webgpu"\n'
    assert set(platforms(tmp_path, build('["*"]') + table)) == everything - {"wasm32-webgpu"} | {"page"}
    # What is named, itself or by an alias, is built under that name alone.
    assert set(platforms(tmp_path, build('["web", "*"]'))) == everything - {"wasm32-webgpu"} | {"web"}
    assert platforms(tmp_path, build('["*-cuda"]')) == ["aarch64-linux-cuda", "x86_64-linux-cuda"]
    assert all(cell.by_pattern for cell in project(tmp_path, build('["*-cuda"]')).matrix)


def test_what_is_named_elsewhere_is_no_second_cell_of_a_pattern(tmp_path: Path) -> None:
    text = build('["*-cuda"]') + '[[build]]\nquantizations = ["q4f32_1"]\nplatforms = ["x86_64-linux-cuda"]\n'
    found = project(tmp_path, text + "metadata = { max-batch-size = 4 }\n")
    cells = {cell.platform: cell for cell in found.matrix}
    assert not cells["x86_64-linux-cuda"].by_pattern and cells["x86_64-linux-cuda"].metadata["max-batch-size"] == 4
    assert cells["aarch64-linux-cuda"].by_pattern


def test_an_exclude_takes_patterns_and_aliases(tmp_path: Path) -> None:
    text = build('["*"]', 'exclude = [{ platform = "*-linux-*" }, { platform = "web" }, { platform = "android" }]')
    found = platforms(tmp_path, text)
    assert found and not {"wasm32-webgpu", "aarch64-android-opencl"} & set(found)
    assert not [name for name in found if "-linux-" in name]
    with pytest.raises(UsageError, match="matches nothing"):
        platforms(tmp_path, build('["web"]', 'exclude = [{ platform = "*-cuda" }]'))


def test_a_pattern_leaves_out_what_cannot_compute_in_the_schemes_type(tmp_path: Path) -> None:
    loaded = load(tmp_path / "buildfile.toml", build('["*"]', scheme="q4bf16_1"))
    found = [cell.platform for cell in loaded.project.matrix]
    assert "x86_64-linux-cuda" in found and "wasm32-webgpu" not in found
    assert [note for note in loaded.notes if "wasm32-webgpu" in note and "cannot compute in bfloat16" in note]
    with pytest.raises(LlmbuildError, match="the build is empty: no platform can compute this"):
        load(tmp_path / "buildfile.toml", build('["*-metal"]', scheme="q4bf16_1"))


def test_a_pattern_that_fits_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no platform or target fits '\*-tpu'"):
        platforms(tmp_path, build('["*-tpu"]'))


def test_options_name_platforms_by_alias_and_pattern(tmp_path: Path) -> None:
    found = project(tmp_path, build('["wasm32-webgpu", "x86_64-linux-cuda", "aarch64-linux-cuda", "iphone"]'))
    assert platforms_named(found, ("web",)) == ("wasm32-webgpu",)
    assert platforms_named(found, ("iphone", "cuda")) == ("iphone", "x86_64-linux-cuda")
    assert platforms_named(found, ("*-cuda",)) == ("x86_64-linux-cuda", "aarch64-linux-cuda")
    # A target is not what an alias is: its own name calls the platform of that name alone.
    assert platforms_named(found, ("aarch64-ios-metal",)) == ("aarch64-ios-metal",)
    with pytest.raises(UsageError, match="no platform is named 'android'"):
        narrow(found, platforms=platforms_named(found, ("android",)))


def test_platforms_that_the_user_names_are_not_of_a_pattern(tmp_path: Path) -> None:
    found = project(tmp_path, build('["*-cuda"]'))
    assert not any(cell.by_pattern for cell in as_named(found).matrix)
    named = with_named(found, ["lower[a, q4f32_1, x86_64-linux-cuda]"])
    assert {cell.platform: cell.by_pattern for cell in named.matrix} == {
        "aarch64-linux-cuda": True,
        "x86_64-linux-cuda": False,
    }


def test_the_name_of_this_machines_target() -> None:
    assert host_target() == TargetNames().aliases[HOST]
