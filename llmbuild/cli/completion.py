"""`llmbuild completion`: print what makes a shell complete llmbuild's commands, options and names."""

from __future__ import annotations

import argparse

from llmbuild.errors import ExitCode

HELP = "print what makes a shell complete llmbuild's commands"
EXAMPLE = 'eval "$(llmbuild completion bash)"    # in ~/.bashrc'
SHELLS = ("bash", "zsh", "fish")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("shell", choices=SHELLS, help="the shell; fish: `llmbuild completion fish | source`")


def run(args: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    print(shellcode(["llmbuild"], shell=args.shell), end="")
    return ExitCode.OK
