"""Where an answer ends, by really talking to a model that always says the same; and tokens that it has no row for."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import llmbuild
from llmbuild.errors import UsageError, VerifyError
from llmbuild.runtime.library import load_library
from llmbuild.runtime.session import Session
from llmbuild.runtime.verify import verify
from llmbuild.runtime.weights import load_parameters
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import LONGER_MANIFEST, ProjectDir, make_project

SAYING = ["<0x0A>", "<0x48>", "<0x69>", "<|im_end|>", "<0x58>", "<0x59>", "<0x5A>", "<0x58>"]
"""What follows what: a line break, then "Hi", the end of the turn, and XYZ for ever."""


@pytest.fixture(scope="module")
def talking(built: ProjectDir, tmp_path_factory: pytest.TempPathFactory) -> ProjectDir:
    """The tiny model with weights that say `SAYING`; the store has its library already."""
    project = make_project(tmp_path_factory.mktemp("talking"), LONGER_MANIFEST, cached_checkpoint("llama"))
    _teach(project.root / "checkpoint")
    (project.root / "checkpoint/generation_config.json").write_text(json.dumps({"eos_token_id": 2}))
    shared = ProjectDir(project.root, built.store)
    assert "lower" not in shared.build()
    return shared


def _teach(checkpoint: Path) -> None:
    """Rewrite the weights: the layers add nothing, and the head maps each token's embedding to the next one."""
    import numpy as np
    from safetensors.numpy import load_file, save_file

    vocabulary = json.loads((checkpoint / "tokenizer.json").read_text())["model"]["vocab"]
    path = checkpoint / "model.safetensors"
    weights = load_file(path)
    embedding = np.random.default_rng(1).standard_normal(weights["model.embed_tokens.weight"].shape).astype("float32")
    head = np.zeros_like(embedding)
    for before, after in itertools.pairwise(SAYING):
        head[vocabulary[after]] += embedding[vocabulary[before]] * 0.2
    for name, value in weights.items():
        if name.endswith(("o_proj.weight", "down_proj.weight")):
            value[:] = 0
        elif "norm" in name:
            value[:] = 1
    weights |= {"model.embed_tokens.weight": embedding, "lm_head.weight": head}
    save_file(weights, path, metadata={"format": "pt"})


def test_a_stop_string_that_is_a_special_token_ends_the_answer(talking: ProjectDir) -> None:
    result = talking.run("chat", "--prompt", "hello", "--temperature", "0", "--max-tokens", "20")
    assert (result.code, result.out) == (0, "Hi\n"), result.text
    assert "note" not in result.err


def test_so_it_does_in_a_directory_that_lists_no_such_stop(talking: ProjectDir, tmp_path: Path) -> None:
    def forget(config: dict[str, Any]) -> None:
        assert config["conv_template"]["stop_token_ids"] == [2, 4]
        config["conv_template"]["stop_token_ids"] = [2]
        config["eos_token_id"] = None

    copy = altered(talking.root / "dist/tiny-q0f32-MLC", tmp_path / "tiny", "mlc-chat-config.json", forget)
    with llmbuild.load(copy, next(talking.root.glob("dist/libs/*.so"))) as model:
        assert model.generate("hello", temperature=0, max_tokens=20) == "Hi"


def test_what_nobody_says_about_sampling_is_said_once(talking: ProjectDir) -> None:
    result = talking.run("chat", "--prompt", "hello", "--seed", "1")
    assert result.out == "Hi\n"
    assert " ".join(result.err.split()).count("temperature 0.7 and top-p 0.95") == 1
    with llmbuild.load(talking.root / "dist/tiny-q0f32-MLC") as model:
        with pytest.warns(UserWarning, match=r"temperature 0.7 and top-p 0.95 are taken") as told:
            answers = [model.generate("hello", seed=seed) for seed in range(3)]
        assert len(told) == 1
        assert answers == [model.generate("hello", seed=seed, temperature=0.7, top_p=0.95) for seed in range(3)]


@pytest.mark.parametrize("token", [320, 99999, -1])
def test_a_token_without_a_row_is_refused(talking: ProjectDir, token: int) -> None:
    library = load_library(next(talking.root.glob("dist/libs/*.so")))
    session = Session(library, load_parameters(library, talking.root / "dist/tiny-q0f32-MLC"), capacity=64)
    assert session.rows == 320
    session.add()
    session.prefill([1, 319])
    for step in (lambda: session.prefill([1, token]), lambda: session.decode(token), lambda: session.extend([token])):
        with pytest.raises(UsageError, match=f"there is no token {token}: the model's embedding has 320 rows"):
            step()
    assert session.length() == 2


def altered(model_dir: Path, copy: Path, file: str, change: Callable[[dict[str, Any]], None]) -> Path:
    """A model directory of links, with one JSON file altered."""
    copy.mkdir()
    for path in model_dir.iterdir():
        (copy / path.name).symlink_to(path)
    content = json.loads((copy / file).read_text())
    change(content)
    (copy / file).unlink()
    (copy / file).write_text(json.dumps(content))
    return copy


@pytest.mark.parametrize(
    ("file", "change", "said"),
    [
        ("tokenizer.json", lambda content: content["model"]["vocab"].update(far=320), "has the number 320"),
        ("mlc-chat-config.json", lambda config: config.update(eos_token_id=[2, 999]), "no token 999"),
        (
            "mlc-chat-config.json",
            lambda config: config["conv_template"].update(system_prefix_token_ids=[128000]),
            "begins with the token 128000",
        ),
    ],
)
def test_verify_refuses_tokens_without_rows(
    talking: ProjectDir, tmp_path: Path, file: str, change: Callable[[dict[str, Any]], None], said: str
) -> None:
    model_dir = altered(talking.root / "dist/tiny-q0f32-MLC", tmp_path / "tiny", file, change)
    with pytest.raises(VerifyError, match=said) as caught:
        verify(next(talking.root.glob("dist/libs/*.so")), model_dir)
    assert caught.value.why is not None
    assert "320 rows" in caught.value.why


def test_chat_refuses_a_prompt_with_such_a_token(talking: ProjectDir, tmp_path: Path) -> None:
    def add(content: dict[str, Any]) -> None:
        # The library numbers it after the vocabulary, which is made longer than the embedding here.
        content["model"]["vocab"] |= {f"<{number}>": number for number in range(len(content["model"]["vocab"]), 320)}
        content["added_tokens"].append({**content["added_tokens"][0], "id": 320, "content": "<|extra|>"})

    model_dir = altered(talking.root / "dist/tiny-q0f32-MLC", tmp_path / "tiny", "tokenizer.json", add)
    with (
        llmbuild.load(model_dir, next(talking.root.glob("dist/libs/*.so"))) as model,
        pytest.raises(UsageError, match=r"is 320, and the vocabulary has 320 tokens"),
    ):
        model.generate("say <|extra|>", temperature=0)
