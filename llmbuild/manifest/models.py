"""[models.NAME] tables to models: source, architecture, template, adapter."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from llmbuild.canonical import Json
from llmbuild.conversation.templates import CHECKPOINT, CHECKPOINT_ANYWAY, PLACEHOLDERS, resolve_template
from llmbuild.errors import InputError, MultiError, UsageError
from llmbuild.manifest.problems import Problems
from llmbuild.manifest.project import Model
from llmbuild.manifest.schema import ModelTable
from llmbuild.manifest.source import adapter_forms, parse_source, short_forms, shown_source
from llmbuild.manifest.typed import hub_form
from llmbuild.pathtext import PathTextError, expand, has_variable, variables_of
from llmbuild.sources.kind import Source, SourceError
from llmbuild.sources.kinds import source_kind

PRESET_TEMPLATE = "LM"
_OF_WEIGHTS = ("revision", "sha256", "source-format", "adapter", "float32")


def is_template_file(name: str) -> bool:
    """Whether a conv-template is the path of a file, rather than a registered name."""
    return "/" in name or "\\" in name or name.endswith((".json", ".toml")) or has_variable(name)


def variables_read(table: ModelTable) -> list[str]:
    """The variables of the environment that the paths of a table have."""
    template = table.conv_template
    paths = (table.source, table.adapter, template if template is not None and is_template_file(template) else None)
    return [name for text in paths if text is not None for name in variables_of(text)]


def files_of(table: ModelTable) -> list[str]:
    """The files that a table names by paths, whether they are there or not."""
    from llmbuild.models.own import file_of, module_of

    template = table.conv_template
    module = None if table.model_type is None else module_of(table.model_type)
    own = [] if module is None else [file_of(module)]
    if template is None or not is_template_file(template):
        return own
    try:
        return [*own, expand(template)]
    except PathTextError:
        # The table's error says so.
        return own


def resolve_model(
    name: str, table: ModelTable, defaults: Mapping[str, int], root: Path, problems: Problems
) -> Model | None:
    """A model, or None when its table has an error (which is added to `problems`)."""
    origin = _origin(name, table, problems)
    adapter = _adapter(name, table, problems)
    conversation = _conversation(name, table, root, problems)
    architecture = None if table.model_type is None else own_architecture(root, table.model_type)
    if table.model_type is not None:
        _check_model_type(name, table.model_type, root, architecture, problems)
    if origin is None or conversation is None:
        return None
    return Model(
        name=name,
        source=origin if isinstance(origin, Source) else None,
        preset=origin if isinstance(origin, str) else None,
        adapter=adapter,
        model_type=table.model_type,
        ignore_keys=sorted(set(table.ignore_keys)),
        source_format=None if table.source_format == "auto" else table.source_format,
        float32=table.float32,
        conversation=conversation,
        system_prompt=table.system_prompt,
        metadata={**defaults, **table.metadata.given()},
        generation=table.generation.model_dump(exclude_none=True, by_alias=True),
        architecture=architecture,
    )


def _origin(name: str, table: ModelTable, problems: Problems) -> Source | str | None:
    """The source, or the name of the preset."""
    path = ("models", name)
    unusable = problems.any_broken((*path, key) for key in ("source", "preset", "revision", "sha256"))
    if unusable or (table.source is None and table.preset is None and problems.is_misspelt((*path, "source"))):
        return None
    if table.source is not None and table.preset is not None:
        problems.add(
            (*path, "preset"),
            "a model has a source or a preset, not both",
            why="a source brings its own architecture and weights, a preset is an architecture without weights",
            fix="remove one of the two",
        )
        return None
    if table.preset is not None:
        return _preset(name, table.preset, problems)
    if table.source is None:
        problems.add(
            path,
            "the model has no source",
            fix=f'add source = "…" ({short_forms()}) or a preset',
        )
        return None
    try:
        return _located(parse_source(table.source, table.revision, table.sha256))
    except SourceError as error:
        hub = hub_form(table.source) if "://" in table.source and table.sha256 is None else None
        problems.add((*path, error.key), error.what, fix=f'write source = "{hub}"' if hub else error.fix)
        return None


def _preset(name: str, preset_name: str, problems: Problems) -> str | None:
    from llmbuild.models.presets import preset

    path = ("models", name)
    given = problems.file.data["models"][name]
    for key in _OF_WEIGHTS:
        if key in given:
            problems.add((*path, key), f"a preset has no weights, so {key} means nothing", fix=f"remove {key}")
    try:
        preset(preset_name)
    except InputError as error:
        problems.add((*path, "preset"), error.what, why=error.why, fix=error.fix)
        return None
    return preset_name


def _adapter(name: str, table: ModelTable, problems: Problems) -> Source | None:
    path = ("models", name, "adapter")
    if table.adapter is None:
        return None
    fix = f"give {adapter_forms()}"
    try:
        source = _located(parse_source(table.adapter))
    except SourceError as error:
        problems.add(path, error.what, fix=error.fix if has_variable(table.adapter) else fix)
        return None
    if not source_kind(source.kind).adapter:
        problems.add(path, f"an adapter cannot come from '{shown_source(table.adapter)}'", fix=fix)
        return None
    return source


def _located(source: Source) -> Source:
    """The same source, whose path can be expanded.  Raises SourceError where it has a variable that is not set."""
    if not source_kind(source.kind).remote:
        try:
            expand(source.spec["path"])
        except PathTextError as error:
            raise SourceError(str(error), fix=error.fix) from None
    return source


def _template_path(text: str) -> str:
    """The path of a template's file.  Raises InputError where it has a variable that is not set."""
    try:
        return expand(text)
    except PathTextError as error:
        raise InputError(str(error), fix=error.fix) from None


def own_architecture(root: Path, model_type: str) -> str | None:
    """The name of the project's own file of a model type, None where it has none."""
    from llmbuild.models.own import file_of, module_of

    name = module_of(model_type)
    return name if name is not None and os.path.lexists(root / file_of(name)) else None


def _check_model_type(name: str, model_type: str, root: Path, architecture: str | None, problems: Problems) -> None:
    from llmbuild.manifest.architectures import is_own_file
    from llmbuild.models.own import file_of
    from llmbuild.models.registry import family, has_module

    if architecture is not None:
        path = ("models", name, "model-type")
        if has_module(architecture):
            problems.add(
                path,
                f"'{model_type}' is a model type of llmbuild, and {file_of(architecture)} has its name",
                fix="give the file and its model type another name",
            )
        elif not is_own_file(root, architecture):
            problems.add(
                path,
                f"{file_of(architecture)} is no file of the project",
                why="it is no plain file, or a link leads out of the project",
                fix="put the file itself there",
            )
        return
    try:
        family(model_type)
    except InputError as error:
        problems.add(("models", name, "model-type"), error.what, why=error.why, fix=error.fix)


def _conversation(name: str, table: ModelTable, root: Path, problems: Problems) -> Mapping[str, Json] | str | None:
    path = ("models", name, "conv-template")
    template = table.conv_template
    if problems.is_broken(path) or (template is None and problems.is_misspelt(path)):
        return None
    if template is None:
        if table.source is None:
            # Without a source the model is a preset, or its missing source has been reported.
            template = PRESET_TEMPLATE
        else:
            problems.add(
                ("models", name),
                "the model has no conv-template",
                why="the template depends on how the model was tuned",
                fix=f'add conv-template = "…" ("LM" for a base model); `llmbuild init {shown_source(table.source)}` proposes one',
            )
            return None
    if template in (CHECKPOINT, CHECKPOINT_ANYWAY):
        if table.source is not None:
            return template
        problems.add(
            path, "a preset has no chat template", fix=f'remove conv-template, or name one ("{PRESET_TEMPLATE}")'
        )
        return None
    written, file = template, is_template_file(template)
    try:
        template = _template_path(template) if file else template
        resolved = resolve_template(template, root)
    except InputError as error:
        if file and (root / template).is_file():
            problems.add_error(path, error)
        else:
            # The nearest names help more than the list of all of them.
            near = error.why is not None and error.why.startswith("did you mean")
            problems.add(path, error.what, why=None if near else error.why, fix=error.why if near else error.fix)
    except (MultiError, UsageError) as error:
        problems.add_error(path, error)
    else:
        if table.system_prompt is None or PLACEHOLDERS["system"] in str(resolved["system_template"]):
            return resolved
        problems.add(
            ("models", name, "system-prompt"),
            f"the conversation template '{written}' takes no system message",
            fix="remove system-prompt, or name another template",
        )
    return None
