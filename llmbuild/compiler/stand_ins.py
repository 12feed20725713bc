"""Stand-ins for functions: what Relax needs to know of a PrimFunc is its parameters and attributes, and its body waits elsewhere.

A stand-in has the parameters and attributes of the function, does nothing, and names the text of the function by its digest.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx

from llmbuild.canonical import Digest, parse_digest

ATTRIBUTE = "llmbuild.function"


def stand_in(function: Any, digest: Digest) -> Any:
    """The stand-in of a function with this text."""
    return function.with_body(tirx.Evaluate(0)).with_attr(ATTRIBUTE, digest)


def digest_of(function: Any) -> Digest | None:
    """The digest of the text of the function that a stand-in is for; None of any other function."""
    attributes = function.attrs
    return parse_digest(str(attributes[ATTRIBUTE])) if attributes is not None and ATTRIBUTE in attributes else None


def real(stand_in: Any, function: Any) -> Any:
    """The function with the attributes that its stand-in has by now."""
    attributes = {name: stand_in.attrs[name] for name in stand_in.attrs.keys() if name != ATTRIBUTE}  # noqa: SIM118 - no map.
    for name in set(function.attrs.keys() if function.attrs is not None else ()) - attributes.keys():
        function = function.without_attr(name)
    return function.with_attrs(attributes) if attributes else function
