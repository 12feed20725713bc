"""`llmbuild.load`: a built model as a person in a notebook uses it."""

from __future__ import annotations

import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import llmbuild
from llmbuild.errors import InputError, LlmbuildError, UsageError, VerifyError
from llmbuild.runtime.completer import BLOCK, never
from llmbuild.runtime.model import Model
from llmbuild.runtime.sampling import Sampling
from llmbuild.runtime.session import Session
from tests.helpers.checkpoints import VOCAB, reference_model
from tests.helpers.cli import ProjectDir
from tests.helpers.logits import TOLERANCE, reference_logits
from tests.helpers.stored import load_stored_into

TEXT = "the hat in the tin"
LIKELIEST: dict[str, Any] = {"temperature": 0, "max_tokens": 24}


def ids_of(length: int, step: int = 7) -> list[int]:
    return [(step * number * number + 3 * number) % 250 + 5 for number in range(length)]


def test_importing_it_is_cheap() -> None:
    code = (
        "import sys, llmbuild; print(sorted({'numpy', 'tvm', 'pydantic', 'tokenizers', 'tomllib'} & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout == "[]\n"


def test_logits_are_those_of_transformers(model: Model, built: ProjectDir) -> None:
    ids = ids_of(BLOCK + 40)
    found = model.logits(ids)
    reference = reference_model(built.root / "checkpoint")
    load_stored_into(reference, model.directory, json.loads((built.root / "checkpoint/config.json").read_text()))
    wanted = reference_logits(reference, ids)
    assert found.dtype == np.float32
    assert found.shape == (len(ids), model.vocab_size) == (len(ids), VOCAB)
    assert np.linalg.norm(found - wanted, axis=1).max() / np.linalg.norm(wanted, axis=1).min() < TOLERANCE
    assert (found.argmax(axis=1) == wanted.argmax(axis=1)).all()
    assert (model.logits(np.array(ids)) == found).all()


def test_the_likeliest_continuation_is_that_of_the_logits(model: Model) -> None:
    ids = model.tokens(TEXT)
    answer = model.generate(ids, **LIKELIEST)
    active = model.config["active_vocab_size"]
    for _ in range(LIKELIEST["max_tokens"]):
        ids.append(int(model.logits(ids)[-1, :active].argmax()))
    written = model.text(ids)
    assert model.statistics.finish == "length"
    # Whole characters are the same; bytes that are none may be shown one by one or together.
    assert written.replace("\ufffd", "").endswith(answer.replace("\ufffd", ""))


def test_an_answer_does_not_depend_on_what_was_asked_before(model: Model, model_dir: Path) -> None:
    long = ids_of(3 * BLOCK - 10)
    first = model.generate(long, **LIKELIEST)
    assert model.statistics.prefilled_tokens == len(long)
    again = model.generate(long, **LIKELIEST)
    # What was prefilled in whole blocks is used again.
    assert model.statistics.prefilled_tokens == len(long) - 2 * BLOCK
    model.generate(ids_of(200, step=11), **LIKELIEST)
    model.logits(long[:50])
    with llmbuild.load(model_dir) as other:
        assert first == again == model.generate(long, **LIKELIEST) == other.generate(long, **LIKELIEST)


def test_logits_of_a_prompt_are_the_same_to_the_last_bit(model: Model) -> None:
    completer, long = model._completer, ids_of(2 * BLOCK + 9)
    wanted = completer._feed(long, exact=True, cancelled=never)
    for before in (long[: BLOCK + 3], [*long, 9, 9], ids_of(30, step=11), long):
        for exact in (True, False):
            completer._feed(before, exact=exact, cancelled=never)
            completer._decode(5, completer._turn)
            assert (completer._feed(long, exact=True, cancelled=never) == wanted).all()


def test_a_cancelled_answer_ends_at_the_next_step(model: Model) -> None:
    long = ids_of(2 * BLOCK + 9)

    def ask(steps: int) -> str:
        left = iter([False] * steps + [True])
        pieces = model.complete(long, Sampling(temperature=0), seed=0, exact=True, cancelled=lambda: next(left))
        return "".join(pieces)

    whole = model.generate(long, **LIKELIEST)
    model.generate(ids_of(30, step=11), **LIKELIEST)
    assert ask(2) == ""
    found = model.statistics
    assert (found.finish, found.prefilled_tokens, found.answer_tokens) == ("cancelled", 2 * BLOCK, 0)
    # The blocks that were fed are used again.
    assert ask(1 + 4) in whole
    found = model.statistics
    assert (found.finish, found.prefilled_tokens, found.answer_tokens) == ("cancelled", 9, 5)
    assert model.generate(long, **LIKELIEST) == whole


def test_seeds(model: Model, model_dir: Path) -> None:
    def drawn(one: Model, **options: Any) -> str:
        return one.generate(TEXT, temperature=1.0, max_tokens=12, **options)

    answers = [drawn(model) for _ in range(3)]
    assert len(set(answers)) == 3
    with llmbuild.load(model_dir, seed=1) as same, llmbuild.load(model_dir, seed=2) as other:
        assert [drawn(same) for _ in range(3)] == answers
        assert [drawn(other) for _ in range(3)] != answers
        assert drawn(other, seed=7) == drawn(other, seed=7) == drawn(model, seed=7) != drawn(model, seed=8)


def test_options_that_are_left_out_are_the_configurations(model: Model) -> None:
    asked: dict[str, Any] = {"seed": 3, "max_tokens": 30}
    named = {name: model.config[name] for name in ("temperature", "top_p", "repetition_penalty")}
    assert named["temperature"] == 0.7
    assert model.generate(TEXT, **asked) == model.generate(TEXT, **asked, **named)
    assert model.generate(TEXT, **asked) != model.generate(TEXT, **asked, temperature=2.0)


def test_pieces_join_to_the_answer(model: Model) -> None:
    for seed in range(8):
        options: dict[str, Any] = {"seed": seed, "temperature": 2.0, "max_tokens": 60}
        pieces = list(model.stream(TEXT, **options))
        assert "".join(pieces) == model.generate(TEXT, **options)
        assert all(pieces)


def test_chat_takes_the_messages_of_openai(model: Model) -> None:
    user = {"role": "user", "content": TEXT}
    answer = model.chat([user], **LIKELIEST)
    assert answer == model.generate(TEXT, **LIKELIEST)
    assert answer == "".join(model.stream([user], **LIKELIEST))
    parts = [{"type": "text", "text": TEXT[:5]}, {"type": "text", "text": TEXT[5:]}]
    assert answer == model.chat([{"role": "user", "content": parts, "name": "ada"}], **LIKELIEST)
    template = model.config["conv_template"]
    whole = [{"role": "system", "content": "Be"}, user, {"role": "assistant", "content": "a"}, user]
    prompt = template["system_template"].replace("{system_message}", "Be") + template["seps"][0].join(
        ["", f"<|im_start|>user\n{TEXT}", "<|im_start|>assistant\na", f"<|im_start|>user\n{TEXT}", ""]
    ).removeprefix(template["seps"][0])
    assert model.chat(whole, **LIKELIEST) == model.generate(
        model.tokens(prompt + "<|im_start|>assistant\n"), **LIKELIEST
    )


@pytest.mark.parametrize(
    ("messages", "what"),
    [
        ([], "nothing to answer"),
        ([{"role": "system", "content": "Be"}], "nothing to answer"),
        ([{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}], "nothing to answer"),
        ([{"role": "user", "content": "a"}, {"role": "system", "content": "b"}], "message 1 is a system message"),
        ([{"role": "user"}], "message 0 has no text"),
        ([{"content": "a"}], "message 0 has no role"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "message 0 has no text"),
        ([{"role": "user", "content": "a"}, "b"], "message 1 is str"),
        ([{"role": "alien", "content": "a"}], "no role 'alien'"),
    ],
)
def test_what_is_no_conversation(model: Model, messages: list[Any], what: str) -> None:
    with pytest.raises(LlmbuildError, match=what):
        model.chat(messages)


def test_stop_texts_end_the_answer(model: Model) -> None:
    answer = model.generate(TEXT, **LIKELIEST)
    stop = answer[5:7]
    assert model.generate(TEXT, stop=stop, **LIKELIEST) == answer[: answer.index(stop)]
    assert model.statistics.finish == "stop"
    assert model.generate(TEXT, stop=["no such text", stop], **LIKELIEST) == answer[: answer.index(stop)]


def test_a_special_token_can_be_a_stop_text(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = iter([10, model.tokens("<s>")[0], 11, 12])
    monkeypatch.setattr("llmbuild.runtime.model.Sampler.next", lambda self, logits: next(tokens))
    assert model.generate(TEXT, stop="<s>") == model.text([10])


def test_an_answer_ends_with_the_context(model: Model) -> None:
    ids = ids_of(model.context - 5)
    model.generate(ids, seed=1, max_tokens=100)
    assert (model.statistics.finish, model.statistics.answer_tokens) == ("context", 5)
    assert model.logits(ids_of(model.context)).shape[0] == model.context
    with pytest.raises(UsageError, match="400 tokens, the context window 400") as error:
        model.stream(ids_of(model.context))
    assert error.value.fix is not None
    with pytest.raises(UsageError, match="401 tokens"):
        model.logits(ids_of(model.context + 1))


def test_a_smaller_context(model_dir: Path) -> None:
    with llmbuild.load(model_dir, context=20) as small, pytest.raises(UsageError, match="the context window 20"):
        small.generate(TEXT)
    with pytest.raises(UsageError, match="1 or more"):
        llmbuild.load(model_dir, context=0)


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.logits([]),
        lambda model: model.logits([VOCAB]),
        lambda model: model.logits([-1]),
        lambda model: model.logits([1.5]),
        lambda model: model.logits("text"),
        lambda model: model.generate(b"text"),
        lambda model: model.generate([5, VOCAB]),
        lambda model: model.text([VOCAB]),
        lambda model: model.generate(TEXT, temperature=-1),
        lambda model: model.generate(TEXT, temperature=float("nan")),
        lambda model: model.generate(TEXT, temperature="warm"),
        lambda model: model.generate(TEXT, top_p=2),
        lambda model: model.generate(TEXT, max_tokens=0),
        lambda model: model.generate(TEXT, seed=-1),
        lambda model: model.tokens("\ud800"),
    ],
)
def test_values_out_of_range_are_refused(model: Model, ask: Callable[[Model], object]) -> None:
    with pytest.raises((UsageError, InputError)):
        ask(model)


def test_a_closed_model_says_so(model_dir: Path) -> None:
    with llmbuild.load(str(model_dir)) as model:
        stream = model.stream(TEXT, **LIKELIEST)
        next(stream)
    model.close()
    later: list[Callable[[], object]] = [
        lambda: model.generate(TEXT),
        lambda: model.stream(TEXT),
        lambda: model.chat([{"role": "user", "content": TEXT}]),
        lambda: model.tokens(TEXT),
        lambda: model.text([5]),
        lambda: model.logits([5]),
        lambda: list(stream),
    ]
    for use in later:
        with pytest.raises(UsageError, match="the model is closed"):
            use()


def test_an_unfinished_stream_ends_where_another_answer_begins(model: Model) -> None:
    whole = model.generate(TEXT, **LIKELIEST)
    first, second = model.stream(TEXT, **LIKELIEST), model.stream(TEXT, **LIKELIEST)
    next(first)
    started = next(second)
    with pytest.raises(UsageError, match="has begun another one"):
        list(first)
    assert started + "".join(second) == whole


def test_threads_wait_for_one_another(model: Model) -> None:
    prompts = [ids_of(20, step=step) for step in range(1, 9)]
    wanted = [model.generate(prompt, **LIKELIEST) for prompt in prompts]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda prompt: model.generate(prompt, **LIKELIEST), prompts)) == wanted


@pytest.mark.parametrize("function", ["prefill", "decode"])
def test_an_interrupted_step_is_forgotten(model: Model, monkeypatch: pytest.MonkeyPatch, function: str) -> None:
    """Ctrl-C arrives when TVM's function returns, with the cache in the middle of a step."""
    wanted = model.generate(TEXT, **LIKELIEST)
    chunks = Session._forward
    calls = itertools.count()

    def interrupted(self: Session, lengths: Any, call: Any) -> Any:
        def then() -> None:
            call()
            raise KeyboardInterrupt

        at = 0 if function == "prefill" else 3
        return chunks(self, lengths, then if next(calls) == at else call)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "_forward", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.generate(TEXT, **LIKELIEST)
    assert model.generate(TEXT, **LIKELIEST) == wanted


def test_a_model_without_a_tokenizer_gives_logits(model_dir: Path, built: ProjectDir, tmp_path: Path) -> None:
    shutil.copytree(model_dir, tmp_path / "bare")
    (tmp_path / "bare/tokenizer.json").unlink()
    with llmbuild.load(tmp_path / "bare", next(built.root.glob("dist/libs/*.so"))) as bare:
        assert bare.logits([7, 8]).shape == (2, VOCAB)
        with pytest.raises(InputError, match="text needs a tokenizer"):
            bare.generate("hello")


def test_paths_are_strings_too(model_dir: Path, built: ProjectDir, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(model_dir)
    with llmbuild.load(".") as model:
        assert repr(model) == "<llmbuild model tiny-q0f32-MLC, tiny-q0f32-x86_64-linux-cpu.so>"
    monkeypatch.chdir(built.root)
    with llmbuild.load("dist/tiny-q0f32-MLC/", "dist/libs/tiny-q0f32-x86_64-linux-cpu.so") as model:
        assert model.tokens("the") == model.tokens("the")


def test_what_is_no_model_directory(built: ProjectDir, tmp_path: Path) -> None:
    for place, what, hint in (
        (tmp_path / "gone", "there is no such model directory", "llmbuild build"),
        (tmp_path / ("x" * 300), "there is no such model directory", "llmbuild build"),
        (built.root / "checkpoint", "no mlc-chat-config.json here", "it is a checkpoint"),
        (built.root / "dist", "no mlc-chat-config.json here", "tiny-q0f32-MLC"),
    ):
        with pytest.raises(UsageError, match=what) as error:
            llmbuild.load(place)
        assert hint in str(error.value)


def test_a_model_and_a_library_that_do_not_belong_together(model_dir: Path, built: ProjectDir, tmp_path: Path) -> None:
    weights = tmp_path / "tiny-q0f32-MLC"
    shutil.copytree(model_dir, weights)
    library = next(built.root.glob("dist/libs/*.so"))
    with pytest.raises(UsageError, match="no library for this model"):
        llmbuild.load(weights)
    with pytest.raises(UsageError, match="no such library"):
        llmbuild.load(weights, tmp_path / "lib.so")
    shard = weights / "params_shard_0.bin"
    data = shard.read_bytes()
    shard.unlink()
    shard.write_bytes(data[:-1])
    with pytest.raises(VerifyError, match="the index says"):
        llmbuild.load(weights, library)
    shard.unlink()
    with pytest.raises(VerifyError, match="a weight shard is missing"):
        llmbuild.load(weights, library)


def test_threads_are_the_processes(model_dir: Path) -> None:
    code = """
import sys, llmbuild
from tvm import get_global_func
count = get_global_func("runtime.NumThreads")
for threads in (2, 1, None, 2):
    llmbuild.load(sys.argv[1], threads=threads).generate("a", max_tokens=1)
    print(count())
try:
    llmbuild.load(sys.argv[1], threads=5)
except llmbuild.LlmbuildError as error:
    print(error.what)
for threads in (0, -1):
    try:
        llmbuild.load(sys.argv[1], threads=threads)
    except llmbuild.LlmbuildError as error:
        print(error.what)
"""
    result = subprocess.run(
        [sys.executable, "-c", code, str(model_dir)], capture_output=True, text=True, check=True, env={}
    )
    assert result.stdout.splitlines() == [
        *("2", "1", "1", "2"),
        "5 threads cannot be had any more: TVM runs with 2 in this process",
        "the number of threads must be 1 to 1024, not 0",
        "the number of threads must be 1 to 1024, not -1",
    ]
