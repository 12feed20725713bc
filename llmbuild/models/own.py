"""An architecture of a project's own: `architectures/NAME.py` beside the manifest, in the form of the files in `families/`.

It is code of whoever wrote the project.  Who loads it here has been told that it may run; its text is checked before, so that
what it computes follows from the text and from llmbuild alone.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields, is_dataclass
from functools import cache
from traceback import extract_tb
from types import ModuleType
from typing import Literal, TypeVar, get_args, get_origin, get_type_hints

from llmbuild.canonical import Json
from llmbuild.errors import InputError, LlmbuildError, Where
from llmbuild.models.architecture import DecoderFamily
from llmbuild.models.family import ModelConfig, Overrides
from llmbuild.models.parameter import Parameter
from llmbuild.models.registry import has_module
from llmbuild.models.values import no_note

T = TypeVar("T")

DIRECTORY = "architectures"
"""Where such files lie, beside the manifest."""

PACKAGE = "llmbuild.models"
FAMILIES = f"{PACKAGE}.families"
PARTS = (
    "architecture",
    "building",
    "config_classes",
    "family",
    "frequencies",
    "gguf.architecture",
    "layer_types",
    "rows",
    "spec",
    "values",
    "windows",
)
"""The modules of llmbuild.models that a file may import, and any family: they are in the keys of all tasks that load it."""

_MODULE = re.compile(r"[A-Za-z][A-Za-z0-9_]*")
_FORM = "docs/how-to-add.md has an example"


def module_of(model_type: str) -> str | None:
    """The name of the module of a model type; None where a model type has none."""
    name = model_type.replace("-", "_")
    return name if _MODULE.fullmatch(name) else None


def file_of(name: str) -> str:
    """The path of a file, from the manifest's directory."""
    return f"{DIRECTORY}/{name}.py"


def made_of(name: str, text: str) -> frozenset[str]:
    """The families of llmbuild that a file imports.  Raises InputError for a text that is no Python, imports something else than
    the standard library and what is for families, or has no FAMILY."""
    try:
        tree = ast.parse(text, file_of(name))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        line = error.lineno if isinstance(error, SyntaxError) else None
        raise InputError(
            "is no Python",
            where=Where(file_of(name), line),
            why=error.msg if isinstance(error, SyntaxError) else str(error),
            fix="correct the line",
        ) from error
    found: set[str] = set()
    for line, module in _imports(tree):
        parent, _, last = module.rpartition(".")
        if parent == FAMILIES and has_module(last):
            found.add(last)
        elif not (module.partition(".")[0] in sys.stdlib_module_names or module in _ALLOWED):
            raise InputError(
                f"imports {module}",
                where=Where(file_of(name), line),
                why=f"an architecture is made of the standard library and of what {PACKAGE} has for families",
                fix=f"import only {', '.join(PARTS)} or a family of {PACKAGE}",
            )
    if not any(isinstance(node, ast.Assign | ast.AnnAssign) and "FAMILY" in _targets(node) for node in tree.body):
        raise InputError("has no FAMILY", where=file_of(name), fix=f"end it with FAMILY = DecoderFamily(…): {_FORM}")
    return frozenset(found)


_ALLOWED = frozenset(f"{PACKAGE}.{part}" for part in PARTS)


def _imports(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """Each imported module with its line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            if module in (PACKAGE, FAMILIES, f"{PACKAGE}.gguf"):
                yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def _targets(node: ast.Assign | ast.AnnAssign) -> list[str]:
    targets = node.targets if isinstance(node, ast.Assign) else [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@cache
def own_family(name: str, text: str) -> DecoderFamily:
    """The family of a file, which is run.  Raises InputError that names the file and the line."""
    made_of(name, text)
    module = ModuleType(f"{DIRECTORY}.{name}")
    # Dataclasses look their module up.
    sys.modules[module.__name__] = module
    with _running(name):
        exec(compile(text, file_of(name), "exec", dont_inherit=True), module.__dict__)
    found = module.__dict__.get("FAMILY")
    if not isinstance(found, DecoderFamily):
        raise InputError(
            "its FAMILY is no DecoderFamily", where=file_of(name), why=f"it is a {type(found).__name__}", fix=_FORM
        )
    if found.model_type.replace("-", "_") != name:
        raise InputError(
            f"its FAMILY has the model type '{found.model_type}'",
            where=file_of(name),
            why="a file has the name of its model type, with _ for -",
            fix=f"name the file {found.model_type.replace('-', '_')}.py, or the model type {name}",
        )
    known = {field.name: getattr(found, field.name) for field in fields(found)}
    return _Own(**{**known, "decoder": _guarded(name, found.decoder)})


class _Own(DecoderFamily):
    """A family whose functions are a project's: what they raise names the file and the line."""

    __slots__ = ()

    def configure(
        self,
        source: Mapping[str, Json],
        overrides: Overrides,
        *,
        ignore: Sequence[str] = (),
        note: Callable[[str], None] = no_note,
    ) -> ModelConfig:
        with _running(self._file):
            return super().configure(source, overrides, ignore=ignore, note=note)

    def restore(self, model_config: Mapping[str, Json], overrides: Overrides) -> ModelConfig:
        with _running(self._file):
            return super().restore(model_config, overrides)

    def parameters(self, config: ModelConfig) -> tuple[Parameter, ...]:
        with _running(self._file):
            return super().parameters(config)

    @property
    def _file(self) -> str:
        return self.model_type.replace("-", "_")


def _guarded(name: str, call: Callable[[ModelConfig], T]) -> Callable[[ModelConfig], T]:
    def guarded(config: ModelConfig) -> T:
        with _running(name):
            spec = call(config)
            _check_words(spec)
            return spec

    return guarded


def _check_words(spec: object) -> None:
    """Raise ValueError for a word in a description that is none of its field's, which would be taken for another one."""
    if isinstance(spec, tuple):
        for item in dict.fromkeys(spec):
            _check_words(item)
    if not is_dataclass(spec) or isinstance(spec, type):
        return
    # Json, the type of one field, names itself and Sequence.
    types = get_type_hints(type(spec), localns={"Json": Json, "Sequence": Sequence, "Mapping": Mapping})
    for field in fields(spec):
        value, type_ = getattr(spec, field.name), types[field.name]
        words = {word for one in (type_, *get_args(type_)) if get_origin(one) is Literal for word in get_args(one)}
        for word in value if isinstance(value, tuple) else (value,):
            if words and word is not None and word not in words:
                raise ValueError(
                    f"{field.name} of {type(spec).__name__} is {word!r} and not {', '.join(sorted(words))}"
                )
        _check_words(value)


@contextmanager
def _running(name: str) -> Iterator[None]:
    """Turn what a project's code raises, an end of the process too, into an InputError at the line."""
    try:
        yield
    except LlmbuildError:
        raise
    except (Exception, SystemExit) as error:
        lines = [frame.lineno for frame in extract_tb(error.__traceback__) if frame.filename == file_of(name)]
        said = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
        raise InputError(
            "the architecture cannot be used",
            where=Where(file_of(name), lines[-1] if lines else None),
            why=said,
            fix=f"correct the file: {_FORM}",
        ) from error


def recognised(families: Sequence[DecoderFamily], config: Mapping[str, Json]) -> DecoderFamily | None:
    """The first of these families that a config.json names, by `architectures` or, where it has none, by `model_type`."""
    names, model_type = config.get("architectures"), config.get("model_type")
    for family in families:
        if isinstance(names, list) and names:
            if any(name in family.architectures for name in names):
                return family
        elif model_type in family.classes:
            return family
    return None
