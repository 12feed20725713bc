"""An action: a task whose inputs are bound to digests.  Its canonical JSON's SHA-256 is its identity.

Everything the output depends on is in the key and nothing else is: the kind and its version, the parameters that the
kind declares, the digests of the direct inputs (or of the declared part of them), and the digests of the tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal, TypeAlias

from llmbuild.canonical import Digest, Json, digest_json


@dataclass(frozen=True, slots=True)
class TreeInput:
    """Files of a tree in the store; `tree` is the digest of a tree blob (already narrowed to what the task may read)."""

    tree: Digest
    form: Literal["tree"] = "tree"


@dataclass(frozen=True, slots=True)
class JsonInput:
    """A JSON value projected out of an upstream file; `blob` is the digest of its canonical bytes in the store."""

    blob: Digest
    form: Literal["json"] = "json"


Input: TypeAlias = TreeInput | JsonInput


@dataclass(frozen=True, slots=True)
class Action:
    """One unit of work.

    `params`, `inputs` and `tools` make the key.  `hints` do not: they locate bytes (a path, an endpoint) and may differ between
    machines without changing the result, because what is read is verified by digest.
    """

    kind: str
    version: int
    params: Mapping[str, Json]
    inputs: Mapping[str, Input]
    tools: Mapping[str, str]
    hints: Mapping[str, Json] = field(default_factory=dict)

    def key(self) -> Mapping[str, Json]:
        """The JSON value whose canonical bytes are hashed."""
        return {
            "kind": self.kind,
            "version": self.version,
            "params": self.params,
            "inputs": {
                name: {"form": value.form, "digest": value.tree if isinstance(value, TreeInput) else value.blob}
                for name, value in self.inputs.items()
            },
            "tools": self.tools,
        }

    @property
    def digest(self) -> Digest:
        return digest_json(self.key())
