"""Keys hold what a kind declares and nothing else, and what a kind declares is what its code uses.

Every case here is generated from the declarations (`llmbuild.tasks.*.KIND`) and from the code, through the real graph.
"""

from __future__ import annotations

import ast
import dataclasses
import fnmatch
import json
import sys
from collections.abc import Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from llmbuild.canonical import Digest, Json, digest_bytes
from llmbuild.engine.bind import bind
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.engine.registry import KIND_NAMES, load_kind
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.errors import UsageError
from llmbuild.manifest.project import Project, Publish, Quality
from llmbuild.models.registry import families
from llmbuild.plan.graph import expand
from llmbuild.plan.maker import CONFIG_FILES, OBJECT_FILES, WEIGHT_FILES
from llmbuild.plan.measuring import CALIBRATION
from llmbuild.plan.observed import Architecture, Observed, Text
from llmbuild.quantization.overrides import Override
from llmbuild.sources.kind import Observation, Source
from llmbuild.tasks.lower import COMPILE_FIELDS
from llmbuild.workspace import observe, tool_identities
from llmbuild.workspace.imports import Imports
from llmbuild.workspace.tool_identities import Toolchain
from tests.helpers import plans
from tests.helpers.imports import PACKAGE
from tests.helpers.plans import edit_model, edit_platform

KINDS: Mapping[str, TaskKind] = {name: load_kind(name) for name in KIND_NAMES}
TOOL_NAMES = sorted({tool for kind in KINDS.values() for tool in kind.tools} - tool_identities.PER_TASK_TOOLS)

CHECKPOINT_FILES = (
    *("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json", "weights.gguf", "quantize_config.json", "quant_config.json"),
    *("config.json", "generation_config.json", "tokenizer.json", "tokenizer.model", "tokenizer_config.json"),
    *("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt"),
    *("README.md", "LICENSE", "training_args.json", "onnx/model.onnx", "chat_template.jinja"),
)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A project, the world it is planned in, and what its tasks have written."""

    project: Project
    observed: Observed
    outputs: Mapping[str, Mapping[str, bytes]]

    def keys(self, kinds: Mapping[str, TaskKind] = KINDS) -> dict[str, Digest]:
        """Kind -> digest of its (only) action."""
        found: dict[str, Digest] = {}
        trees: dict[str, Tree] = {}
        blobs: dict[Digest, bytes] = {}
        for task in expand(self.project, self.observed, kinds, COMPILE_FIELDS, named(self.project)):
            files = {} if task.package else self.outputs.get(task.kind, {})
            blobs |= {digest_bytes(data): data for data in files.values()}
            trees[task.label] = Tree.of(FileEntry(p, digest_bytes(data), len(data)) for p, data in files.items())
            # That of a package's source comes after that of the model.
            found.setdefault(task.kind, bind(task, trees, blobs.__getitem__).action.digest)
        return found

    def flipped(self, other: Scene) -> set[str]:
        """The kinds whose key differs in another scene."""
        mine, others = self.keys(), other.keys()
        # Only a runtime for browsers is there for some artifacts and not for others.
        assert mine.keys() ^ others.keys() <= {"runtime"}
        return {kind for kind in mine if mine[kind] != others.get(kind, mine[kind])}


@cache
def chat_config() -> Mapping[str, Any]:
    """What the config task really writes, for a preset."""
    import tempfile

    from llmbuild.conversation.templates import resolve_template
    from llmbuild.models.presets import presets

    with tempfile.TemporaryDirectory() as place:
        out = Path(place)
        params: dict[str, Json] = {
            "quantization": "q4f32_1",
            "model-type": None,
            "ignore-keys": [],
            "conversation": resolve_template("chatml", out),
            "system-prompt": None,
            "metadata": {},
            "generation": {},
            "preset": next(iter(presets().values())),
            "architecture": None,
        }
        assert params.keys() == set(KINDS["config"].params)
        KINDS["config"].run(Job(params, {}, {}, out, out, lambda done, total, unit="": None))
        value: dict[str, Any] = json.loads((out / "mlc-chat-config.json").read_bytes())
    return value


def scene() -> Scene:
    """One library for browsers, in a package with an archive and a source: it takes a task of every kind."""
    of = plans.with_package(edit_platform(plans.project(), artifact="wasm"), sources=("page",), archive="")
    world = plans.observed(of)
    world = dataclasses.replace(
        world,
        tools={
            name: {**{tool: "1.0" for tool in kind.tools if tool in TOOL_NAMES}, "llmbuild sources": f"{name} sources"}
            for name, kind in KINDS.items()
        },
    )
    outputs = {
        "fetch": {path: path.encode() for path in CHECKPOINT_FILES},
        "inspect": {"facts.json": b'{"config": {}, "model_type": "llama"}'},
        "config": {"mlc-chat-config.json": json.dumps(chat_config()).encode(), "tokenizer.json": b"{}"},
        "lower": {"lib0.o": b"lib0", "devc.o": b"devc", "metadata.json": b"{}"},
        "runtime": {"wasm_runtime.o": b"runtime"},
        "text": {"text.txt": b"text"},
    }
    return Scene(of, world, outputs)


def named(of: Project) -> list[str]:
    """The tasks that calibrate, which a plan has after those of the matrix where they are named."""
    return [f"calibrate[{name}]" for name, model in of.models.items() if model.source is not None]


def declaring(*params: str) -> set[str]:
    return {name for name, kind in KINDS.items() if set(params) & set(kind.params)}


def edit_project(change: Callable[[Project], Project]) -> Callable[[Scene], Scene]:
    return lambda one: dataclasses.replace(one, project=change(one.project))


def edit_source(params: Mapping[str, Json], hints: Mapping[str, Json]) -> Callable[[Scene], Scene]:
    def edit(one: Scene) -> Scene:
        before = one.observed.sources["smollm2"]
        source = Observation({**before.params, **params}, {**before.hints, **hints})
        return dataclasses.replace(one, observed=dataclasses.replace(one.observed, sources={"smollm2": source}))

    return edit


def edit_architecture(own: Architecture) -> Callable[[Scene], Scene]:
    return lambda one: dataclasses.replace(
        one, observed=dataclasses.replace(one.observed, architectures={"smollm2": own})
    )


def edit_scheme(**changes: Any) -> Callable[[Scene], Scene]:
    def change(of: Project) -> Project:
        scheme = dataclasses.replace(of.schemes["q4f32_1"], **changes)
        return dataclasses.replace(of, schemes={"q4f32_1": scheme})

    return edit_project(change)


def edit_cell(**changes: Any) -> Callable[[Scene], Scene]:
    return edit_project(
        lambda of: dataclasses.replace(of, matrix=(dataclasses.replace(of.matrix[0], **changes),))  # type: ignore[arg-type]
    )


def rename(field: str) -> Callable[[Scene], Scene]:
    """Give the model, the scheme or the platform another name."""

    def change(one: Scene) -> Scene:
        of, world = one.project, one.observed
        cell = dataclasses.replace(of.matrix[0], **{field: "renamed"})
        library = dataclasses.replace(of.packages["app"].libraries[0], **{field: "renamed"})
        of = edit_package(of, libraries=(library,))
        if field == "model":
            of = dataclasses.replace(of, models={"renamed": dataclasses.replace(of.models["smollm2"], name="renamed")})
            world = dataclasses.replace(world, sources={"renamed": world.sources["smollm2"]})
        elif field == "scheme":
            of = dataclasses.replace(
                of, schemes={"renamed": dataclasses.replace(of.schemes["q4f32_1"], name="renamed")}
            )
        else:
            moved = dataclasses.replace(of.platforms["native"], name="renamed")
            of = dataclasses.replace(of, platforms={"renamed": moved})
            world = dataclasses.replace(world, linkers={"renamed": world.linkers["native"]})
        return dataclasses.replace(one, project=dataclasses.replace(of, matrix=(cell,)), observed=world)

    return change


def edit_package(of: Project, **changes: Any) -> Project:
    return dataclasses.replace(of, packages={"app": dataclasses.replace(of.packages["app"], **changes)})


def edit_package_kind(one: Scene) -> Scene:
    of = edit_package(one.project, kind="web")
    # Two kinds of the same sources.
    sources = {"web": one.observed.package_kinds["server"]}
    return dataclasses.replace(one, project=of, observed=dataclasses.replace(one.observed, package_kinds=sources))


def edit_archive(of: Project) -> Project:
    (library,) = of.packages["app"].libraries
    return edit_package(of, libraries=(dataclasses.replace(library, archive="arm64-v8a"),))


def rename_package(one: Scene) -> Scene:
    """The package, and the sources that are fetched for it, under another name."""
    of = plans.with_package(one.project, "renamed", sources=("page",), archive="")
    return dataclasses.replace(
        one,
        project=of,
        observed=dataclasses.replace(one.observed, of_packages=plans.observed(of).of_packages),
    )


def rename_package_source(one: Scene) -> Scene:
    of = plans.with_package(one.project, sources=("script",), archive="")
    return dataclasses.replace(
        one,
        project=of,
        observed=dataclasses.replace(one.observed, of_packages=plans.observed(of).of_packages),
    )


PUBLISH = Publish("here", "hf:org/{model}")

# Every value of a manifest, with the parameters that carry it; () means that no key may hold it.
EDITS: dict[str, tuple[Callable[[Scene], Scene], tuple[str, ...]]] = {
    "model.model_type": (edit_project(lambda of: edit_model(of, model_type="mistral")), ("model-type",)),
    "model.ignore_keys": (edit_project(lambda of: edit_model(of, ignore_keys=("use_bias",))), ("ignore-keys",)),
    "model.source_format": (edit_project(lambda of: edit_model(of, source_format="gguf")), ("source-format",)),
    "model.float32": (edit_project(lambda of: edit_model(of, float32="exact")), ("float32",)),
    "model.conversation": (edit_project(lambda of: edit_model(of, conversation={"name": "x"})), ("conversation",)),
    "model.system_prompt": (edit_project(lambda of: edit_model(of, system_prompt="Hi")), ("system-prompt",)),
    "model.metadata": (edit_project(lambda of: edit_model(of, metadata={"context-window-size": 9})), ("metadata",)),
    "model.generation": (edit_project(lambda of: edit_model(of, generation={"temperature": 0.5})), ("generation",)),
    "model.source": (edit_project(lambda of: edit_model(of, source=Source("path", {"path": "elsewhere"}))), ()),
    "model.preset": (edit_project(lambda of: edit_model(of, preset="elsewhere")), ()),
    "model.name": (rename("model"), ("members", "libraries")),
    "model.architecture": (edit_project(lambda of: edit_model(of, architecture="mine")), ()),
    "observed architecture": (
        edit_architecture(Architecture("mine", digest_bytes(b"text"), "text")),
        ("architecture",),
    ),
    "model.adapter": (lambda one: one, ()),
    "observed source": (edit_source({"source": {"kind": "hf"}}, {}), ("source",)),
    "observed files": (edit_source({"files": {"model.safetensors": "0" * 64}}, {}), ("files",)),
    "observed hints": (edit_source({}, {"path": "/somewhere/else"}), ()),
    "scheme.name": (rename("scheme"), ("scheme", "quantization", "members", "libraries")),
    "scheme.bits": (edit_scheme(bits=3), ("scheme",)),
    "scheme.dtype": (edit_scheme(dtype="float16"), ("scheme",)),
    "scheme.group_size": (edit_scheme(group_size=64), ("scheme",)),
    "scheme.layout": (edit_scheme(layout="KN"), ("scheme",)),
    "scheme.quantize_embedding": (edit_scheme(quantize_embedding=False), ("scheme",)),
    "scheme.quantize_head": (edit_scheme(quantize_head=False), ("scheme",)),
    "scheme.overrides": (edit_scheme(overrides=(Override("lm_head", 8, 32),)), ("scheme",)),
    "scheme.method": (edit_scheme(method="search"), ("method",)),
    "platform.name": (rename("platform"), ("members", "libraries")),
    "platform.target": (edit_project(lambda of: edit_platform(of, target="renamed")), ()),
    "platform.compile": (edit_project(lambda of: edit_platform(of, compile={"device": "cpu"})), ("target",)),
    "platform.link": (edit_project(lambda of: edit_platform(of, link={"flags": ["-s"]})), ("link",)),
    "platform.artifact": (
        edit_project(lambda of: edit_platform(of, artifact="so")),
        ("artifact", "system-lib", "members"),
    ),
    "link.compiler": (edit_project(lambda of: edit_platform(of, link={"compiler": "cc2"})), ("link", "compiler")),
    "platform.metadata": (
        edit_project(lambda of: edit_platform(of, metadata={"prefill-chunk-size": 1})),
        ("overrides",),
    ),
    "platform.opt": (edit_project(lambda of: edit_platform(of, opt={"cudagraph": True})), ("opt",)),
    "platform.activations": (edit_project(lambda of: edit_platform(of, activations="int8")), ("activations",)),
    "platform.system_lib_prefix": (
        edit_project(lambda of: edit_platform(of, system_lib_prefix="x_")),
        ("system-lib-prefix", "members"),
    ),
    "platform.features": (
        edit_project(lambda of: edit_platform(of, features={"float32": ["x"], "float16": ["y"]})),
        ("requires",),
    ),
    "platform.tools": (edit_project(lambda of: edit_platform(of, tools=[{"command": "x", "install": "y"}])), ()),
    "platform.taps": (edit_project(lambda of: edit_platform(of, taps=True)), ("taps",)),
    "platform.by_machine": (edit_project(lambda of: edit_platform(of, by_machine=True)), ()),
    "combination.by_pattern": (edit_cell(by_pattern=True), ()),
    "combination.metadata": (edit_cell(metadata={"prefill-chunk-size": 2}), ("overrides",)),
    "combination.library": (edit_cell(library="dist/libs/elsewhere.so"), ()),
    "combination.weights": (edit_cell(weights="dist/elsewhere"), ()),
    "package.name": (rename_package, ()),
    "package.kind": (edit_package_kind, ("kind",)),
    "package.libraries": (edit_project(edit_archive), ("archives",)),
    "package.options": (edit_project(lambda of: edit_package(of, options={"page": True})), ("options",)),
    "package.sources": (rename_package_source, ("sources",)),
    "package.output": (edit_project(lambda of: edit_package(of, output="dist/elsewhere")), ()),
    "package.memory": (edit_project(lambda of: edit_package(of, memory=1 << 30)), ()),
    "project.name": (edit_project(lambda of: dataclasses.replace(of, name="renamed")), ()),
    "project.file": (edit_project(lambda of: dataclasses.replace(of, file="other.toml")), ()),
    "project.root": (edit_project(lambda of: dataclasses.replace(of, root="/elsewhere")), ()),
    "project.provenance": (edit_project(lambda of: dataclasses.replace(of, provenance=not of.provenance)), ()),
    "project.publish": (edit_project(lambda of: dataclasses.replace(of, publish={"here": PUBLISH})), ()),
    "project.quality": (
        edit_project(lambda of: dataclasses.replace(of, quality=Quality(calibration_tokens=5))),
        ("tokens",),
    ),
    "project.calibrating": (
        edit_project(lambda of: dataclasses.replace(of, calibrating=of.measuring)),
        (),
    ),
    "text": (
        lambda one: dataclasses.replace(
            one,
            observed=dataclasses.replace(
                one.observed, texts={CALIBRATION: Text("elsewhere.txt", digest_bytes(b"other"))}
            ),
        ),
        ("sha256",),
    ),
    "project.measuring": (edit_project(lambda of: dataclasses.replace(of, measuring=None)), ()),
    "project.output": (edit_project(lambda of: dataclasses.replace(of, output="out")), ()),
}


def test_the_edits_cover_every_value_of_a_project() -> None:
    of = scene().project
    parts = {
        "project": (of, {"models", "schemes", "platforms", "matrix", "packages"}),
        "package": (of.packages["app"], set()),
        "model": (of.models["smollm2"], set()),
        "scheme": (of.schemes["q4f32_1"], set()),
        "platform": (of.platforms["native"], set()),
        "combination": (of.matrix[0], {"model", "scheme", "platform"}),
    }
    wanted = {
        f"{name}.{one.name}"
        for name, (part, but) in parts.items()
        for one in dataclasses.fields(part)
        if one.name not in but
    }
    assert wanted == {name for name in EDITS if "." in name} - {"link.compiler"}


@pytest.mark.parametrize("name", EDITS)
def test_a_value_flips_the_kinds_that_declare_it_and_no_others(name: str) -> None:
    edit, params = EDITS[name]
    before = scene()
    assert before.flipped(edit(before)) == declaring(*params)


def test_every_declared_parameter_is_reached_by_an_edit() -> None:
    reached = {param for _, params in EDITS.values() for param in params} | {"preset", "name"}
    assert reached == {param for kind in KINDS.values() for param in kind.params}


def test_an_architecture_of_the_project_counts_by_its_content_and_by_what_it_is_made_of() -> None:
    def with_own(**changes: Any) -> Scene:
        own = Architecture("mine", digest_bytes(b"text"), "text", "of llama")
        return edit_architecture(dataclasses.replace(own, **changes))(scene())

    wanted = declaring("architecture")
    assert wanted == {"inspect", "quantize", "config", "lower"}
    assert with_own().flipped(with_own(sha256=digest_bytes(b"other"))) == wanted
    assert with_own().flipped(with_own(families="of llama, edited")) == wanted
    # Whether it is trusted is in no key, and where it is not, no action has its text.
    assert with_own().flipped(with_own(text=None, error=UsageError("not trusted"))) == set()
    for text in ("text", None):
        one = with_own(text=text)
        hints = {
            task.kind: task.hints.get("architecture")
            for task in expand(one.project, one.observed, KINDS, COMPILE_FIELDS, named(one.project))
        }
        assert {kind for kind, hint in hints.items() if hint == text and kind in wanted} == wanted
        assert not any(hint for kind, hint in hints.items() if kind not in wanted)


def test_a_preset_flips_config_alone() -> None:
    of = plans.project(preset=("smollm2",))
    before = dataclasses.replace(
        scene(),
        project=edit_platform(of, artifact="wasm"),
        observed=dataclasses.replace(scene().observed, presets={"smollm2": {"a": 1}}),
    )
    after = dataclasses.replace(before, observed=dataclasses.replace(before.observed, presets={"smollm2": {"a": 2}}))
    assert before.flipped(after) == declaring("preset") == {"config"}


def test_the_name_of_a_library_that_holds_it_flips_link_alone() -> None:
    before = edit_project(lambda of: edit_platform(of, artifact="dylib"))(scene())
    after = edit_cell(library="dist/libs/elsewhere.dylib")(before)
    assert before.flipped(after) == declaring("name") == {"link"}
    moved = edit_cell(library=before.project.matrix[0].library.replace("dist/libs/", "elsewhere/"))(before)
    assert before.flipped(moved) == set()


def test_an_adapter_is_an_input_of_inspect_and_quantize_alone() -> None:
    before = scene()
    adapted = edit_platform(plans.project(adapter=("smollm2",)), artifact="wasm")
    of = plans.with_package(adapted, sources=("page",), archive="")
    world = dataclasses.replace(before.observed, adapters=plans.observed(of).adapters)
    tasks = {task.label: task for task in expand(of, world, KINDS, COMPILE_FIELDS)}
    plain = {task.label: task for task in expand(before.project, before.observed, KINDS, COMPILE_FIELDS)}
    changed = {label for label in plain if plain[label] != tasks[label]}
    assert {plain[label].kind for label in changed} == {"inspect", "quantize"}
    assert tasks.keys() - plain.keys() == {"fetch[smollm2, adapter]"}


@pytest.mark.parametrize("kind", KIND_NAMES)
def test_every_leaf_of_every_parameter_is_in_the_key(kind: str) -> None:
    one = scene()
    task = next(
        task
        for task in expand(one.project, one.observed, KINDS, COMPILE_FIELDS, named(one.project))
        if task.kind == kind
    )
    empty = dataclasses.replace(task, inputs={})
    plain = bind(empty, {}, dict[Digest, bytes]().__getitem__).action.digest
    seen = {plain}
    leaves = list(leaf_edits(dict(task.params)))
    assert len(leaves) >= len(KINDS[kind].params)
    for params in leaves:
        seen.add(bind(dataclasses.replace(empty, params=params), {}, dict[Digest, bytes]().__getitem__).action.digest)
    # Each edit has a key of its own.
    assert len(seen) == len(leaves) + 1
    for field, value in {
        "label": "x",
        "hints": {"h": 1},
        "installs": (),
        "model": "m",
        "scheme": "s",
        "platform": "p",
    }.items():
        other = dataclasses.replace(empty, **{field: value})  # type: ignore[arg-type]
        assert bind(other, {}, dict[Digest, bytes]().__getitem__).action.digest == plain, field
    newer = dataclasses.replace(empty, version=task.version + 1)
    assert bind(newer, {}, dict[Digest, bytes]().__getitem__).action.digest != plain


def leaf_edits(value: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The value with each of its leaves changed, one at a time."""
    edits: list[dict[str, Any]] = []
    for name, item in value.items():
        if isinstance(item, Mapping) and item:
            edits += [{**value, name: inner} for inner in leaf_edits(item)]
        else:
            edits.append({**value, name: [item, "changed"]})
    return edits


# Inputs.


@pytest.mark.parametrize("path", CHECKPOINT_FILES)
def test_a_file_of_the_checkpoint_flips_the_kinds_that_select_it(path: str) -> None:
    before = scene()
    outputs = {**before.outputs, "fetch": {**before.outputs["fetch"], path: b"changed"}}
    selecting = {"inspect": WEIGHT_FILES, "quantize": WEIGHT_FILES, "config": CONFIG_FILES}
    wanted = {kind for kind, of in selecting.items() if any(fnmatch.fnmatchcase(path, p) for p in of.patterns)}
    assert before.flipped(dataclasses.replace(before, outputs=outputs)) == wanted


@pytest.mark.parametrize("path", ["lib0.o", "devc.o", "metadata.json", "new.o", "new.txt"])
def test_an_object_of_lower_flips_link_and_its_record_the_package(path: str) -> None:
    before = scene()
    outputs = {**before.outputs, "lower": {**before.outputs["lower"], path: b"changed"}}
    wanted = {"link"} if any(fnmatch.fnmatchcase(path, p) for p in OBJECT_FILES.patterns) else set()
    wanted |= {"package"} if path == "metadata.json" else set()
    assert before.flipped(dataclasses.replace(before, outputs=outputs)) == wanted


def test_facts_flip_quantize_and_config_and_other_fields_of_their_file_nothing() -> None:
    before = scene()
    for change, wanted in (
        ({"config": {"tie_word_embeddings": False}}, {"quantize", "config"}),
        ({"model_type": "mistral"}, {"quantize", "config"}),
        ({"more": 1}, set[str]()),
    ):
        content = {"config": {}, "model_type": "llama", **change}
        outputs = {**before.outputs, "inspect": {"facts.json": json.dumps(content).encode()}}
        assert before.flipped(dataclasses.replace(before, outputs=outputs)) == wanted


def test_an_object_of_the_runtime_flips_link() -> None:
    before = scene()
    after = dataclasses.replace(before, outputs={**before.outputs, "runtime": {"wasm_runtime.o": b"changed"}})
    assert before.flipped(after) == {"link"}


@pytest.mark.parametrize("field", sorted({*chat_config(), *COMPILE_FIELDS, "unheard_of"}))
def test_a_field_of_the_configuration_flips_the_package_and_lower_only_when_it_is_declared(field: str) -> None:
    before = scene()
    config = {**chat_config(), field: "changed"}
    outputs = {
        **before.outputs,
        "config": {**before.outputs["config"], "mlc-chat-config.json": json.dumps(config).encode()},
    }
    wanted = {"package", "lower"} if field in COMPILE_FIELDS else {"package"}
    assert before.flipped(dataclasses.replace(before, outputs=outputs)) == wanted


def test_every_declared_field_is_one_that_config_writes() -> None:
    assert set(COMPILE_FIELDS) <= set(chat_config())


# Tools.


class Bytes:
    """Digests of files of which one may have other bytes."""

    def __init__(self, changed: Path | None = None) -> None:
        self.changed = changed

    def digest(self, path: Path) -> Digest:
        return digest_bytes(f"{path}{'!' if path == self.changed else ''}".encode())


VERSIONS = dict.fromkeys((*TOOL_NAMES, "apache-tvm", "apache-tvm-ffi"), "1.0")


@cache
def imports() -> Imports:
    chain = Toolchain(Bytes())
    chain.tools_of(KINDS["link"])
    assert chain._imports is not None
    return chain._imports


def tools(changed: Path | None = None, versions: Mapping[str, str] = VERSIONS) -> dict[str, Mapping[str, str]]:
    chain = Toolchain(Bytes(changed))
    # The bytes that these tests change are not on the disk: the imports are the same.
    chain._imports = imports()
    chain._versions = {tool_identities._normal(name): version for name, version in versions.items()}
    return {name: chain.tools_of(kind)[0] for name, kind in KINDS.items()}


def flipped_by_tools(after: Mapping[str, Mapping[str, str]]) -> set[str]:
    before = scene()
    first = dataclasses.replace(before, observed=dataclasses.replace(before.observed, tools=tools()))
    return first.flipped(dataclasses.replace(before, observed=dataclasses.replace(before.observed, tools=after)))


@pytest.fixture
def native(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """In place of TVM's installation: a package with two native libraries for each distribution."""
    import importlib.machinery
    import importlib.util

    for package in tool_identities.LIBRARIES.values():
        (tmp_path / package / "lib").mkdir(parents=True)
        for name in ("core.so", "lib/runtime.so.1"):
            (tmp_path / package / name).write_bytes(b"")
        (tmp_path / package / "include").mkdir()
        for name in ("module.py", "include/runtime.h", "README.txt"):
            (tmp_path / package / name).write_bytes(b"")

    def find(name: str, package: str | None = None) -> Any:
        spec = importlib.machinery.ModuleSpec(name, None, is_package=True)
        spec.submodule_search_locations = [str(tmp_path / name)]
        return spec

    monkeypatch.setattr(importlib.util, "find_spec", find)
    return tmp_path


@pytest.mark.parametrize("tool", TOOL_NAMES)
def test_a_version_flips_the_kinds_that_declare_the_tool(native: Path, tool: str) -> None:
    # The files of a package count as a tool of their own, with the version of the package.
    distribution = tool.partition(" ")[0]
    wanted = {name for name, kind in KINDS.items() if distribution in {one.partition(" ")[0] for one in kind.tools}}
    assert wanted
    assert flipped_by_tools(tools(versions={**VERSIONS, distribution: "2.0"})) == wanted
    assert flipped_by_tools(tools(versions={**VERSIONS, "unused": "2.0"})) == set()


@pytest.mark.parametrize("tool", sorted(tool_identities.LIBRARIES))
@pytest.mark.parametrize("library", ["core.so", "lib/runtime.so.1", "module.py", "include/runtime.h", "README.txt"])
def test_the_bytes_of_a_package_flip_the_kinds_that_declare_them(native: Path, tool: str, library: str) -> None:
    part = {".py": f"{tool} python", ".h": f"{tool} headers", ".txt": "nothing"}.get(Path(library).suffix, tool)
    wanted = {name for name, kind in KINDS.items() if part in kind.tools}
    assert wanted or part == "nothing"
    before = tools()
    (native / tool_identities.LIBRARIES[tool] / library).write_bytes(b"changed")
    after = tools(native / tool_identities.LIBRARIES[tool] / library)
    assert {name for name in KINDS if before[name] != after[name]} == wanted


def test_the_linker_flips_link_and_the_runtime_that_it_compiles() -> None:
    before = scene()
    after = dataclasses.replace(before, observed=dataclasses.replace(before.observed, linkers={"native": "emcc 9"}))
    wanted = {name for name, kind in KINDS.items() if "linker" in kind.tools}
    assert before.flipped(after) == wanted == {"link", "runtime"}
    plain = edit_project(lambda of: edit_platform(of, artifact="so"))(before)
    after = dataclasses.replace(plain, observed=dataclasses.replace(plain.observed, linkers={"native": "GNU ld 9"}))
    assert plain.flipped(after) == {"link"}


def declared_files(kind: TaskKind) -> set[Path]:
    """The files in all keys of a kind."""
    return {PACKAGE / name for name in Toolchain(Bytes(None)).tools_of(kind)[1]}


def test_the_bytes_of_each_source_file_flip_the_kinds_that_declare_it(native: Path) -> None:
    declared = {name: declared_files(kind) for name, kind in KINDS.items()}
    files = sorted(path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts)
    assert len(files) > 100
    first = tools()
    for path in files:
        changed = tools(path)
        assert {name for name in KINDS if changed[name] != first[name]} == {
            name for name in KINDS if path in declared[name]
        }, path


FAMILIES = Toolchain(Bytes()).families


def model_of(model_type: str, changed: Path | None = None) -> Scene:
    """The scene with a model of a family, while a file of llmbuild may have other bytes; its manifest names no model type."""
    one = edit_project(lambda of: edit_model(of, model_type=None))(scene())
    config = {**chat_config(), "model_type": model_type}
    outputs = {
        **one.outputs,
        "inspect": {"facts.json": json.dumps({"config": {}, "model_type": model_type}).encode()},
        "config": {"mlc-chat-config.json": json.dumps(config).encode(), "tokenizer.json": b"{}"},
    }
    chain = Toolchain(Bytes(changed))
    chain._imports = imports()
    families, every = observe._families(chain, {})
    world = dataclasses.replace(one.observed, families=families, every_family=every)
    return dataclasses.replace(one, observed=world, outputs=outputs)


@pytest.mark.parametrize(
    "changed",
    [name if number % 4 == 0 else pytest.param(name, marks=pytest.mark.full) for number, name in enumerate(FAMILIES)],
)
def test_the_bytes_of_a_family_flip_the_keys_of_its_own_models(changed: str) -> None:
    file = PACKAGE / tool_identities.FAMILIES / f"{changed}.py"
    made_of_it = {name for name, files in FAMILIES.items() if str(file.relative_to(PACKAGE)) in files}
    assert changed in made_of_it
    for name in FAMILIES:
        wanted = {"quantize", "config", "lower"} if name in made_of_it else set[str]()
        # Inspect finds out which family it is.
        assert model_of(name).flipped(model_of(name, file)) == wanted | {"inspect"}, name


def test_a_family_is_made_of_what_its_module_imports() -> None:
    listed = {name: {Path(file).stem for file in files} for name, files in FAMILIES.items()}
    assert (listed["llama"], listed["glm4"], listed["gemma2"]) == ({"llama"}, {"glm", "glm4"}, {"gemma", "gemma2"})
    assert set(listed) == {name.replace("-", "_") for name in families()}


@pytest.mark.parametrize(("name", "own"), [("llama", False), ("qwen2", True)])
def test_a_model_type_that_is_known_keeps_other_families_out_of_inspect_and_of_a_preset(name: str, own: bool) -> None:
    both = [model_of("llama"), model_of("llama", PACKAGE / tool_identities.FAMILIES / "qwen2.py")]
    before, after = map(edit_project(lambda of: edit_model(of, model_type=name)), both)
    assert before.flipped(after) == ({"inspect"} if own else set())
    of = edit_model(edit_platform(plans.project(preset=("smollm2",)), artifact="wasm"), model_type=None)
    known = {"presets": {"smollm2": {}}, "types": {"smollm2": name}}
    before, after = (
        dataclasses.replace(one, project=of, observed=dataclasses.replace(one.observed, **known)) for one in both
    )
    assert before.flipped(after) == ({"config"} if own else set())


# Declarations against the code.


PACKAGES = {"tvm": "apache-tvm", "tvm_ffi": "apache-tvm-ffi"}
"""Distributions whose import name is another."""

ONLY_CHECKS: Mapping[str, set[str]] = {"config": {"sentencepiece"}, "fetch": {"oras", "requests"}}
"""Optional packages that decide whether there is a result, and not what it is."""

COMPILED: Mapping[str, set[str]] = {"runtime": {"apache-tvm", "apache-tvm-ffi"}}
"""Packages that a kind takes sources of, which it does not import."""


def test_a_fetch_knows_nothing_of_what_it_fetches() -> None:
    """A family that is added, or a scheme, fetches nothing again."""
    parts = {path.relative_to(PACKAGE).parts[0] for path in declared_files(KINDS["fetch"])}
    assert {"sources", "checkpoints"} <= parts
    assert not parts & {"models", "quantization", "conversation", "compiler", "runtime", "workspace"}


@pytest.mark.parametrize("name", KIND_NAMES)
def test_the_declared_tools_are_the_packages_that_the_code_imports(name: str) -> None:
    imported: set[str] = set()
    for path in declared_files(KINDS[name]):
        if path.suffix != ".py":
            continue
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                imported |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module is not None:
                imported.add(node.module.split(".")[0])
    imported -= {*sys.stdlib_module_names, "llmbuild", *ONLY_CHECKS.get(name, set())}
    expected = {PACKAGES.get(package, package) for package in imported} | COMPILED.get(name, set())
    declared = set(KINDS[name].tools) - tool_identities.PER_TASK_TOOLS
    assert expected == {tool for tool in declared if " " not in tool}
    # Of a package with native libraries its Python files count where they run, its headers where they are compiled.
    contents = "headers" if name in COMPILED else "python"
    assert {tool for tool in declared if " " in tool} == {
        f"{one} {contents}" for one in expected & set(tool_identities.LIBRARIES)
    }
