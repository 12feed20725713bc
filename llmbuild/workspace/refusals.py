"""Checkpoints that are refused before they are fetched, by the small files that describe them.

The verdict on a model is recorded in the store under the content of these files and the keys of the tasks that would read
them, so that a plan of what is known reads nothing but the record.  What a hub sent is kept in the store under its commit.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from llmbuild.canonical import Digest, Json, canonical_json, digest_json, known_digest, parse_digest
from llmbuild.checkpoints.names import GENERATION_CONFIG, TOKENIZER_CONFIG, TOKENIZER_JSON
from llmbuild.engine import files
from llmbuild.engine.task import Task
from llmbuild.errors import InputError, LlmbuildError, StoreError
from llmbuild.jsontext import parse_json
from llmbuild.manifest.project import Model, Project
from llmbuild.sources.advice import fitting
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.select import GGUF_NAME, descriptions, output_name, require_weights

if TYPE_CHECKING:
    from llmbuild.engine.store import Store
    from llmbuild.models.architecture import DecoderFamily
    from llmbuild.plan.observed import Observed
    from llmbuild.sources.kind import Observation
    from llmbuild.workspace.tool_identities import Toolchain

VERDICTS = "verdicts"
"""The directory of a store that has what was kept under a commit, and an empty file for each model that is not refused."""

_JUDGES = ("llmbuild.tasks.refusal", "llmbuild.workspace.refusals")


def with_refusals(
    tasks: Sequence[Task], project: Project, observed: Observed, store: Store, toolchain: Toolchain
) -> tuple[Task, ...]:
    """The tasks, with a lack where the description of a checkpoint shows that the task would refuse it, and where no other
    task needs the weights that a task would fetch."""
    judges: Json = digest_json(toolchain.source_files(_JUDGES))
    errors: dict[str, LlmbuildError] = {}
    for name in dict.fromkeys(task.model for task in tasks if task.model):
        readers = [task for task in tasks if task.model == name and task.kind in ("config", "quantize")]
        own = observed.architectures.get(name)
        if own is not None and own.error is not None:
            # Nothing of it runs, neither here nor in a task.
            loading = [task for task in tasks if task.model == name and task.kind in ("config", "quantize", "lower")]
            errors |= dict.fromkeys((task.label for task in loading), own.error)
            continue
        adapter = _of_adapter(project.models[name], observed.adapters.get(name), store, judges)
        if adapter is not None:
            errors |= dict.fromkeys((task.label for task in readers if task.kind == "quantize"), adapter)
        errors |= _of_model(project.models[name], readers, observed.sources.get(name), store, judges, project)
    return tuple(_with_lacks(tasks, errors)) if errors else tuple(tasks)


def refuses(model: Model, description: Mapping[str, bytes]) -> bool:
    """Whether no scheme makes weights of a model with this description, so that nothing else of it has to be known."""
    from llmbuild.checkpoints.files import parse_json as parse_object
    from llmbuild.quantization.scheme import SCHEMES
    from llmbuild.tasks.refusal import refusal

    try:
        parsed = {name: parse_object(data, name) for name, data in description.items()}
    except InputError:
        return True
    if "config.json" not in parsed:
        return False
    if model.architecture is not None:
        return False
    config = parsed.pop("config.json")
    params: dict[str, Any] = {"model-type": model.model_type, "ignore-keys": model.ignore_keys}
    every = (params | {"scheme": scheme.to_json()} for scheme in SCHEMES.values())
    return all(refusal("quantize", one, config, parsed) is not None for one in every)


def keep_description(store: Store, observation: Observation, description: Mapping[str, bytes]) -> None:
    """Keep in the store what a hub sent of a model that `refuses`."""
    source: Any = observation.params["source"]
    _keep(store, dict(source), description)


def known_config(model: Model, reader: Task, observation: Observation | None, store: Store) -> dict[str, Any] | None:
    """The content of a model's config.json as far as it is known without a request to where a remote model is; None where it is
    not.  `reader` is the model's config task.  Raises InputError for one that is not valid."""
    from llmbuild.tasks.own import architecture_in

    content = _content(model, observation)
    if content is None:
        return None
    own = architecture_in(reader.params, reader.hints)
    description = _description(model, reader, observation, content, store, own, ask=False)
    return None if description is None else description.get("config.json")


def _with_lacks(tasks: Sequence[Task], errors: Mapping[str, LlmbuildError]) -> Iterable[Task]:
    from llmbuild.engine.lack import Lack

    for task in tasks:
        found = [errors.get(task.label)]
        if task.kind in ("fetch", "inspect"):
            # A library alone, without the weights that it is for, is not worth the download of them.
            readers = [one for one in tasks if any(ref.task == task.label for ref in one.inputs.values())]
            readers = [one for one in readers if one.kind != "inspect"]
            readers = [one for one in readers if one.kind == "quantize"] or readers
            found = [errors.get(one.label) for one in readers]
        if task.lack is None and found and None not in found:
            once = {str(error): error for error in found if error is not None}
            task = dataclasses.replace(task, lack=Lack(tuple(once.values()), refused=True))  # noqa: PLW2901
        yield task


def _of_model(
    model: Model, readers: Sequence[Task], observation: Observation | None, store: Store, judges: Json, project: Project
) -> dict[str, LlmbuildError]:
    """The refusals of a model's tasks, by their labels."""
    content = _content(model, observation)
    if content is None or not readers:
        return {}
    schemes = {task.scheme: project.schemes[task.scheme] for task in readers if task.scheme in project.schemes}
    overridden: Json = [scheme.to_json() for scheme in schemes.values() if scheme.overrides]
    asked: Json = [[task.kind, task.version, dict(task.params), dict(task.tools)] for task in readers]
    fine = (
        store.root
        / VERDICTS
        / digest_json({"content": content, "tasks": asked, "judges": judges, "schemes": overridden})
    )
    if fine.exists():
        return {}
    from llmbuild.tasks.own import architecture_in
    from llmbuild.tasks.refusal import Said, placed, refusal

    name_of = partial(_written, model, observation, project)
    try:
        if names := _names(observation):
            require_weights(names, model.source_format)
        own = architecture_in(readers[0].params, readers[0].hints)
        description = _description(model, readers[0], observation, content, store, own)
    except InputError as error:
        if model.source is not None:
            error.fix = fitting(error.fix, remote=source_kind(model.source.kind).remote)
        return dict.fromkeys((task.label for task in readers), placed(error, name_of))
    if description is None or "config.json" not in description:
        return {}
    config, tokenizer = description.pop("config.json"), description.pop(TOKENIZER_JSON, None)
    settings, generation = description.pop(TOKENIZER_CONFIG, None), description.pop(GENERATION_CONFIG, None)
    if not names:
        settings = None
    elif settings is None and TOKENIZER_CONFIG not in names:
        settings = {}
    # A GGUF file holds its tokenizer.
    said = Said(() if any(map(_is_gguf, names)) else names, settings, generation or {}, tokenizer)
    found: dict[str, LlmbuildError | None] = {}
    for task in readers:
        refused = refusal(
            task.kind,
            task.params,
            config,
            description,
            said,
            partial(architecture_in, task.params, task.hints),
            schemes.get(task.scheme),
        )
        found[task.label] = None if refused is None else placed(refused, name_of)
    for task in readers:
        # Weights without the configuration of the same scheme are of no use.
        beside = [found[one.label] for one in readers if one.kind == "config" and one.scheme == task.scheme]
        found[task.label] = found[task.label] or next(iter(beside), None)
    errors = {label: error for label, error in found.items() if error is not None}
    if not errors:
        # A verdict that cannot be recorded is found again.
        with contextlib.suppress(StoreError):
            files.write_atomic(fine, b"")
    return errors


def _of_adapter(model: Model, observation: Observation | None, store: Store, judges: Json) -> LlmbuildError | None:
    """The refusal of a directory's adapter_config.json; None for an adapter that is somewhere else."""
    if model.adapter is None or observation is None or source_kind(model.adapter.kind).remote:
        return None
    listed: dict[str, Json] = dict(_digests(observation))
    fine = store.root / VERDICTS / digest_json({"adapter": listed, "judges": judges})
    place = Path(str(observation.hints["path"]))
    if fine.exists() or not place.is_dir():
        return None
    from llmbuild.checkpoints.lora_config import AdapterConfig
    from llmbuild.tasks.refusal import placed
    from llmbuild.workspace.spelling import written

    try:
        AdapterConfig(place)
    except InputError as error:
        error.where = (error.where or "").removeprefix(str(place)).removeprefix("/")
        return placed(error, partial(written, model.adapter, observation))
    with contextlib.suppress(StoreError):
        files.write_atomic(fine, b"")
    return None


def _content(model: Model, observation: Observation | None) -> Json:
    """What identifies the description of a model; None where nothing is known of it before a fetch.  A preset's is in the
    parameters of its tasks."""
    if model.source is None or observation is None:
        return {"preset": model.preset} if model.preset is not None else None
    kind = source_kind(model.source.kind)
    source: Any = observation.params["source"]
    if kind.remote and kind.fixed:
        return dict(source)
    digests = _digests(observation)
    listed: dict[str, Json] = {name: digests.get(name) for name in _names(observation)}
    return {"source": dict(source), "files": listed} if digests else None


def _is_gguf(name: str) -> bool:
    return name.endswith(".gguf")


def _names(observation: Observation | None) -> list[str]:
    """The names of the files of a source in the output, none where they are not known."""
    return [] if observation is None else sorted(map(output_name, _listed(observation)))


def _listed(observation: Observation) -> Mapping[str, Any]:
    listed: Any = observation.params["files"] or observation.hints.get("files") or {}
    return dict(listed)


def _digests(observation: Observation) -> dict[str, Digest]:
    """The SHA-256 of the files of a source, as far as they are known, by their names in the output."""
    found = {}
    for name, entry in _listed(observation).items():
        digest = known_digest(entry.get("sha256") if isinstance(entry, Mapping) else entry)
        if digest is not None:
            found[output_name(name)] = digest
    return found


def _description(
    model: Model,
    reader: Task,
    observation: Observation | None,
    content: Json,
    store: Store,
    own: DecoderFamily | None,
    *,
    ask: bool = True,
) -> dict[str, Any] | None:
    """The contents of the files that describe a model, by their names; None where they are not known.  `own` is the project's
    own family of the model.  Without `ask` a remote model is what the store has of it.

    Raises InputError where one of them is not valid."""
    if model.source is None or observation is None:
        preset: Any = reader.params["preset"]
        return {"config.json": dict(preset)}
    kind = source_kind(model.source.kind)
    digests = _digests(observation)
    if any(map(_is_gguf, digests)):
        # The parts of one in the store have other names than the first part tells.
        place = _held(store, digests.get(GGUF_NAME)) if kind.remote else Path(str(observation.hints["path"]))
        if place is not None and place.is_file():
            return _of_gguf(place, own)
    kept = None if not kind.remote else _kept(store, content) or _from_store(store, digests)
    description: Mapping[str, bytes] | None = kept
    if description is None and (ask or not kind.remote):
        description = kind.description(observation.params, observation.hints)
    if description is None:
        return None
    if kind.remote and kept is None:
        _keep(store, content, description)
    from llmbuild.checkpoints.files import parse_json as parse_object
    from llmbuild.checkpoints.pointer import refuse_pointer

    if GGUF_NAME in description:
        _check_head(description[GGUF_NAME], own)
        return None
    found = {}
    for name, data in description.items():
        refuse_pointer(data, name)
        try:
            found[name] = parse_object(data, name)
        except InputError as error:
            error.where = error.where or name
            raise
    return found


def _of_gguf(path: Path, own: DecoderFamily | None) -> dict[str, Any]:
    from llmbuild.models.gguf.checkpoint import read_gguf_description

    try:
        return read_gguf_description(path, own)
    except InputError as error:
        # The path may be one in the store.
        raise InputError(error.what, why=error.why, fix=error.fix) from error


def _check_head(head: bytes, own: DecoderFamily | None) -> None:
    from llmbuild.models.gguf.head import check_head

    try:
        check_head(head, own)
    except InputError as error:
        error.where = GGUF_NAME
        raise


def _held(store: Store, digest: Digest | None) -> Path | None:
    return None if digest is None else store.cas.blob_path(digest)


def _from_store(store: Store, digests: Mapping[str, Digest]) -> dict[str, bytes] | None:
    """The description out of the store's blobs; None where one is not there."""
    try:
        return {name: store.cas.get_bytes(digests[name]) for name in descriptions(digests)} or None
    except StoreError:
        return None


def _kept(store: Store, content: Json) -> dict[str, bytes] | None:
    """The description that an earlier plan got from where the content is."""
    try:
        record = parse_json(files.read_bytes(str(_record(store, content))))
        return {str(name): store.cas.get_bytes(parse_digest(digest)) for name, digest in record.items()}
    except (OSError, ValueError, AttributeError, StoreError):
        return None


def _keep(store: Store, content: Json, description: Mapping[str, bytes]) -> None:
    with contextlib.suppress(StoreError):
        record: dict[str, Json] = {name: store.cas.put_bytes(data) for name, data in description.items()}
        files.write_atomic(_record(store, content), canonical_json(record))


def _record(store: Store, content: Json) -> Path:
    return store.root / VERDICTS / f"{digest_json(content)}.json"


def _written(model: Model, observation: Observation | None, project: Project, name: str) -> str:
    """The user's name of a file that describes the model, or of the manifest's table where `name` is "overrides"."""
    from llmbuild.quantization.overrides import place_in_manifest
    from llmbuild.workspace.manifests import place_of
    from llmbuild.workspace.spelling import written

    place = place_in_manifest(name)
    if place is not None:
        return str(place_of(project, place))
    if name == "overrides":
        return f"{project.file}: models.{model.name}: metadata"
    if model.source is None or observation is None:
        return f"preset {model.preset}"
    gguf = next(filter(_is_gguf, _digests(observation)), None)
    return written(model.source, observation, gguf or name)
