"""`llmbuild chat`: talk to a built model in the terminal."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from llmbuild.cli.build_here import select_or_build
from llmbuild.cli.common import print_note, require_number
from llmbuild.cli.pick_built import add_selection
from llmbuild.errors import ExitCode, InputError, UsageError
from llmbuild.printable import printable

if TYPE_CHECKING:
    from llmbuild.runtime.chat import Chat
    from llmbuild.runtime.sampling import Sampling

HELP = "talk to a built model"
EXAMPLE = 'llmbuild chat smollm2 --prompt "What is a compiler?" --temperature 0'

COMMANDS = """/reset  forget the conversation
/stats  tokens per second of the last answer
/exit   leave (also Ctrl-D)
/help   this list"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--build",
        action="store_true",
        help="build the model for this machine first where it is not built, also when the manifest has other platforms only",
    )
    parser.add_argument("--prompt", help="ask once and leave, instead of a conversation")
    parser.add_argument("--system", help="a system message in place of the template's")
    parser.add_argument("--temperature", type=float, help="0 takes the likeliest token (default: the model's)")
    parser.add_argument("--top-p", type=float, help="keep the likeliest tokens up to this probability")
    parser.add_argument("--presence-penalty", type=float)
    parser.add_argument("--frequency-penalty", type=float)
    parser.add_argument("--repetition-penalty", type=float)
    parser.add_argument("--seed", type=int, help="draw the same answer again")
    parser.add_argument("--max-tokens", type=int, default=1024, metavar="N", help="longest answer (default: 1024)")
    parser.add_argument("--context", type=int, metavar="N", help="bound the conversation to N tokens")


def run(args: argparse.Namespace) -> int:
    require_number(args, "--max-tokens", 1, example=256)
    require_number(args, "--context", 1, example=4096)
    candidates = select_or_build(args)
    if len(candidates) > 1:
        raise UsageError(
            "the manifest builds several libraries that run here",
            why=", ".join(f"[{each.label}]" for each in candidates),
            fix="name one with MODEL, --quantization and --platform",
        )
    from llmbuild.runtime.chat import Chat
    from llmbuild.runtime.chat_config import read_chat_config
    from llmbuild.runtime.model import Model
    from llmbuild.runtime.sampling import SAMPLING_NAMES, UNSET_NOTE, Sampling, is_unset

    chosen = candidates[0]
    config = read_chat_config(chosen.weights)
    given = {name: getattr(args, name) for name in SAMPLING_NAMES}
    sampling = Sampling.from_config(config, **given)
    if is_unset(config, **given):
        print_note(UNSET_NOTE)
    model = Model.open(chosen.weights, chosen.library, threads=args.threads, context=args.context)

    def start() -> Chat:
        return Chat(model, args.system)

    if args.prompt is not None:
        chat = start()
        _answer(chat, args.prompt, sampling, args)
        _statistics(chat)
        return ExitCode.OK
    if sys.stdin.isatty():
        rounded = "" if model.activations is None else f" (activations: {model.activations})"
        print(f"chatting with {chosen.label}{rounded}; /help lists the commands")
    return _converse(start, sampling, args)


def _converse(start: Callable[[], Chat], sampling: Sampling, args: argparse.Namespace) -> int:
    """Read lines until /exit or the end of the input."""
    chat = start()
    while True:
        try:
            line = _line()
        except EOFError:
            return ExitCode.OK
        if line in ("/exit", "/quit"):
            return ExitCode.OK
        if line == "/reset":
            chat = start()
        elif line == "/stats":
            _statistics(chat)
        elif line == "/help":
            print(COMMANDS)
        elif line:
            try:
                _answer(chat, line, sampling, args)
            except KeyboardInterrupt:
                # Ctrl-C ends the answer, not the chat; the unfinished turn is forgotten.
                print("\n(stopped)")
            except UsageError as error:
                print(f"error: {error}", file=sys.stderr)


def _line() -> str:
    """A line of standard input.  Raises EOFError, and InputError for what is not UTF-8."""
    try:
        line = input("> " if sys.stdin.isatty() else "")
        # Where the locale is C, Python keeps a byte that is not UTF-8 as half of a surrogate pair.
        line.encode()
    except UnicodeError as error:
        raise InputError(
            "standard input is not UTF-8",
            why="it has bytes that are no characters there",
            fix="give it text as UTF-8; `iconv -t UTF-8` converts other text",
        ) from error
    return line.strip()


def _answer(chat: Chat, text: str, sampling: Sampling, args: argparse.Namespace) -> None:
    for piece in chat.say(text, sampling, seed=args.seed, max_tokens=args.max_tokens):
        # A model may have learnt sequences that control a terminal.
        print(printable(piece), end="", flush=True)
    print()


def _statistics(chat: Chat) -> None:
    """Print speeds to standard error, so that a script reads nothing but the answer from standard output."""
    statistics = chat.statistics
    print(
        f"prefill {statistics.prefilled_tokens} tokens at {statistics.prefill_rate:.1f} tok/s, "
        f"decode {statistics.answer_tokens} tokens at {statistics.decode_rate:.1f} tok/s",
        file=sys.stderr,
    )
    if statistics.finish != "stop":
        limit = "--max-tokens" if statistics.finish == "length" else "the context window"
        print(f"the answer was cut at {limit}", file=sys.stderr)
