"""The process that renders a checkpoint's chat template; `llmbuild.conversation.jinja` starts it by the path of this file.

A template is a program of somebody else.  It runs in Jinja's immutable sandbox with the settings and helpers of transformers'
`apply_chat_template`, except `strftime_now`: without it a template takes its own fixed date, and a build does not depend on the
day.  The kernel ends the process when it has computed for too long.  Nothing of llmbuild is imported here.
"""

from __future__ import annotations

import contextlib
import json
import signal
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

MOST_MEMORY = 1 << 30
"""Bytes of address space beyond which an allocation fails."""


def main() -> None:
    """Read one task as JSON from standard input and answer each of its chats with a line of JSON."""
    task = json.load(sys.stdin)
    sys.path[:] = task["path"]
    environment = _environment()
    _limit(task["seconds"])
    left = task["most"]
    try:
        template = environment.from_string(task["template"])
    # What a foreign template can raise has no narrower class.
    except Exception as error:
        _say({"bad": _words(error)})
        return
    for chat in task["chats"]:
        pieces = []
        try:
            for piece in template.generate(tools=None, documents=None, **chat, **task["tokens"]):
                left -= len(piece)
                if left < 0:
                    _say({"over": True})
                    return
                pieces.append(piece)
        except Exception as error:
            _say({"refused": _words(error)})
        else:
            _say({"text": "".join(pieces)})


def _words(error: BaseException) -> str:
    line = getattr(error, "lineno", None)
    text = str(error) or type(error).__name__
    return (f"line {line}: {text}" if isinstance(line, int) else text)[:500]


def _say(answer: Mapping[str, Any]) -> None:
    print(json.dumps(answer), flush=True)


def _limit(seconds: float) -> None:
    """Nothing handles the timer's signal, so that the kernel ends the process, also in the middle of an operation."""
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    # Some systems have no limit of this kind.
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MOST_MEMORY, MOST_MEMORY))


def _environment() -> ImmutableSandboxedEnvironment:
    """Jinja as transformers sets it up for chat templates."""
    from jinja2 import nodes
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.parser import Parser
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Generation(Extension):
        """`{% generation %}` marks an answer's text for training; it renders as what is in it."""

        tags = {"generation"}  # noqa: RUF012

        def parse(self, parser: Parser) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_rendered"), [], [], body).set_lineno(line)

        def _rendered(self, caller: Any) -> Any:
            return caller()

    class Dict:
        """`dict` without the class's other attributes."""

        def __call__(self, *arguments: Any, **values: Any) -> dict[Any, Any]:
            return dict(*arguments, **values)

        def fromkeys(self, *arguments: Any) -> dict[Any, Any]:
            return dict.fromkeys(*arguments)

    class PlainNamespace(Namespace):
        """`namespace` whose attributes do not start with an underscore."""

        def __init__(*arguments: Any, **values: Any) -> None:
            self, rest = arguments[0], arguments[1:]
            attributes = dict(*rest, **values)
            for name in attributes:
                PlainNamespace._check(name)
            Namespace.__init__(self, attributes)

        def __setitem__(self, name: Any, value: Any) -> None:
            PlainNamespace._check(name)
            Namespace.__setitem__(self, name, value)

        @staticmethod
        def _check(name: Any) -> None:
            if isinstance(name, str) and name.startswith("_"):
                raise SecurityError(f"an attribute of a namespace must not start with an underscore: {name!r}")

    def raise_exception(message: Any) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols]
    )
    environment.filters["tojson"] = tojson
    environment.globals.update(raise_exception=raise_exception, dict=Dict(), namespace=PlainNamespace)
    return environment


if __name__ == "__main__":
    main()
