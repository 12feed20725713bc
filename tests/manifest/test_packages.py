"""[package.NAME] tables: which libraries a package has, and the one error of each mistake, with its line."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from llmbuild.errors import ExitCode, LlmbuildError, MultiError
from llmbuild.manifest.load import load
from llmbuild.manifest.packages import OF_EVERY_KIND
from llmbuild.manifest.project import Package, Project
from llmbuild.manifest.schema import keys_of
from llmbuild.manifest.schema_results import PackageTable
from llmbuild.packages.kinds import kind_names, package_kind

MODELS = "".join(f'[models.{name}]\nsource = "checkpoint"\nconv-template = "chatml"\n' for name in "ab")
MATRIX = """\
[models.p]
preset = "llama"
[[build]]
quantizations = ["q4f32_1", "q0f32"]
platforms = ["x86_64-linux-cpu", "wasm32-webgpu", "x86_64-linux-opencl"]
"""


def project_of(tables: str, root: Path, matrix: str = MATRIX) -> Project:
    from llmbuild.models.presets import presets

    text = MODELS + matrix.replace('"llama"', f'"{next(iter(presets()))}"') + tables
    return load(root / "buildfile.toml", text).project


def cells(package: Package) -> list[str]:
    return [f"{one.model} {one.scheme} {one.platform}" for one in package.libraries]


def test_a_package_has_what_its_kind_takes_in_the_order_of_its_lists(tmp_path: Path) -> None:
    of = project_of(
        "[package.server]\n"
        '[package.few]\nkind = "server"\nmodels = ["b", "a"]\nquantizations = ["q0f32"]\noutput = "other"\n'
        'platforms = ["x86_64-linux-opencl", "x86_64-linux-cpu"]\n',
        tmp_path,
    )
    every = of.packages["server"]
    assert (every.name, every.kind, every.output, every.options, every.sources) == (
        "server",
        "server",
        "dist/server",
        {},
        {},
    )
    # A preset has no weights, and a library for browsers is none for a server.
    assert cells(every) == [
        f"{model} {scheme} {platform}"
        for model in "ab"
        for scheme in ("q4f32_1", "q0f32")
        for platform in ("x86_64-linux-cpu", "x86_64-linux-opencl")
    ]
    few = of.packages["few"]
    assert few.output == "dist/other"
    assert cells(few) == [
        f"{model} q0f32 {platform}" for model in "ba" for platform in ("x86_64-linux-opencl", "x86_64-linux-cpu")
    ]


def test_packages_survive_json(tmp_path: Path) -> None:
    of = project_of("[package.server]\n", tmp_path)
    assert Project.from_json(json.loads(json.dumps(of.to_json()))).packages == of.packages


def test_every_key_of_the_table_is_taken_by_some_kind() -> None:
    own = {key for name in kind_names() for key in package_kind(name).options}
    assert set(keys_of(("package", "x"))) == OF_EVERY_KIND | own
    assert len(PackageTable.model_fields) == len(OF_EVERY_KIND | own)


WRONG = {
    "no kind": ("[package.x] #!\n", "package.x", "nothing says what kind of package 'x' is", "server"),
    "unknown kind": (
        '[package.x]\nkind = "servr" #!\n',
        "package.x.kind",
        "there is no kind of package 'servr'",
        "did you mean 'server'?",
    ),
    "far kind": ('[package.x]\nkind = "zzz" #!\n', "package.x.kind", "there is no kind", "the kinds are: "),
    "unknown model": (
        '[package.server]\nmodels = ["a", "bb"] #!\n',
        "package.server.models[1]",
        "no build has a model 'bb'",
        "did you mean 'b'?",
    ),
    "unknown scheme": (
        '[package.server]\nquantizations = ["q4f32_2"] #!\n',
        "package.server.quantizations[0]",
        "no build has a quantization 'q4f32_2'",
        "did you mean 'q4f32_1' or 'q0f32'?",
    ),
    "unknown platform": (
        '[package.server]\nplatforms = ["x86_64-linux-cup"] #!\n',
        "package.server.platforms[0]",
        "no build has a platform 'x86_64-linux-cup'",
        "did you mean 'x86_64-linux-cpu' or 'x86_64-linux-opencl'?",
    ),
    "not taken": (
        '[package.server]\nplatforms = ["wasm32-webgpu"] #!\n',
        "package.server.platforms[0]",
        "a package of kind 'server' does not take platform 'wasm32-webgpu'",
        "the platforms are: x86_64-linux-cpu, x86_64-linux-opencl",
    ),
    "preset": (
        '[package.server]\nmodels = ["p"] #!\n',
        "package.server.models[0]",
        "model 'p' is a preset, which has no weights to package",
        "remove it",
    ),
    "twice": (
        '[package.server]\nmodels = ["a", "a"] #!\n',
        "package.server.models[1]",
        "'a' is listed twice",
        "remove one",
    ),
    "empty": (
        "[package.server]\nmodels = [] #!\n",
        "package.server.models",
        "the list of models is empty",
        "name some",
    ),
    "unknown key": (
        '[package.server]\noutptu = "x" #!\n',
        "package.server.outptu",
        "unknown key",
        "did you mean 'output'?",
    ),
    "name": ('[package."a/b"] #!\nkind = "server"\n', 'package."a/b"', "not a good name", "letters"),
    "path": (
        '[package.server]\noutput = "../x" #!\n',
        "package.server.output",
        "'../x' cannot be the folder of a package",
        'name one, such as "server"',
    ),
    "dots": ('[package.server]\noutput = ".." #!\n', "package.server.output", "'..' cannot be the folder", "name one"),
    "git": (
        '[package.server]\noutput = ".git" #!\n',
        "package.server.output",
        "'.git' cannot be the folder",
        "name one",
    ),
    "place of libraries": (
        '[package.libs] #!\nkind = "server"\n',
        "package.libs",
        "package 'libs' would be in dist/libs, where libraries are",
        "another folder",
    ),
    "place of a model": (
        '[package.server]\noutput = "a-q0f32-MLC" #!\n',
        "package.server.output",
        "where the files of model 'a' in q0f32 are",
        "another folder",
    ),
    "no memory": (
        '[package.server]\nmemory = "0 GB" #!\n',
        "package.server.memory",
        "'0 GB' is no memory that anything runs in",
        "write what there is, such as 8GB",
    ),
    "memory without a unit": (
        "[package.server]\nmemory = 8 #!\n",
        "package.server.memory",
        "must be a size with its unit, not 8",
        'write memory = "8 GB"',
    ),
    "page": (
        '[package.server]\npage = "yes" #!\n',
        "package.server.page",
        "must be true or false, not 'yes'",
        "write page = true, or page = false",
    ),
    "a name for a list": (
        '[package.server]\nplatforms = "web" #!\n',
        "package.server.platforms",
        "must be a list, not 'web'",
        'write platforms = ["web"]',
    ),
    "place of another": (
        '[package.x]\nkind = "server"\noutput = "server"\n[package.server] #!\n',
        "package.server",
        "where the files of package 'x' are",
        "another folder",
    ),
}


BROKEN_ELSEWHERE = {
    "a model": ('source = "checkpoint"', 'source = "checkpoint"\nadapter = "ftp://x"'),
    "a platform": ('"x86_64-linux-cpu", ', '"x86_64-linux-cpv", '),
    "a scheme": ('"q4f32_1", ', '"q4f32_9", '),
}


@pytest.mark.parametrize("name", BROKEN_ELSEWHERE)
def test_an_error_elsewhere_is_no_error_of_packages(name: str, tmp_path: Path) -> None:
    old, new = BROKEN_ELSEWHERE[name]
    tables = '[package.server]\nplatforms = ["x86_64-linux-cpu"]\nquantizations = ["q4f32_1"]\nmodels = ["a"]\n'
    text = (MODELS + MATRIX.replace('[models.p]\npreset = "llama"\n', "") + tables).replace(old, new, 1)
    with pytest.raises(LlmbuildError) as caught:
        load(tmp_path / "buildfile.toml", text)
    assert not isinstance(caught.value, MultiError), str(caught.value)
    assert "package" not in str(caught.value)
    # What is wrong with the package itself is said all the same.
    with pytest.raises(MultiError) as both:
        load(tmp_path / "buildfile.toml", text + "page = true\n")
    assert len(both.value.errors) == 2
    assert "a package of kind 'server' has no page" in str(both.value)


@pytest.mark.parametrize("name", WRONG)
def test_a_mistake_is_one_error_with_its_line(name: str, tmp_path: Path) -> None:
    tables, key, what, fix = WRONG[name]
    with pytest.raises(LlmbuildError) as caught:
        project_of(tables, tmp_path)
    error = caught.value
    assert not isinstance(error, MultiError), str(error)
    assert error.exit_code == ExitCode.USAGE
    line = next(number for number, one in enumerate((MODELS + MATRIX + tables).splitlines(), 1) if "#!" in one)
    assert error.where == f"{tmp_path / 'buildfile.toml'}:{line}: {key}"
    assert what in error.what
    assert fix in str(error.fix)


def test_a_package_that_nothing_is_built_for(tmp_path: Path) -> None:
    matrix = '[[build]]\nmodels = ["a", "b"]\nquantizations = ["q4f32_1"]\nplatforms = ["wasm32-webgpu"]\n'
    with pytest.raises(LlmbuildError, match="no library of the matrix is for package 'server'") as caught:
        project_of("[package.server]\n", tmp_path, matrix)
    assert caught.value.why == "a package of kind 'server' takes shared libraries (.so, .dylib, .dll)"
    assert f":{len((MODELS + matrix).splitlines()) + 1}: package.server" in str(caught.value.where)


def test_a_package_of_presets_alone(tmp_path: Path) -> None:
    """Another platform would not help, so none is asked for."""
    matrix = MATRIX.replace("[[build]]", '[[build]]\nmodels = ["p"]')
    with pytest.raises(LlmbuildError, match="package 'server' would be of presets alone") as caught:
        project_of("[package.server]\n", tmp_path, matrix)
    assert caught.value.why == "its libraries are those of p"
    assert str(caught.value.where).endswith(": package.server")
