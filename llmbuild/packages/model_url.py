"""Where the models of a package will be: a URL with {model} and {quantization} for their names."""

from __future__ import annotations

import string
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence

from llmbuild.canonical import Json
from llmbuild.packages.kind import Mistake, Use
from llmbuild.urls import shown

PLACEHOLDERS = ("model", "quantization")
"""What a URL's template may have; both are names of the manifest."""

EXAMPLE = "https://huggingface.co/ORGANIZATION/{model}-{quantization}-MLC"
"""A URL for error messages."""

_SUCH_AS = f"such as {EXAMPLE}"
_SUFFIX = "/resolve/main"
"""The applications append it to a URL, as the hub has files there."""


def url_of(options: Mapping[str, Json], model: str, scheme: str) -> str | None:
    """The URL of a model's files, its template filled in; None where the package has none."""
    template = options.get("url")
    return None if template is None else str(template).format(model=model, quantization=scheme).rstrip("/")


def wrong_url(options: Mapping[str, Json], uses: Sequence[Use]) -> Iterator[Mistake]:
    """What is wrong with `url`: its text, or that it is one for several models."""
    template = options.get("url")
    if template is None:
        return
    wrong = _error_of(str(template))
    if wrong is not None:
        what = f"'{shown(str(template))}' cannot be the URL of the models"
        yield Mistake(what, why=wrong[0], fix=wrong[1], key="url")
        return
    owners: dict[str | None, Use] = {}
    for use in uses:
        url = url_of(options, use.model, use.scheme)
        before = owners.setdefault(url, use)
        if (before.model, before.scheme) != (use.model, use.scheme):
            yield Mistake(
                f"'{before.model}, {before.scheme}' and '{use.model}, {use.scheme}' have the same URL",
                why=url,
                fix="put {model} and {quantization} into it",
                key="url",
            )
            return


def _error_of(template: str) -> tuple[str, str] | None:
    """What is wrong with a URL's template, and the cure."""
    try:
        fields = [name for _, name, _, _ in string.Formatter().parse(template) if name is not None]
        parts = urllib.parse.urlsplit(template)
    except ValueError as error:
        return str(error), _SUCH_AS
    for name in fields:
        if name not in PLACEHOLDERS:
            return f"{{{name}}} stands for nothing in it", "{model} and {quantization} do"
    if parts.scheme != "https" or not parts.hostname:
        return "applications are let download by https only", _SUCH_AS
    if "@" in parts.netloc or parts.query or parts.fragment:
        return "a URL in an application has no credentials, and the applications append to its path", _SUCH_AS
    if template.rstrip("/").endswith(_SUFFIX):
        return f"the applications append {_SUFFIX} themselves", f"leave {_SUFFIX} out"
    return None
