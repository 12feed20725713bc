"""A project and a store in memory, for tests of planning: no disk, no clock, no network."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from llmbuild.canonical import Digest, Json, canonical_json, digest_bytes, digest_json
from llmbuild.engine.action import Action, Input, JsonInput, TreeInput
from llmbuild.engine.kind import Job, TaskKind
from llmbuild.engine.labels import make_label
from llmbuild.engine.registry import load_kind
from llmbuild.engine.task import Files, JsonFields, Task
from llmbuild.engine.tree import FileEntry, Tree
from llmbuild.manifest.measuring import CALIBRATING, MEASURING
from llmbuild.manifest.project import Combination, Model, Package, PackagedLibrary, Platform, Project
from llmbuild.plan.graph import expand
from llmbuild.plan.measuring import CALIBRATION
from llmbuild.plan.observed import Observed, Text
from llmbuild.plan.planner import Built, Lost, Plan, make_plan
from llmbuild.plan.reasons import Reason
from llmbuild.quantization.scheme import SCHEMES
from llmbuild.sources.kind import Observation, Source

FIELDS = ("model_type", "quantization", "context_window_size")


def _no_run(job: Job) -> None:
    raise AssertionError("planning must run nothing")


KINDS: Mapping[str, TaskKind] = {
    name: TaskKind(name, 1, load_kind(name).params, (), tools, _no_run)
    for name, tools in (
        ("fetch", ()),
        ("inspect", ("numpy",)),
        ("quantize", ("numpy",)),
        ("config", ()),
        ("lower", ("apache-tvm",)),
        ("runtime", ("apache-tvm", "linker")),
        ("link", ("linker",)),
        ("join", ()),
        ("package", ()),
        ("text", ()),
        ("calibrate", ("apache-tvm",)),
    )
}


def project(
    models: Sequence[str] = ("smollm2",),
    schemes: Sequence[str] = ("q4f32_1",),
    platforms: Sequence[str] = ("native",),
    *,
    preset: Sequence[str] = (),
    adapter: Sequence[str] = (),
) -> Project:
    """A project whose matrix is the full product of the three lists."""
    return Project(
        name="assistants",
        file="buildfile.toml",
        root="/project",
        output="dist",
        models={
            name: Model(
                name=name,
                source=None if name in preset else Source("path", {"path": name}),
                preset=name if name in preset else None,
                adapter=Source("path", {"path": f"{name}-adapter"}) if name in adapter else None,
                model_type="llama",
                ignore_keys=(),
                source_format=None,
                float32="bf16",
                conversation={"name": "chatml", "seps": ["\n"], "stop_str": ["<|im_end|>"]},
                system_prompt=None,
                metadata={"context-window-size": 2048},
                generation={"temperature": 1.0},
            )
            for name in models
        },
        schemes={name: SCHEMES[name] for name in schemes},
        platforms={
            name: Platform(
                name=name,
                target="x86_64-linux-cpu",
                compile={"device": {"kind": "llvm"}, "host": {"mtriple": f"x86_64-{name}"}},
                link={"linker": "cc", "flags": []},
                artifact="so",
                metadata={},
                opt={"cudagraph": False},
                system_lib_prefix=None,
            )
            for name in platforms
        },
        matrix=tuple(
            Combination(
                model=model,
                scheme=scheme,
                platform=platform,
                metadata={},
                library=f"dist/libs/{model}-{scheme}-{platform}.so",
                weights="" if model in preset else f"dist/{model}-{scheme}-MLC",
            )
            for model in models
            for scheme in schemes
            for platform in platforms
        ),
        measuring=MEASURING_PLATFORM,
        calibrating=dataclasses.replace(MEASURING_PLATFORM, name=CALIBRATING, taps=True),
    )


MEASURING_PLATFORM = Platform(
    name=MEASURING,
    target="x86_64-linux-cpu",
    compile={"device": {"kind": "llvm"}, "host": {"mtriple": "x86_64-measuring"}},
    link={"linker": "cc", "flags": []},
    artifact="so",
    metadata={"prefill-chunk-size": 256},
    opt={"cudagraph": False},
    system_lib_prefix=None,
    activations="float",
)


def observed(of: Project) -> Observed:
    """A world in which every source, tool and linker of the project is there."""
    sources_digest = digest_json(dict(SOURCES))
    tools = {
        "fetch": {},
        "inspect": {"numpy": "2.4.0"},
        "quantize": {"numpy": "2.4.0"},
        "config": {},
        "lower": {"apache-tvm": f"0.27.0.post1+sha256.{'a' * 64}"},
        "runtime": {"apache-tvm": f"0.27.0.post1+sha256.{'a' * 64}"},
        "link": {},
        "join": {},
        "package": {},
        "text": {},
        "calibrate": {"apache-tvm": f"0.27.0.post1+sha256.{'a' * 64}"},
    }
    return Observed(
        sources={
            name: Observation(
                {"source": {"kind": "path"}, "files": {"model.safetensors": digest_bytes(name.encode())}},
                {"path": f"/checkpoints/{name}"},
            )
            for name, model in of.models.items()
            if model.source is not None
        },
        adapters={
            name: Observation({"source": {"kind": "path"}, "files": {"adapter.safetensors": "0" * 64}}, {})
            for name, model in of.models.items()
            if model.adapter is not None
        },
        presets={name: {"hidden_size": 64} for name, model in of.models.items() if model.preset is not None},
        tools={kind: {**own, "llmbuild sources": sources_digest} for kind, own in tools.items()},
        linkers=dict.fromkeys(of.platforms, "GNU ld 2.40"),
        source_files={sources_digest: SOURCES},
        of_packages={
            make_label("fetch", package.name, name): Observation(
                {"source": {"kind": "path"}, "files": {"index.js": "1" * 64}}, {}
            )
            for package in of.packages.values()
            for name in package.sources
        },
        package_kinds={package.kind: digest_bytes(package.kind.encode()) for package in of.packages.values()},
        texts={name: Text(f"/texts/{name}.txt", digest_bytes(name.encode())) for name in (CALIBRATION,)},
    )


def with_package(of: Project, name: str = "app", *, sources: Sequence[str] = (), archive: str | None = None) -> Project:
    """The project with a package of all its libraries, which are joined where `archive` is the word of an archive."""
    package = Package(
        name=name,
        kind="server",
        libraries=tuple(PackagedLibrary(one.model, one.scheme, one.platform, archive) for one in of.matrix),
        options={},
        sources={source: Source("path", {"path": source}) for source in sources},
        output=f"{of.output}/{name}",
    )
    return dataclasses.replace(of, packages={name: package})


SOURCES: Mapping[str, Digest] = {"linkers/elf.py": "1" * 64, "linkers/archive.py": "2" * 64}


def tasks_of(of: Project, world: Observed | None = None, measured: Sequence[str] = ()) -> tuple[Task, ...]:
    return expand(of, world or observed(of), KINDS, FIELDS, measured)


@dataclass
class Memory:
    """A store in memory: Knowledge for the planner, and a builder that "runs" tasks by a deterministic rule."""

    trees: dict[Digest, Tree] = field(default_factory=dict)
    blobs: dict[Digest, bytes] = field(default_factory=dict)
    traces: dict[Digest, Built | Lost] = field(default_factory=dict)
    last: dict[str, Mapping[str, Json]] = field(default_factory=dict)
    wrong: dict[str, tuple[Reason, ...]] = field(default_factory=dict)
    sources: dict[Digest, Mapping[str, Digest]] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)

    def tree(self, digest: Digest) -> Tree | None:
        return self.trees.get(digest)

    def json_value(self, digest: Digest) -> Json:
        import json

        value: Json = json.loads(self.blobs[digest]) if digest in self.blobs else None
        return value

    def source_files(self, digest: Digest) -> Mapping[str, Digest] | None:
        return self.sources.get(digest)

    def recall(self, action: Digest) -> Built | Lost | None:
        return self.traces.get(action)

    def previous(self, label: str) -> Mapping[str, Json] | None:
        return self.last.get(label)

    def installed(self, task: Task, output: Digest) -> tuple[Reason, ...]:
        return self.wrong.get(task.label, ())

    def bind(self, task: Task, outputs: Mapping[str, Digest]) -> Action | None:
        inputs: dict[str, Input] = {}
        for name, ref in task.inputs.items():
            tree = self.trees.get(outputs[ref.task])
            if tree is None:
                return None
            if isinstance(ref.select, JsonFields):
                whole = self.json_value(next(f.digest for f in tree.files if f.path == ref.select.file))
                assert isinstance(whole, Mapping)
                value = canonical_json({key: whole[key] for key in ref.select.fields if key in whole})
                self.blobs[digest_bytes(value)] = value
                inputs[name] = JsonInput(digest_bytes(value))
            else:
                chosen = tree.select(ref.select.patterns) if isinstance(ref.select, Files) else tree
                self.trees[chosen.digest] = chosen
                inputs[name] = TreeInput(chosen.digest)
        return Action(task.kind, task.version, task.params, inputs, task.tools, task.hints)

    def build(self, tasks: Sequence[Task]) -> list[str]:
        """Run what is stale, in order; returns the labels that ran."""
        outputs: dict[str, Digest] = {}
        ran = []
        for task in tasks:
            action = self.bind(task, outputs)
            assert action is not None
            known = self.traces.get(action.digest)
            if not isinstance(known, Built):
                tree = self._run(task, action)
                known = self.traces[action.digest] = Built(tree.digest)
                ran.append(task.label)
            self.wrong.pop(task.label, None)
            outputs[task.label] = known.output
            self.last[task.label] = action.key()
        self.ran += ran
        return ran

    def plan(self, tasks: Sequence[Task], force: frozenset[str] = frozenset()) -> Plan:
        return make_plan("assistants", tasks, self, force=force)

    def _run(self, task: Task, action: Action) -> Tree:
        """What a task writes: files named by its parameters, and for config the values that a compiler reads."""
        files: dict[str, bytes]
        if task.kind == "fetch":
            listed = task.params["files"]
            assert isinstance(listed, Mapping)
            files = {path: str(digest).encode() for path, digest in listed.items()}
        elif task.kind == "inspect":
            files = {"facts.json": canonical_json({"config": {}, "model_type": "llama"})}
        elif task.kind == "config":
            metadata = task.params["metadata"]
            assert isinstance(metadata, Mapping)
            config = {
                "model_type": task.params["model-type"],
                "context_window_size": metadata.get("context-window-size"),
                "generation": task.params["generation"],
            }
            files = {"mlc-chat-config.json": canonical_json(config)}
        else:
            files = {"lib0.o" if task.kind == "lower" else "out.bin": action.digest.encode()}
        entries = []
        for path, data in files.items():
            self.blobs[digest_bytes(data)] = data
            entries.append(FileEntry(path, digest_bytes(data), len(data)))
        tree = Tree.of(entries)
        self.trees[tree.digest] = tree
        return tree


def edit_model(of: Project, name: str = "smollm2", **changes: object) -> Project:
    """The project with fields of one model replaced."""
    model = dataclasses.replace(of.models[name], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(of, models={**of.models, name: model})


def edit_platform(of: Project, name: str = "native", **changes: object) -> Project:
    """The project with fields of one platform replaced."""
    platform = dataclasses.replace(of.platforms[name], **changes)  # type: ignore[arg-type]
    return dataclasses.replace(of, platforms={**of.platforms, name: platform})


def edit_tool(world: Observed, kind: str, name: str, identity: str) -> Observed:
    """The world with one tool of one kind replaced."""
    return dataclasses.replace(world, tools={**world.tools, kind: {**world.tools[kind], name: identity}})
