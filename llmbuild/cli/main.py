"""The `llmbuild` command: finds the subcommand, imports just its module, and turns errors into exit codes.

Importing this module must stay cheap: `llmbuild --help` answers before anything else of the project is loaded.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, NoReturn

if TYPE_CHECKING:
    import argparse
    from types import ModuleType

    from llmbuild.errors import LlmbuildError

COMMANDS: Mapping[str, tuple[str, str]] = {
    "init": ("llmbuild.cli.init", "write a starter manifest for a model"),
    "build": ("llmbuild.cli.build", "build what is not up to date"),
    "package": ("llmbuild.cli.package", "make packages: models and libraries as an application takes them"),
    "plan": ("llmbuild.cli.plan", "show what a build would run, and why"),
    "lock": ("llmbuild.cli.lock", "pin every source and the toolchain in llmbuild.lock"),
    "why": ("llmbuild.cli.why", "explain one task: what changed, with old and new values"),
    "report": (
        "llmbuild.cli.report",
        "tell what the last build did: causes, critical path, memory",
    ),
    "verify": ("llmbuild.cli.verify", "load built libraries with their weights and run them"),
    "chat": ("llmbuild.cli.chat", "talk to a built model"),
    "run": ("llmbuild.cli.chat", "another word for chat"),
    "serve": ("llmbuild.cli.serve", "serve built models over HTTP, as OpenAI's interface does"),
    "publish": ("llmbuild.cli.publish", "publish what is built at a hub or in an OCI registry"),
    "targets": ("llmbuild.cli.targets", "list the targets, and what this machine can do for each"),
    "trust": ("llmbuild.cli.trust", "let a project's own linkers, flags and architectures run"),
    "cache": ("llmbuild.cli.cache", "look after the cache: stats, gc, verify, export, import"),
    "clean": ("llmbuild.cli.clean", "remove what llmbuild put into the project"),
    "doctor": ("llmbuild.cli.doctor", "check this machine and the project, and say what to do"),
    "completion": ("llmbuild.cli.completion", "print what makes a shell complete llmbuild's commands"),
    "schema": ("llmbuild.cli.schema", "print the JSON schema of the manifest"),
    "exec": ("llmbuild.cli.exec_", "run one action by its digest, to reproduce a failure"),
}
"""Each command's module, which has HELP, EXAMPLE, add_arguments(parser) and run(args), and its line in the help."""

_GARBAGE_CHECK = 100_000
"""How many objects are created between two collections of cyclic garbage."""

USAGE = "llmbuild [--help] [--version] COMMAND ..."


def run() -> NoReturn:
    """The command as a process of its own."""
    from llmbuild.cli import edges

    edges.end_at_sigterm()
    edges.leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code (docs/exit-codes.md); never raises."""
    arguments = list(sys.argv[1:] if argv is None else argv)
    from llmbuild.cli import edges

    edges.open_streams()
    try:
        edges.require_text(arguments)
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except (KeyboardInterrupt, edges.Terminated):
        edges.say("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has closed the pipe (`llmbuild plan | head`).
        edges.give_up(sys.stdout)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 2
    except Exception as error:
        try:
            return _report(error)
        except (MemoryError, OSError, ImportError) as further:
            # The modules that render an error cannot be loaded either.
            edges.say(f"error: the system gives llmbuild no more memory or files: {error}; {further}")
            return 6


def _dispatch(arguments: list[str]) -> int:
    if "_ARGCOMPLETE" in os.environ:
        from llmbuild.cli.completing import complete

        return complete(COMMANDS)
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if len(arguments) > 1 and arguments[0] == "help":
            return _dispatch([arguments[1], "--help"])
        print(_help())
        return 0 if arguments else 2
    if arguments[0] in ("-V", "--version"):
        from llmbuild.version import __version__

        print(f"llmbuild {__version__}")
        return 0
    name = arguments[0]
    if name not in COMMANDS:
        raise _unknown(name, arguments[1:])
    import gc
    from importlib import import_module

    from llmbuild.host import require_host

    require_host()

    # A command makes up to a million small objects that stay, and hardly a cycle: looking for garbage among them at
    # Python's usual rate is a tenth of a build that has nothing to do.
    gc.set_threshold(_GARBAGE_CHECK, 20, 50)
    module = import_module(COMMANDS[name][0])
    code = module.run(_parser(name, module).parse_args(arguments[1:]))
    return int(code)


def _unknown(name: str, rest: Sequence[str]) -> LlmbuildError:
    """The error of a first word that is no command."""
    from llmbuild.cli.words import instead_of_command
    from llmbuild.errors import UsageError, did_you_mean

    if not name.startswith("-"):
        return UsageError(f"there is no command '{name}'", fix=instead_of_command(name, COMMANDS))
    command = next((word for word in rest if word in COMMANDS), None)
    if command is not None:
        return UsageError(
            f"'{name}' is no option of llmbuild itself", fix=f"put it after the command: llmbuild {command} {name} …"
        )
    near = did_you_mean(name, ("--help", "--version"))
    return UsageError(f"there is no option '{name}'", fix=near or "`llmbuild --help` lists the commands")


def _help() -> str:
    width = max(map(len, COMMANDS))
    lines = [
        f"usage: {USAGE}",
        "",
        "One manifest, every model, quantization and platform: build LLM libraries,",
        "exactly and once.",
        "",
        "commands:",
        *(f"  {name:<{width}}  {summary}" for name, (_, summary) in COMMANDS.items()),
        "",
        "example:",
        "  llmbuild init hf:Qwen/Qwen3-0.6B && llmbuild build && llmbuild chat",
        "",
        "`llmbuild COMMAND --help` has each command's options and an example.",
    ]
    return "\n".join(lines)


def _parser(name: str, module: ModuleType) -> argparse.ArgumentParser:
    """The parser of one command."""
    import argparse
    from typing import Any

    class Parser(argparse.ArgumentParser):
        """Takes options between names too, and reports a wrong command line as llmbuild reports every other error."""

        _asked = False

        def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
            # argparse takes all names at the first one; parse_intermixed_args does not, but fails with subcommands or --.
            if self._asked or self._subparsers is not None or "--" in args:
                return super().parse_known_args(args, namespace)
            self._asked = True
            try:
                return self.parse_known_intermixed_args(args, namespace)
            finally:
                self._asked = False

        def error(self, message: str) -> NoReturn:
            from llmbuild.cli.words import instead_of_option
            from llmbuild.errors import UsageError

            fix = instead_of_option(message, self._option_string_actions)
            if fix is None and message.startswith("the following arguments are required"):
                fix = f"such as `{module.EXAMPLE}`; `{self.prog} --help` explains them"
            raise UsageError(message, fix=fix or f"`{self.prog} --help` lists the options")

    class Formatter(argparse.RawDescriptionHelpFormatter):
        """Breaks no name or option at its hyphens."""

        def _split_lines(self, text: str, width: int) -> list[str]:
            from llmbuild.report.wrapping import wrap

            return wrap(" ".join(text.split()), width)

    parser = Parser(
        prog=f"llmbuild {name}",
        description=f"{module.HELP[0].upper()}{module.HELP[1:]}.",
        epilog=f"example:\n  {module.EXAMPLE}",
        formatter_class=Formatter,
    )
    module.add_arguments(parser)
    return parser


def _report(error: Exception) -> int:
    """Print an error and return its exit code.  What is not an LlmbuildError is a bug: its traceback goes to a log."""
    from llmbuild.cli import edges
    from llmbuild.errors import ExitCode, LlmbuildError
    from llmbuild.report.errors import render_error, render_internal_error

    try:
        sys.stdout.flush()
    except OSError:
        edges.give_up(sys.stdout)
    known = edges.expected(error)
    if known is not None:
        edges.say(render_error(known))
        _annotate(known)
        return int(known.exit_code)
    from llmbuild.cli.common import write_crash_log

    if os.environ.get("LLMBUILD_DEBUG") == "1":
        import traceback

        edges.say("".join(traceback.format_exception(error)))
    text = render_internal_error(error, write_crash_log(error))
    edges.say(text)
    _annotate(LlmbuildError(text))
    return int(ExitCode.INTERNAL)


def _annotate(error: LlmbuildError) -> None:
    """Print an annotation that shows the error beside its file in a GitHub Actions workflow."""
    from llmbuild.cli import edges
    from llmbuild.workflow import in_workflow

    if in_workflow():
        from llmbuild.report.github import error_commands

        edges.say("\n".join(error_commands(error)))


if __name__ == "__main__":
    sys.exit(main())
