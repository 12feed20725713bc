"""The chat page of a package for browsers: its own files, and WebLLM's module as npm has it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from llmbuild.errors import InputError
from llmbuild.packages.kind import InputFile, Out
from llmbuild.printable import either

WEB_LLM = "npm:@mlc-ai/web-llm==0.2.86"
"""The version that the page is written against and tested with."""

MODULE = "index.js"
"""The file of WebLLM's package that the page loads."""
_USED = re.compile(r"\bwebllm\.(\w+)")
_EXPORTS = re.compile(r"\bexport\s*(?:\{([^{}]*)\}|(?:async\s+)?(?:function\s*\*?|class|const|let|var)\s+([\w$]+))")

_FILES = Path(__file__).parent / "page"
_NAMES = ("index.html", "page.css", "page.js")
_OWN_SERVER = "connect-src 'self'"


def write_page(out: Out, web_llm: Mapping[str, InputFile], *, elsewhere: bool) -> None:
    """Write the page; `elsewhere`: the models' files are on another server.  Raises InputError where the module is not what the
    page loads."""
    _require_exports(web_llm.get(MODULE))
    for name in _NAMES:
        text = (_FILES / name).read_text(encoding="utf-8")
        # The policy names what the page may ask for.  A hub sends files from further hosts, which it alone knows.
        out.write(name, text.replace(_OWN_SERVER, f"{_OWN_SERVER} https:") if elsewhere else text)
    for name, file in sorted(web_llm.items()):
        out.pass_on(file, f"web-llm/{name}")


def _require_exports(module: InputFile | None) -> None:
    """Raise InputError where the module lacks what the page's script takes of it."""
    used = dict.fromkeys(_USED.findall((_FILES / "page.js").read_text(encoding="utf-8")))
    exported = set() if module is None else _exports(module.path.read_text(encoding="utf-8", errors="replace"))
    missing = [name for name in used if name not in exported]
    if missing:
        raise InputError(
            "the chat page cannot work with this package in the place of WebLLM",
            where="web-llm",
            why=f"it has no module '{MODULE}'" if module is None else f"its module exports no {either(missing)}",
            fix=f'write web-llm = "{WEB_LLM}", or remove the key',
        )


def _exports(text: str) -> set[str]:
    """The names that an ECMAScript module exports, as far as it names them itself."""
    found: set[str] = set()
    for listed, declared in _EXPORTS.findall(text):
        found |= {declared} if declared else {entry.split()[-1] for entry in listed.split(",") if entry.strip()}
    return found
