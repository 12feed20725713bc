"""`llmbuild serve`: answer over HTTP as OpenAI's interface does."""

from __future__ import annotations

import argparse
import os
import time
from typing import TYPE_CHECKING

from llmbuild.cli.common import print_note, require_number, write_crash_log
from llmbuild.cli.edges import say
from llmbuild.cli.pick_built import add_selection, select_built
from llmbuild.errors import ExitCode, UsageError

if TYPE_CHECKING:
    from llmbuild.manifest.locate import BuiltModel
    from llmbuild.serving.served import Served

HELP = "serve built models over HTTP, as OpenAI's interface does"
EXAMPLE = "llmbuild serve smollm2 --port 8000"

KEY = "LLMBUILD_API_KEY"
"""The variable with the key that requests have to send."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_selection(parser)
    parser.add_argument(
        "--host", default="127.0.0.1", help="the address to listen at (default: 127.0.0.1, this machine)"
    )
    parser.add_argument("--port", type=int, default=8000, metavar="N", help="the port (default: 8000; 0: a free one)")
    parser.add_argument(
        "--cors",
        action="append",
        default=[],
        metavar="ORIGIN",
        help="let web pages of this origin ask (may be repeated)",
    )
    parser.add_argument("--context", type=int, metavar="N", help="bound a conversation and its answer to N tokens")
    parser.add_argument(
        "--max-tokens", type=int, metavar="N", help="longest answer (default: what the context has room for)"
    )
    parser.add_argument("--queue", type=int, default=32, metavar="N", help="how many requests may wait (default: 32)")


def run(args: argparse.Namespace) -> int:
    require_number(args, "--context", 1, example=4096)
    require_number(args, "--max-tokens", 1, example=256)
    require_number(args, "--queue", 0, example=32)
    key = os.environ.get(KEY)
    if key is not None and (not key.isascii() or not key.isprintable() or key.split() != [key]):
        raise UsageError(
            f"{KEY} is {'empty' if not key else 'no key'}",
            why="a key is printable ASCII without spaces",
            fix="set it, or unset it",
        )
    for origin in args.cors:
        _require_origin(origin)
    from llmbuild.serving.server import require_server

    require_server()
    candidates = by_name(select_built(args))
    from llmbuild.serving.app import Access, Service
    from llmbuild.serving.server import address_of, bind, is_local, serve
    from llmbuild.serving.worker import Worker

    bound = bind(args.host, args.port)
    models = {name: _load(name, built, args) for name, built in candidates.items()}
    access = Access(key, args.cors, is_local(bound))
    if key is None and not access.local:
        print_note(f"everyone who reaches {address_of(bound)} may ask: set {KEY} to a key that requests have to send")
    worker = Worker(args.queue)
    service = Service(models, worker, access, log=_log, crash=_crash)
    serve(service, worker, bound, lambda: say(f"serving {', '.join(models)} at {address_of(bound)}/v1; Ctrl-C stops"))
    say("stopped")
    return ExitCode.OK


def _require_origin(origin: str) -> None:
    """Raise UsageError for what no browser sends as an origin."""
    from urllib.parse import urlsplit

    parts = urlsplit(origin)
    if origin == "*" or (parts.scheme in ("http", "https") and parts.netloc and origin.endswith(parts.netloc)):
        return
    raise UsageError(f"'{origin}' is no origin", fix="write --cors https://example.org, without a path, or --cors '*'")


def by_name(candidates: list[BuiltModel]) -> dict[str, BuiltModel]:
    """The models by the names that requests use.  Raises UsageError where two have one name."""
    from llmbuild.runtime.libraries import ENDING

    found: dict[str, BuiltModel] = {}
    for built in candidates:
        name = built.weights.resolve().name.removesuffix(ENDING)
        if name in found:
            raise UsageError(
                f"two libraries of '{name}' run here",
                why=f"[{found[name].label}] and [{built.label}]",
                fix="name one with --platform",
            )
        found[name] = built
    return found


def _load(name: str, built: BuiltModel, args: argparse.Namespace) -> Served:
    from llmbuild.checkpoints.names import CHAT_CONFIG
    from llmbuild.runtime.model import Model
    from llmbuild.runtime.sampling import UNSET_NOTE, is_unset
    from llmbuild.serving.served import Served

    model = Model.open(built.weights, built.library, threads=args.threads, context=args.context)
    # A tokenizer that cannot be read is an error now, and not of each request.
    model.tokens("")
    if is_unset(model.config):
        print_note(f"{name}: {UNSET_NOTE}")
    return Served(name, model, int((built.weights / CHAT_CONFIG).stat().st_mtime), args.max_tokens)


def _log(line: str) -> None:
    say(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}")


def _crash(error: BaseException) -> None:
    log = write_crash_log(error)
    say(f"internal error: {type(error).__name__}" + (f", see {log}" if log else ""))
