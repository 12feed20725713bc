"""Making the tasks of a graph, each shared one once: those of cells of the matrix and of packages."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from llmbuild.canonical import Json
from llmbuild.checkpoints.names import CHAT_CONFIG
from llmbuild.engine.kind import TaskKind
from llmbuild.engine.labels import make_label
from llmbuild.engine.task import AllFiles, Choice, Files, InputRef, Install, JsonFields, Task
from llmbuild.linkers import carries_name
from llmbuild.manifest.project import Combination, Model, Package, Platform, Project
from llmbuild.plan.observed import DEVICE_TOOL, Observed
from llmbuild.plan.packages import package_parts
from llmbuild.plan.reasons import FAMILY_TOOL, PACKAGE_TOOL
from llmbuild.programs.run import compiler_of
from llmbuild.quantization.scheme import Scheme
from llmbuild.sources.kind import Observation
from llmbuild.targets.compile_part import is_cpu
from llmbuild.tasks.config import CHECKPOINT_PATTERNS
from llmbuild.tasks.facts import FACTS, FACTS_FIELDS
from llmbuild.tasks.own import ARCHITECTURE
from llmbuild.tasks.prefix import MODEL_TYPE, fill

if TYPE_CHECKING:
    from llmbuild.engine.lack import Lack

WEIGHT_FILES = Files(
    (
        "*.safetensors",
        "*.safetensors.index.json",
        "*.bin",
        "*.bin.index.json",
        "*.gguf",
        "config.json",
        "quant*_config.json",
        "hf_quant_config.json",
    )
)
"""What inspect and quantize read of a checkpoint: a changed tokenizer does not quantize again."""

CONFIG_FILES = Files(CHECKPOINT_PATTERNS)
"""What config reads of a checkpoint: changed weights do not change the chat configuration (a GGUF file holds both)."""

OBJECT_FILES = Files(("*.o",))

SYSTEM_LIBRARIES = frozenset({"tar", "wasm"})
"""Artifact kinds whose module registers itself when it is linked into a program, under the system-library prefix."""

SIDECAR = "metadata.json"
"""The library's own record beside it: a library for a device can be loaded, and queried, only where such a device is."""

WITH_RUNTIME = frozenset({"wasm"})
"""Artifact kinds that contain TVM's runtime: a browser has none of its own."""


class Maker(ABC):
    """Collects tasks by label, making each shared one once."""

    def __init__(
        self, project: Project, observed: Observed, kinds: Mapping[str, TaskKind], compile_fields: tuple[str, ...]
    ) -> None:
        self.project = project
        self.observed = observed
        self.kinds = kinds
        self.compile_fields = compile_fields
        self.tasks: dict[str, Task] = {}

    def add_cell(self, cell: Combination) -> None:
        """One library, and what it shares with others."""
        self.library(cell, self.project.schemes[cell.scheme], self.project.platforms[cell.platform])

    def library(self, cell: Combination, scheme: Scheme, platform: Platform, *, exact: bool = False) -> str:
        """The link task of a library, with all that it and its weights need; `exact` weights round no float32."""
        model = self.project.models[cell.model]
        of_checkpoint: dict[str, InputRef] = {}
        if model.source is not None:
            weights = self.weights(model)
            facts = InputRef(self.inspect(model, weights), JsonFields(FACTS, FACTS_FIELDS))
            self.quantize(cell, scheme, {**weights, "facts": facts}, "exact" if exact else model.float32)
            of_checkpoint = {"checkpoint": InputRef(weights["checkpoint"].task, CONFIG_FILES), "facts": facts}
        config = self.config(cell, scheme, of_checkpoint)
        return self.link(cell, platform, self.lower(cell, scheme, platform, config))

    def task(
        self,
        kind: str,
        of: Iterable[str],
        params: Mapping[str, Json],
        inputs: Mapping[str, InputRef],
        *,
        tools: Mapping[str, str] | None = None,
        hints: Mapping[str, Json] | None = None,
        installs: tuple[Install, ...] = (),
        cell: tuple[str, str, str] = ("", "", ""),
        lack: Lack | None = None,
        model_type: str | None = None,
        typed_by: str | None = None,
        package: str = "",
    ) -> str:
        """Add a task and return its label.  `params` are those that the kind declares, no more and no less.

        `model_type` says of which family the model is, or the input `typed_by` does.
        """
        declared = self.kinds[kind]
        if undeclared := params.keys() - set(declared.params):
            # It would not be in the key, and the task could not read it.
            raise KeyError(f"{kind} does not declare {', '.join(sorted(undeclared))}")
        label = make_label(kind, *of)
        model, scheme, platform = cell
        choice = None
        own = self.observed.architectures.get(model) if ARCHITECTURE in params else None
        if own is not None and own.text is not None:
            hints = {**(hints or {}), ARCHITECTURE: own.text}
        if FAMILY_TOOL in declared.tools:
            known, every = self.observed.families, self.observed.every_family
            if own is not None:
                tools = {**(tools or {}), FAMILY_TOOL: own.families}
            elif typed_by is None:
                # What finds out which family it is may look at all of them.
                tools = {**(tools or {}), FAMILY_TOOL: known.get(model_type or "", every)}
            else:
                choice = Choice(FAMILY_TOOL, typed_by, "model_type", known, every)
        self.tasks[label] = Task(
            kind=kind,
            label=label,
            version=declared.version,
            params={name: params[name] for name in declared.params},
            inputs=inputs,
            tools={**self.observed.tools.get(kind, {}), **(tools or {})},
            hints=hints or {},
            installs=installs,
            model=model,
            scheme=scheme,
            platform=platform,
            lack=lack,
            choice=choice,
            package=package,
        )
        return label

    def _architecture(self, model: str) -> Json:
        """A project's own architecture as a parameter, which is null for a family of llmbuild."""
        own = self.observed.architectures.get(model)
        return None if own is None else {"name": own.name, "sha256": own.sha256}

    def fetch(self, model: Model) -> str:
        return self.fetch_one((model.name,), self.observed.sources[model.name], model=model.name)

    def fetch_one(self, of: tuple[str, ...], source: Observation, *, model: str = "", package: str = "") -> str:
        label = make_label("fetch", *of)
        if label in self.tasks:
            return label
        params = dict.fromkeys(self.kinds["fetch"].params) | dict(source.params)
        gone = self.observed.gone.get(label)
        lack = None
        if gone is not None:
            from llmbuild.engine.lack import Lack

            lack = Lack((gone,), source=True)
        cell = (model, "", "")
        return self.task("fetch", of, params, {}, hints=source.hints, cell=cell, lack=lack, package=package)

    def weights(self, model: Model) -> dict[str, InputRef]:
        """The weights of a model and its adapter, as inputs of the tasks that look at tensors."""
        inputs = {"checkpoint": InputRef(self.fetch(model), WEIGHT_FILES)}
        if model.adapter is not None:
            adapter = self.fetch_one((model.name, "adapter"), self.observed.adapters[model.name], model=model.name)
            inputs["adapter"] = InputRef(adapter, AllFiles())
        return inputs

    def inspect(self, model: Model, weights: Mapping[str, InputRef]) -> str:
        label = make_label("inspect", model.name)
        if label in self.tasks:
            return label
        params: dict[str, Json] = {
            "model-type": model.model_type,
            "ignore-keys": list(model.ignore_keys),
            "source-format": model.source_format,
            ARCHITECTURE: self._architecture(model.name),
        }
        return self.task(
            "inspect", (model.name,), params, weights, cell=(model.name, "", ""), model_type=model.model_type
        )

    def quantize(self, cell: Combination, scheme: Scheme, inputs: Mapping[str, InputRef], float32: str) -> None:
        model = self.project.models[cell.model]
        if make_label("quantize", cell.model, cell.scheme) in self.tasks:
            return
        self.task(
            "quantize",
            (cell.model, cell.scheme),
            {
                "scheme": scheme.to_json(),
                "method": scheme.method,
                "model-type": model.model_type,
                "ignore-keys": list(model.ignore_keys),
                "source-format": model.source_format,
                "float32": float32,
                ARCHITECTURE: self._architecture(model.name),
            },
            {**inputs, **self.known_inputs(cell.model, scheme)},
            installs=(Install("", cell.weights),) if cell.weights else (),
            cell=(cell.model, cell.scheme, ""),
            typed_by="facts",
        )

    @abstractmethod
    def known_inputs(self, model: str, scheme: Scheme) -> Mapping[str, InputRef]:
        """What is known of the inputs of a model's weights, for schemes whose method goes by it."""

    def config(self, cell: Combination, scheme: Scheme, inputs: Mapping[str, InputRef]) -> str:
        model = self.project.models[cell.model]
        label = make_label("config", cell.model, cell.scheme)
        if label in self.tasks:
            return label
        return self.task(
            "config",
            (cell.model, cell.scheme),
            {
                "quantization": scheme.name,
                "model-type": model.model_type,
                "ignore-keys": list(model.ignore_keys),
                "conversation": model.conversation,
                "system-prompt": model.system_prompt,
                "metadata": dict(model.metadata),
                "generation": dict(model.generation),
                "preset": None if inputs else self.observed.presets[model.name],
                ARCHITECTURE: self._architecture(model.name),
            },
            inputs,
            installs=(Install("", cell.weights),) if cell.weights else (),
            cell=(cell.model, cell.scheme, ""),
            model_type=model.model_type or self.observed.types.get(model.name),
            typed_by="facts" if inputs else None,
        )

    def lower(self, cell: Combination, scheme: Scheme, platform: Platform, config: str) -> str:
        of = (cell.model, cell.scheme, cell.platform)
        if make_label("lower", *of) in self.tasks:
            raise ValueError(f"the matrix has {', '.join(of)} twice")
        return self.task(
            "lower",
            of,
            {
                "scheme": scheme.to_json(),
                "overrides": _overrides(platform, cell),
                "target": platform.compile,
                "opt": platform.opt,
                "activations": platform.activations if scheme.rounds_activations else None,
                "system-lib": platform.artifact in SYSTEM_LIBRARIES,
                "system-lib-prefix": _prefix(platform, cell),
                "requires": list(platform.features.get(scheme.dtype, ())),
                "taps": platform.taps,
                ARCHITECTURE: self._architecture(cell.model),
            },
            {"config": InputRef(config, JsonFields(CHAT_CONFIG, self.compile_fields))},
            tools={DEVICE_TOOL: compiler} if (compiler := self.observed.devices.get(cell.platform)) else None,
            installs=(Install(SIDECAR, sidecar(cell), cell.library),) if has_sidecar(platform) else (),
            cell=of,
            lack=self._lack(platform, "lower"),
            typed_by="config",
        )

    def _runtime(self, platform: Platform) -> str:
        label = make_label("runtime", compiler_name(platform))
        if label in self.tasks:
            return label
        params = {"compiler": platform.link.get("compiler")}
        return self.task(
            "runtime",
            (compiler_name(platform),),
            params,
            {},
            tools=self._linker(platform),
            lack=self._lack(platform, "link"),
        )

    def _linker(self, platform: Platform) -> dict[str, str]:
        """The linker of a platform as a tool of a key; none where it is unknown."""
        linker = self.observed.linkers.get(platform.name)
        return {} if linker is None else {"linker": linker}

    def _lack(self, platform: Platform, kind: str) -> Lack | None:
        return self.observed.lacks.get(platform.name, {}).get(kind)

    def link(self, cell: Combination, platform: Platform, objects: str) -> str:
        of = (cell.model, cell.scheme, cell.platform)
        prefix = _prefix(platform, cell)
        inputs = {"objects": InputRef(objects, OBJECT_FILES)}
        if platform.artifact in WITH_RUNTIME:
            inputs["runtime"] = InputRef(self._runtime(platform), OBJECT_FILES)
        if prefix is not None and MODEL_TYPE in prefix:
            inputs["library"] = InputRef(objects, JsonFields(SIDECAR, ("model_type",)))
        return self.task(
            "link",
            of,
            {
                "artifact": platform.artifact,
                "link": platform.link,
                "system-lib-prefix": prefix,
                "name": PurePosixPath(cell.library).name if carries_name(platform.link, platform.artifact) else None,
            },
            inputs,
            tools={**self._linker(platform), **self.observed.variables.get(cell.platform, {})},
            installs=(Install(f"lib.{platform.artifact}", cell.library),) if cell.library else (),
            cell=of,
            lack=self._lack(platform, "link"),
        )

    def add_package(self, package: Package) -> None:
        """A package, whose models and libraries have their tasks already."""
        parts = package_parts(package, self.project.platforms)
        for of, names in parts.joins.items():
            libraries = {link: parts.inputs[link] for link in names}
            self.task("join", of, {"libraries": names}, libraries, package=package.name)
        for name in package.sources:
            of_source = (package.name, name)
            self.fetch_one(of_source, self.observed.of_packages[make_label("fetch", *of_source)], package=package.name)
        self.task(
            "package",
            (package.name,),
            parts.params,
            parts.inputs,
            tools={PACKAGE_TOOL: self.observed.package_kinds[package.kind]},
            installs=(Install("", package.output),),
            package=package.name,
        )


def has_sidecar(platform: Platform) -> bool:
    """Whether the library's record is installed beside it: for every device but the CPU."""
    return not is_cpu(platform.compile)


def sidecar(cell: Combination) -> str:
    return f"{cell.library}.json"


def compiler_name(platform: Platform) -> str:
    """The name in a runtime task's label: a target may name another Emscripten, and then has a runtime of its own."""
    return " ".join(compiler_of(platform.link) or ("emcc",))


def _prefix(platform: Platform, cell: Combination) -> str | None:
    """The system-library prefix of one library; the model's type is left to the tasks, which read it."""
    template = platform.system_lib_prefix
    return None if template is None else fill(template, model=cell.model, quantization=cell.scheme)


def _overrides(platform: Platform, cell: Combination) -> dict[str, Json]:
    """Metadata of the platform and the build entry, the later over the former, as the compiler spells it."""
    merged: dict[str, Json] = {**platform.metadata, **cell.metadata}
    return {name.replace("-", "_"): value for name, value in merged.items()}
