"""Target files: what comes with llmbuild, inheritance, a user's own, errors, and the CPU of this machine."""

from __future__ import annotations

import contextlib
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from llmbuild.canonical import canonical_json
from llmbuild.cli.main import main
from llmbuild.errors import ExitCode, LlmbuildError, MultiError, ToolchainError, UsageError
from llmbuild.targets.cpu import native_cpu
from llmbuild.targets.files import load_target
from llmbuild.targets.names import bundled_directory, target_names
from llmbuild.targets.target import RequiredCommand
from tests.helpers.replaced_parts import mutations

TRIPLE = "x86_64-unknown-linux-gnu"
BASE = '[target]\nextends = "x86_64-linux-cpu"\n'
V3 = "cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 abm avx avx2 bmi1 bmi2 f16c fma movbe xsave"
V4 = V3 + " avx512f avx512bw avx512cd avx512dq avx512vl"


def on_machine(monkeypatch: pytest.MonkeyPatch, machine: str) -> None:
    monkeypatch.setattr("llmbuild.targets.cpu.os", SimpleNamespace(uname=lambda: SimpleNamespace(machine=machine)))


@pytest.fixture
def on_x86(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "x86_64")


def test_bundled_targets() -> None:
    assert {"x86_64-linux-cpu", "x86_64-linux-cpu-native"} <= set(target_names())
    for name in target_names():
        assert load_target(name).description
    target = load_target("x86_64-linux-cpu")
    host = {"kind": "llvm", "mtriple": TRIPLE, "mcpu": "x86-64-v3"}
    assert target.compile_part() == {"device": host, "host": host}
    assert target.link_part() == {"flags": [], "triple": TRIPLE}
    assert (target.artifacts, target.artifact) == (("so", "tar"), "so")


def test_targets_of_an_installed_wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "llmbuild"
    (package / "_targets").mkdir(parents=True)
    monkeypatch.setattr("llmbuild.targets.names.__file__", str(package / "targets" / "names.py"))
    assert bundled_directory() == package / "_targets"


def test_extends_inherits_key_by_key(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[target]\nextends = "base"\n[device]\nkind = "cuda"\narchs = ["sm_90", "sm_100", "sm_90a"]\n[host]\nfeatures = ["+x"]\n'
        '[defaults.metadata]\nmax-batch-size = 4\n[requires]\ntools = ["no-such-tool-here"]\n'
    )
    (tmp_path / "base.toml").write_text(
        '[target]\nextends = "x86_64-linux-cpu"\ndescription = "mine"\n[defaults]\nopt = "O1"\n'
        "metadata = { context-window-size = 64, max-batch-size = 1 }\n"
    )
    target = load_target("mine", tmp_path)
    assert target.compile_part() == {
        "device": {"kind": "cuda", "arch": "sm_90"},
        "archs": ["sm_90", "sm_90a", "sm_100"],
        "host": {"kind": "llvm", "mtriple": TRIPLE, "mcpu": "x86-64-v3", "mattr": ["+x"]},
    }
    assert (target.description, target.opt) == ("mine", "O1")
    assert target.metadata == {"context-window-size": 64, "max-batch-size": 4}
    assert [path.name for path in target.files] == [
        "mine.toml",
        "base.toml",
        "x86_64-linux-cpu.toml",
        "_x86_64-linux.toml",
    ]
    assert target.missing_tools() == (RequiredCommand("no-such-tool-here"),)


def test_a_users_target_may_alter_one_of_the_same_name(tmp_path: Path) -> None:
    (tmp_path / "x86_64-linux-cpu.toml").write_text('[target]\nextends = "x86_64-linux-cpu"\n[host]\ncpu = "znver3"\n')
    assert load_target("x86_64-linux-cpu", tmp_path).cpu == "znver3"
    # The native target that comes with llmbuild now extends the user's; its own keys win.
    assert load_target("x86_64-linux-cpu-native", tmp_path).files[1].parent == tmp_path


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[target]\n[hots]\n", "t.toml:2: hots", "unknown table"),
        ('[target]\nextend = "x"\n', "t.toml:2: target.extend", "unknown key"),
        ("[host]\ntriple = 3\n", "t.toml:2: host.triple", "must be a string"),
        ("[host]\nfeatures = [3]\n", "t.toml:2: host.features", "list of strings"),
        ("host = 3\n", "t.toml:1: host", "must be a table"),
        ('[target]\nname = "u"\n', "t.toml:2: target.name", "must be the file's"),
        ("[defaults]\nmetadata = { x = '1' }\n", "t.toml:2: defaults.metadata", "whole numbers"),
        ('[target]\nextends = "t"\n', "t.toml:2: target.extends", "unknown target 't'"),
        ('[target]\nextends = "x86_64-linux"\n', "t.toml:2: target.extends", "unknown target"),
        (
            '[target]\nextends = "x86_64-linux-cpu"\n[artifact]\nkinds = ["elf"]\n',
            "t.toml:4: artifact.kinds",
            "'elf' is not one of",
        ),
        (
            '[target]\nextends = "x86_64-linux-cpu"\n[artifact]\ndefault = "dll"\n',
            "t.toml:4: artifact.default",
            "'dll' is not one of so, tar",
        ),
        ('[target]\nextends = "x86_64-linux-cpu"\n[link]\nlinker = "ld"\n', "t.toml:4: link.linker", "not one of cc"),
        ("[target\n", "t.toml:1", "not valid TOML"),
        (BASE + '[device]\nkind = "cudda"\n', "t.toml:4: device.kind", "unknown device kind 'cudda'"),
        (BASE + '[device]\nkind = "metal"\nthreads = 2\n', "t.toml:5: device.threads", "no attribute 'threads'"),
        (BASE + '[device]\nkind = "metal"\nlibs = 2\n', "t.toml:5: device.libs", "must be a list of strings"),
        (BASE + '[device]\nkind = "cuda"\n', "t.toml:3: device", "no architecture is named"),
        (BASE + '[device]\nkind = "cuda"\narchs = ["sm90"]\n', "t.toml:5: device.archs", "architecture 'sm90'"),
        (BASE + '[device]\nkind = "cuda"\narchs = "sm_90"\n', "t.toml:5: device.archs", "must be a list of strings"),
        (BASE + '[device]\nkind = "cuda"\narchs = ["sm_90", "sm_90"]\n', "t.toml:5: device.archs", "listed twice"),
        (BASE + '[supports]\ndtypes = ["float8"]\n', "t.toml:4: supports.dtypes", "'float8' is not one of float32"),
        (BASE + "[supports]\nseveral-devices = 2\n", "t.toml:4: supports.several-devices", "must be true or false"),
        (BASE + '[requires]\ntools = [{ name = "x" }]\n', "t.toml:4: requires.tools", "must be a list of commands"),
        (BASE + '[requires]\nfeatures = { float16 = "x" }\n', "t.toml:4: requires.features", "lists of strings"),
        (BASE + '[artifact]\nsystem-lib-prefix = "3_"\n', "t.toml:4: artifact.system-lib-prefix", "cannot begin"),
        (
            BASE + '[artifact]\nsystem-lib-prefix = "{a}"\n',
            "t.toml:4: artifact.system-lib-prefix",
            "stands for nothing",
        ),
        (BASE + '[artifact]\nsystem-lib-prefix = "{"\n', "t.toml:4: artifact.system-lib-prefix", "stands for nothing"),
        (BASE + '[host]\ntriple = "./x-linux-gnu"\n', "t.toml:4: host.triple", "'./x-linux-gnu' is no triple"),
        (BASE + "[link]\nminimum-os = 13\n", "t.toml:4: link.minimum-os", "must be a string"),
    ],
)
def test_wrong_target_files(tmp_path: Path, text: str, where: str, what: str) -> None:
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(UsageError) as caught:
        load_target("t", tmp_path)
    assert caught.value.where == f"{tmp_path}/{where}"
    assert what in caught.value.what


def test_another_kind_of_device_inherits_no_limits(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[target]\nextends = "x86_64-linux-cuda"\n[device]\nkind = "opencl"\nmax_num_threads = 64\n'
    )
    target = load_target("mine", tmp_path)
    assert target.compile_part()["device"] == {"kind": "opencl", "max_num_threads": 64}
    assert (target.archs, target.several_devices) == ((), False)


def test_what_a_device_can_do_is_said_in_the_file(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text(
        '[target]\nextends = "wasm32-webgpu"\n[supports]\ndtypes = ["float32"]\nseveral-devices = true\n'
        '[requires]\nfeatures = { float32 = ["subgroups"] }\n'
        'tools = ["a", { command = "b", install = "apt install b" }]\n'
        '[link]\nminimum-os = "14.0"\nneeded = []\nlinker = "emcc"\n'
    )
    target = load_target("mine", tmp_path)
    assert [target.can_compute(dtype) for dtype in ("float32", "float16")] == [True, False]
    assert target.several_devices
    assert target.features == {"float32": ("subgroups",)}
    assert target.tools == (RequiredCommand("a"), RequiredCommand("b", "apt install b"))
    link = {"triple": target.triple, "flags": [], "linker": "emcc", "minimum-os": "14.0", "needed": []}
    assert target.link_part() == link


def test_files_to_be_extended_are_no_targets(tmp_path: Path) -> None:
    (tmp_path / "_base.toml").write_text('[target]\nextends = "aarch64-linux-cpu"\ndescription = "x"\n')
    (tmp_path / "mine.toml").write_text('[target]\nextends = "_base"\n')
    names = target_names(tmp_path)
    assert "mine" in names
    assert not any(name.startswith("_") for name in names)
    assert [path.stem for path in load_target("mine", tmp_path).files] == [
        "mine",
        "_base",
        "aarch64-linux-cpu",
        "_aarch64-linux",
    ]


def test_all_missing_keys_and_loops_are_said(tmp_path: Path) -> None:
    (tmp_path / "t.toml").write_text("[target]\n")
    with pytest.raises(MultiError) as caught:
        load_target("t", tmp_path)
    assert len(caught.value.errors) == 3
    (tmp_path / "a.toml").write_text('[target]\nextends = "b"\n')
    (tmp_path / "b.toml").write_text('[target]\nextends = "a"\n')
    with pytest.raises(UsageError, match="extends itself"):
        load_target("a", tmp_path)


@pytest.mark.parametrize(
    ("flags", "cpu", "features"),
    [
        ("fpu sse2", "x86-64", ()),
        ("cx16 lahf_lm popcnt pni sse4_1 sse4_2 ssse3 avx_vnni", "x86-64-v2", ()),
        (V3, "x86-64-v3", ()),
        (V3 + " avx_vnni avx512f avx512_bf16", "x86-64-v3", ("+avxvnni",)),
        (V4, "x86-64-v4", ()),
        (
            V4 + " avx512_bf16 amx_tile avx_vnni avx512_vnni",
            "x86-64-v4",
            ("+avxvnni", "+avx512vnni", "+avx512bf16"),
        ),
    ],
)
@pytest.mark.usefixtures("on_x86")
def test_native_cpu(tmp_path: Path, flags: str, cpu: str, features: tuple[str, ...]) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    # The second core has more: what not every core has is not used.
    cpuinfo.write_text(f"processor : 0\nflags\t\t: {flags}\n\nflags\t\t: {V4} avx512_fp16 {flags}\n")
    assert native_cpu(TRIPLE, cpuinfo) == (cpu, features)


@pytest.mark.usefixtures("on_x86")
def test_native_cpu_that_cannot_be_told(tmp_path: Path) -> None:
    with pytest.raises(ToolchainError, match="native target"):
        native_cpu("aarch64-linux-gnu")
    with pytest.raises(ToolchainError, match="No such file"):
        native_cpu(TRIPLE, tmp_path / "none")
    (tmp_path / "cpuinfo").write_text("Features : asimd\n")
    with pytest.raises(ToolchainError, match="lists no flags"):
        native_cpu(TRIPLE, tmp_path / "cpuinfo")


def test_native_on_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    on_machine(monkeypatch, "aarch64")
    with pytest.raises(LlmbuildError, match="machine of its own kind"):
        load_target("x86_64-linux-cpu-native").compile_part()


def test_targets_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "mine.toml").write_text(
        '[target]\nextends = "x86_64-linux-cpu"\n[link]\ncompiler = "no-such-compiler"\n'
    )
    monkeypatch.setenv("LLMBUILD_TRUST", "1")
    assert main(["targets"]) == 0
    rows = capsys.readouterr().out.splitlines()
    assert rows[0].split() == ["TARGET", "ALIAS", "ARTIFACTS", "ON", "THIS", "MACHINE"]
    [mine] = [index for index, row in enumerate(rows) if row.startswith("mine")]
    assert rows[mine].endswith("only tar")
    # What it is for, and what is missing, stand below it, at 80 columns.
    assert rows[mine + 1].startswith("    x86-64 Linux") and "no-such-compiler" in rows[mine + 2]
    assert max(map(len, rows)) <= 80
    assert main(["targets", "host", "cuda"]) == 0
    assert "  alias     cuda\n" in capsys.readouterr().out
    assert main(["targets", "mine"]) == 0
    assert "extends   x86_64-linux-cpu" in capsys.readouterr().out
    assert main(["targets", "mine", "--json"]) == 0
    [value] = json.loads(capsys.readouterr().out)
    assert value["ready"] == ["tar"]
    assert main(["targets", "mime"]) == 2
    assert "did you mean 'mine'" in capsys.readouterr().err


SMALL: dict[str, Any] = {
    "target": {"name": "mine", "description": "x"},
    "device": {"kind": "cuda", "archs": ["sm_90"], "max_num_threads": 64, "libs": ["a"], "l2_cache_size_bytes": 1},
    "supports": {"dtypes": ["float32"], "several-devices": False},
    "host": {"triple": TRIPLE, "cpu": "x86-64", "features": ["+x"]},
    "artifact": {"kinds": ["so", "tar"], "default": "so", "system-lib-prefix": "a_"},
    "link": {"linker": "elf", "flags": ["-s"], "needed": ["libc.so.6"]},
    "defaults": {"opt": "O2", "metadata": {"max-batch-size": 4}},
    "requires": {"tools": ["cc", {"command": "x", "install": "y"}], "features": {"float16": ["f"]}},
}


def as_toml(value: Any) -> str:
    """A JSON value in TOML; a date stands for null, which TOML lacks, and the largest number for those that it lacks."""
    if value is None:
        return "1979-05-27"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{json.dumps(key)} = {as_toml(part)}" for key, part in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(as_toml, value)) + "]"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return json.dumps(min(value, (1 << 63) - 1) if isinstance(value, int) else value)


def test_any_value_in_any_place_is_taken_or_refused(tmp_path: Path) -> None:
    for value in mutations(SMALL):
        if isinstance(value, dict):
            text = "\n".join(f"{json.dumps(key)} = {as_toml(part)}" for key, part in value.items())
            (tmp_path / "mine.toml").write_text(text)
            with contextlib.suppress(LlmbuildError):
                target = load_target("mine", tmp_path)
                assert canonical_json([target.compile_part(), target.link_part(), target.metadata])


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ('"ccache gcc"', r'fix: write compiler = \["ccache", "gcc"\]'),
        ("\"sh -c 'touch x' --\"", r"""fix: write compiler = \["sh", "-c", "'touch", "x'", "--"\]"""),
        ('" gcc"', r'fix: write compiler = \["gcc"\]'),
        ('""', "is the name of no program"),
        ("[]", "is the name of no program"),
        ('["gcc", ""]', "is the name of no program"),
        ('"tools/cc"', "'tools/cc' is a relative path"),
        ("5", "must be a program's name, or a list of words"),
        ('"gcc\\u0000"', r"without U\+0000"),
    ],
)
def test_what_compiler_cannot_be(tmp_path: Path, written: str, what: str) -> None:
    (tmp_path / "mine.toml").write_text(
        f'[target]\nextends = "x86_64-linux-cpu"\n[link]\ncompiler = {written}\n', encoding="utf-8"
    )
    with pytest.raises(LlmbuildError, match=what) as caught:
        load_target("mine", tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE and "mine.toml:4: link.compiler" in str(caught.value)


@pytest.mark.parametrize(
    ("written", "part"),
    [
        ('"gcc-13"', "gcc-13"),
        ('["gcc-13"]', "gcc-13"),
        ('["ccache", "gcc"]', ["ccache", "gcc"]),
        ('["/opt/my tools/gcc", "-m64"]', ["/opt/my tools/gcc", "-m64"]),
    ],
)
def test_a_compiler_is_a_name_or_a_list_of_words(tmp_path: Path, written: str, part: object) -> None:
    (tmp_path / "mine.toml").write_text(f'[target]\nextends = "x86_64-linux-cpu"\n[link]\ncompiler = {written}\n')
    assert load_target("mine", tmp_path).link_part()["compiler"] == part


@pytest.mark.parametrize(
    ("written", "what"),
    [
        ('["LD=X"]', "'LD=X' cannot be the name of a variable"),
        ('["LC_ALL"]', "'LC_ALL' is the same in every task"),
        ('["PYTHONHASHSEED"]', "'PYTHONHASHSEED' is the same in every task"),
        ('["PATH"]', "'PATH' is seen by every task"),
        ('["LLMBUILD_X"]', "'LLMBUILD_X' is seen by every task"),
        ('"SDK"', "must be a list of strings"),
    ],
)
def test_what_environment_cannot_name(tmp_path: Path, written: str, what: str) -> None:
    (tmp_path / "mine.toml").write_text(f'[target]\nextends = "x86_64-linux-cpu"\n[link]\nenvironment = {written}\n')
    with pytest.raises(LlmbuildError, match=what) as caught:
        load_target("mine", tmp_path)
    assert caught.value.exit_code == ExitCode.USAGE and "mine.toml:4: link.environment" in str(caught.value)


def test_variables_of_a_target_are_sorted_and_said_once(tmp_path: Path) -> None:
    text = '[target]\nextends = "x86_64-linux-cpu"\n[link]\nenvironment = ["SDK_ROOT", "A", "A"]\n'
    (tmp_path / "mine.toml").write_text(text)
    assert load_target("mine", tmp_path).link_part()["environment"] == ["A", "SDK_ROOT"]
    assert "environment" not in load_target("x86_64-linux-cpu").link_part()
