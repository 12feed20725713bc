"""Every model type that transformers computes as plain Llama, Mistral or Qwen is one of ours, or it is said here why not."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from llmbuild.models.maths_keys import TRANSFORMERS
from llmbuild.models.registry import families

PLAIN = frozenset({"llama", "mistral", "qwen2", "qwen3"})
PARTS = ("Attention", "DecoderLayer", "MLP", "RMSNorm", "RotaryEmbedding")
NOT_OURS: Mapping[str, str] = {
    "dots1": "experts",
}
"""Model types whose parts have no forward of their own and that are not plain all the same."""


def models() -> Path:
    spec = find_spec("transformers")
    assert spec is not None
    assert spec.origin is not None
    return Path(spec.origin).parent / "models"


@cache
def modular(module: str) -> Mapping[str, tuple[tuple[str, ...], bool]]:
    """Of each class of a model's modular file, its bases as "module.Class", and whether it has a forward of its own."""
    path = models() / module / f"modular_{module}.py"
    if not path.exists():
        return {}
    tree = ast.parse(path.read_text(encoding="utf-8"))
    homes = {
        name.name: (node.module or "").partition(".")[0]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.level == 2
        for name in node.names
    }
    return {
        node.name: (
            tuple(f"{homes.get(base.id, module)}.{base.id}" for base in node.bases if isinstance(base, ast.Name)),
            any(isinstance(item, ast.FunctionDef) and item.name == "forward" for item in node.body),
        )
        for node in tree.body
        if isinstance(node, ast.ClassDef)
    }


def is_plain(module: str, name: str) -> bool:
    """Whether a class comes of one of a plain model, by way of classes without a forward."""
    if module in PLAIN:
        return True
    bases, own = modular(module).get(name, ((), True))
    if not bases or own:
        return False
    home, _, base = bases[0].partition(".")
    return (home, base) != (module, name) and is_plain(home, base)


def has_plain_parts(module: str, head: str) -> bool:
    """Whether a model's parts, or those of the model that its head comes of, come of plain ones."""
    if module in PLAIN:
        return True
    classes, stem = modular(module), head.removesuffix("ForCausalLM")
    own = [part for part in PARTS if f"{stem}{part}" in classes]
    bases, _ = classes.get(head, ((), True))
    if not bases or not all(is_plain(module, f"{stem}{part}") for part in own):
        return False
    home, _, base = bases[0].partition(".")
    return home != module and (len(own) == len(PARTS) or has_plain_parts(home, base))


def plain_types() -> set[str]:
    from transformers.models.auto.configuration_auto import model_type_to_module_name
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    heads = {f"{kind}ForCausalLM" for kind in ("Llama", "Mistral", "Qwen2", "Qwen3")}
    return {
        kind
        for kind, head in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.items()
        if head in heads or has_plain_parts(model_type_to_module_name(kind), head)
    }


@pytest.mark.skipif("not installed()", reason="the list is of another release of transformers")
def test_every_plain_model_type_is_one_of_ours() -> None:
    ours = {name for family in families().values() for name in family.classes}
    found = plain_types()
    assert found >= {"llama", "exaone", "internlm3", "iquestcoder", "ministral", "cwm", "qwen2", "qwen3"}
    assert found - ours == set(NOT_OURS)


def installed() -> bool:
    import transformers

    return str(transformers.__version__) == TRANSFORMERS
