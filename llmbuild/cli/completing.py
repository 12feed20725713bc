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


def _models(project: Project) -> Iterable[str]:
    return project.models


def _schemes(project: Project) -> Iterable[str]:
    return dict.fromkeys(cell.scheme for cell in project.matrix)


def _platforms(project: Project) -> Iterable[str]:
    return project.platforms


def _packages(project: Project) -> Iterable[str]:
    return project.packages


def _tasks(project: Project) -> Iterable[str]:
    from llmbuild.plan.graph import labels

    return sorted(labels(project))


def _targets(_project: Project | None) -> Iterable[str]:
    from llmbuild.targets.names import target_names

    return target_names(Path("targets"))


_NAMES: dict[str, Callable[[Project], Iterable[str]]] = {
    "model": _models,
    "upgrade": _models,
    "quantization": _schemes,
    "platform": _platforms,
    "tasks": _tasks,
    "task": _tasks,
    "packages": _packages,
    "names": _targets,
}
"""By the name that an argument's value is stored under: which names of the manifest it takes."""


def _completer(names: Callable[[Project], Iterable[str]]) -> Callable[..., list[str]]:
    def completer(prefix: str, parsed_args: argparse.Namespace, **_: object) -> list[str]:
        from llmbuild.manifest.load import load_project
        from llmbuild.workspace.place import find_manifest

        try:
            if names is _targets:
                return list(_targets(None))
            return [name for name in names(load_project(find_manifest(parsed_args.file))) if name.startswith(prefix)]
        except (LlmbuildError, OSError):
            # A manifest that is wrong or not there has no names.
            return []

    return completer
