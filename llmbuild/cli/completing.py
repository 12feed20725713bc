"""What a shell's Tab key is answered with: commands, options, and the names of the manifest and of the targets.

The shell runs the command itself, with variables that name what is typed so far (argcomplete's protocol).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from llmbuild.errors import LlmbuildError

if TYPE_CHECKING:
    from llmbuild.manifest.project import Project


Commands: TypeAlias = Mapping[str, tuple[str, str]]
"""Each command's module and its line in the help."""


def complete(commands: Commands) -> int:
    """Answer the shell, and end the process as it requires."""
    import argcomplete

    line = os.environ.get("COMP_LINE", "")[: int(os.environ.get("COMP_POINT", "0"))]
    argcomplete.autocomplete(_parser(commands, _command(commands, line)), always_complete_options=False)
    return 0


def _command(commands: Commands, line: str) -> str:
    """The command of a line whose end is not typed yet; empty while it is being typed."""
    words = line.split(" ")
    complete_words = [word for word in words[1:-1] if word]
    return next((word for word in complete_words if word in commands), "")


def _parser(commands: Commands, command: str) -> argparse.ArgumentParser:
    """A parser of all commands, the arguments of one: of the others only the names are needed."""
    parser = argparse.ArgumentParser(prog="llmbuild")
    parser.add_argument("--version", action="store_true")
    subparsers = parser.add_subparsers(dest="of")
    for name, (module, summary) in commands.items():
        sub = subparsers.add_parser(name, help=summary)
        if name == command:
            import_module(module).add_arguments(sub)
            _add_completers(sub)
    return parser


def _add_completers(parser: argparse.ArgumentParser) -> None:
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                _add_completers(sub)
        elif action.dest in _NAMES and action.choices is None:
            action.completer = _completer(_NAMES[action.dest])  # type: ignore[attr-defined]


Names: TypeAlias = Callable[[argparse.Namespace], Iterable[str]]
"""The names that an argument takes, where the arguments before it are these."""


def _project(given: argparse.Namespace) -> Project:
    from llmbuild.manifest.load import load_project
    from llmbuild.workspace.place import find_manifest

    return load_project(find_manifest(given.file))


def _models(given: argparse.Namespace) -> Iterable[str]:
    return _project(given).models


def _schemes(given: argparse.Namespace) -> Iterable[str]:
    return dict.fromkeys(cell.scheme for cell in _project(given).matrix)


def _platforms(given: argparse.Namespace) -> Iterable[str]:
    return _project(given).platforms


def _packages(given: argparse.Namespace) -> Iterable[str]:
    return _project(given).packages


def _tasks(given: argparse.Namespace) -> Iterable[str]:
    from llmbuild.plan.graph import labels

    return sorted(labels(_project(given)))


def _targets(_given: argparse.Namespace) -> Iterable[str]:
    from llmbuild.targets.names import target_names

    return target_names(Path("targets"))


_NAMES: Mapping[str, Names] = {
    "model": _models,
    "upgrade": _models,
    "quantization": _schemes,
    "platform": _platforms,
    "tasks": _tasks,
    "task": _tasks,
    "packages": _packages,
    "names": _targets,
}
"""By the name that an argument's value is stored under: which names it takes."""


def _completer(names: Names) -> Callable[..., list[str]]:
    def completer(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        try:
            return [name for name in names(parsed_args) if name.startswith(prefix)]
        except (LlmbuildError, OSError):
            # A manifest that is wrong or not there has no names.
            return []

    return completer
