"""The chat page of a package for browsers: its own files, and WebLLM's module as npm has it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from llmbuild.packages.kind import InputFile, Out

WEB_LLM = "npm:@mlc-ai/web-llm==0.2.86"
"""The version that the page is written against and tested with."""

_FILES = Path(__file__).parent / "page"
_NAMES = ("index.html", "page.css", "page.js")
_OWN_SERVER = "connect-src 'self'"


def write_page(out: Out, web_llm: Mapping[str, InputFile], *, elsewhere: bool) -> None:
    """Write the page; `elsewhere`: the models' files are on another server."""
    for name in _NAMES:
        text = (_FILES / name).read_text(encoding="utf-8")
        # The policy names what the page may ask for.  A hub sends files from further hosts, which it alone knows.
        out.write(name, text.replace(_OWN_SERVER, f"{_OWN_SERVER} https:") if elsewhere else text)
    for name, file in sorted(web_llm.items()):
        out.pass_on(file, f"web-llm/{name}")
