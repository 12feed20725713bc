"""What a project's own architecture may import, and what is said of a file that is wrong."""

from __future__ import annotations

import re

import pytest

from llmbuild.engine.registry import load_kind
from llmbuild.errors import InputError
from llmbuild.models.family import Overrides
from llmbuild.models.own import PARTS, made_of, module_of, own_family, recognised
from llmbuild.workspace.tool_identities import Toolchain
from tests.helpers.variants import SHARED
from tests.workspace.test_imports import Bytes

LLAMA = "from llmbuild.models.families import llama\nfrom dataclasses import replace\n"
MINE = LLAMA + 'FAMILY = replace(llama.FAMILY, model_type="mine", architectures=("MineForCausalLM",), gguf=None)\n'


def test_a_file_is_made_of_families_and_of_what_families_import() -> None:
    parts = "".join(f"import llmbuild.models.{part}\n" for part in PARTS)
    names = "from llmbuild.models import rows, spec\nfrom llmbuild.models.families import glm4, llama as l\nimport math, re\n"
    assert made_of("mine", f"{parts}{names}FAMILY: object = 1\n") == {"glm4", "llama"}
    assert made_of("mine", "from llmbuild.models.families.qwen2 import ROWS\nFAMILY = 1") == {"qwen2"}
    # All of it is in the keys of the tasks that load such a file.
    chain = Toolchain(Bytes())
    for kind in ("inspect", "quantize", "config", "lower"):
        files = chain.tools_of(load_kind(kind))[1]
        assert {f"models/{part.replace('.', '/')}.py" for part in (*PARTS, "own")} <= files.keys()


@pytest.mark.parametrize(
    "line",
    [
        *("import numpy", "from numpy import array", "import llmbuild", "from llmbuild.models import registry"),
        *(
            "import llmbuild.engine.store",
            "from llmbuild.models.families import nothing",
            "from llmbuild import models",
        ),
        *("from . import other", "from .other import x", "from llmbuild.models import build"),
    ],
)
def test_other_imports_are_refused_by_line(line: str) -> None:
    with pytest.raises(InputError, match="imports ") as caught:
        made_of("mine", f"def f():\n    {line}\nFAMILY = 1\n")
    assert caught.value.where == "architectures/mine.py:2"


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("FAMILY = (\n", "architectures/mine.py:1", "is no Python"),
        ("FAMILY = '\0'\n", "architectures/mine.py", "is no Python"),
        ("FAMILY = " + "(" * 1000, "architectures/mine.py", "is no Python"),
        ("x = 1\n", "architectures/mine.py", "has no FAMILY"),
        ("def f():\n    FAMILY = 1\n", "architectures/mine.py", "has no FAMILY"),
        ("FAMILY = 1\n", "architectures/mine.py", "its FAMILY is no DecoderFamily"),
        ("x = 1\nFAMILY = x.y\n", "architectures/mine.py:2", "the architecture cannot be used"),
        (
            "def f():\n    raise SystemError\nFAMILY = f()\n",
            "architectures/mine.py:2",
            "the architecture cannot be used",
        ),
        ("import sys\nsys.exit(0)\nFAMILY = 1\n", "architectures/mine.py:2", "the architecture cannot be used"),
        (LLAMA + "FAMILY = llama.FAMILY\n", "architectures/mine.py", "its FAMILY has the model type 'llama'"),
    ],
)
def test_what_is_wrong_in_a_file_is_said_with_its_line(text: str, where: str, what: str) -> None:
    with pytest.raises(InputError, match=re.escape(what)) as caught:
        own_family("mine", text)
    assert caught.value.where is not None and caught.value.where.startswith(where)


def test_a_family_of_a_file_is_like_those_of_llmbuild() -> None:
    family = own_family("mine", MINE)
    assert (family.model_type, family is own_family("mine", MINE)) == ("mine", True)
    config = family.configure({**SHARED, "model_type": "llama"}, Overrides())
    assert config == family.restore(config.to_json(), Overrides())
    assert len(family.parameters(config)) > 10
    assert recognised([family], {"architectures": ["MineForCausalLM"]}) is family
    assert recognised([family], {"model_type": "llama"}) is family
    assert recognised([family], {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}) is None


def test_what_its_functions_raise_names_the_line() -> None:
    wrong = MINE + "def decoder(c):\n    return c.nothing\nFAMILY = replace(FAMILY, decoder=decoder)\n"
    family = own_family("mine", wrong)
    config = family.configure({**SHARED, "model_type": "llama"}, Overrides())
    for call in (family.decoder, family.parameters):
        with pytest.raises(InputError, match="the architecture cannot be used") as caught:
            call(config)
        assert caught.value.where == "architectures/mine.py:5" and "nothing" in (caught.value.why or "")


def test_a_word_that_no_part_knows_is_refused() -> None:
    wrong = MINE + (
        "def decoder(c):\n    spec = llama.FAMILY.decoder(c)\n"
        "    return replace(spec, final_norm=replace(spec.final_norm, kind='rmx'))\n"
        "FAMILY = replace(FAMILY, decoder=decoder)\n"
    )
    family = own_family("mine", wrong)
    config = family.configure({**SHARED, "model_type": "llama"}, Overrides())
    with pytest.raises(InputError) as caught:
        family.decoder(config)
    assert caught.value.why == "ValueError: kind of NormSpec is 'rmx' and not layer, rms"


def test_only_a_name_of_a_module_is_one_of_a_file() -> None:
    assert (module_of("my-model"), module_of("my_model2")) == ("my_model", "my_model2")
    assert [module_of(name) for name in ("../x", "a/b", "", "9a", "a.b", "a\0")] == [None] * 6
