"""A tokenizer.json made for checkpoints without one.  The oracle is transformers' own class for the same directory."""

from __future__ import annotations

import contextlib
import json
import struct
import sys
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer

from llmbuild.conversation.hard_texts import HARD_TEXTS, around
from llmbuild.conversation.make_tokenizer import MadeTokenizer, check_tokenizer, make_tokenizer
from llmbuild.conversation.tokenizer_json import load
from llmbuild.errors import InputError, LlmbuildError, ToolchainError
from tests.helpers.replaced_parts import mutations
from tests.helpers.tokenizer_files import END, message, sentencepiece_model, vocab_and_merges

LLAMA = {"tokenizer_class": "LlamaTokenizer"}
UNIGRAM = {"model_type": "unigram", "required_chars": "<0x123456789ABCDEF>[INST]"}
"""The names of bytes and of control pieces can be cut into characters; the texts have some of them."""
TOKENS = ("<s>", "</s>", "<unk>", END, "<|im_start|>", "<|im_end|>", "<q>", "<mask>", "foo", "[INST]")
TEXTS = (*HARD_TEXTS, *around(TOKENS), "</s>\n\nafter the end", "before the end </s> and </s>  after it")


def write(place: Path, model_type: str, files: dict[str, Any]) -> dict[str, bytes]:
    """A directory with these files of a tokenizer (JSON where it is not bytes), and their content."""
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps({"model_type": model_type}))
    content = {name: of if isinstance(of, bytes) else json.dumps(of).encode() for name, of in files.items()}
    for name, data in content.items():
        (place / name).write_bytes(data)
    return content


def make(place: Path, model_type: str, files: dict[str, Any], notes: list[str] | None = None) -> MadeTokenizer:
    said: list[str] = [] if notes is None else notes
    made = make_tokenizer(write(place, model_type, files), {"model_type": model_type}, said.append)
    assert made is not None
    assert notes is not None or not said
    return made


def same_as_transformers(place: Path, model_type: str, files: dict[str, Any], *, but: set[str] = frozenset()) -> Any:  # type: ignore[assignment]
    """Compare ids, texts and added tokens with what transformers makes of the directory; returns transformers' tokenizer."""
    from transformers import AutoTokenizer

    made = make(place, model_type, files)
    ours = Tokenizer.from_str(made.content.decode())
    theirs = AutoTokenizer.from_pretrained(place)
    assert ours.get_vocab() == theirs.get_vocab()
    flags = {number: repr(token) for number, token in ours.get_added_tokens_decoder().items()}
    wanted = {number: repr(token) for number, token in theirs.added_tokens_decoder.items()}
    for number in {*flags, *wanted} - {ours.token_to_id(token) for token in but}:
        assert flags[number] == wanted[number]
    for text in TEXTS:
        if any(token in text for token in but):
            continue
        ids = theirs.encode(text, add_special_tokens=False)
        assert ours.encode(text, add_special_tokens=False).ids == ids, text
        decoded = theirs.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        assert ours.decode(ids, skip_special_tokens=False) == decoded, text
    assert ours.encode("one two").ids == theirs.encode("one two")
    return theirs


ADDED = {"<|im_start|>": 400, "<|im_end|>": 401}
DECODER = {
    "0": {"content": "<unk>", "special": True},
    "2": {"content": "</s>", "special": True, "rstrip": True},
    "400": {"content": "<|im_end|>", "special": False},
    "401": {"content": "<q>", "special": True, "lstrip": True},
}
MODELS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "llama without a class": ("llama", {}, {}),
    "llama": ("llama", {}, LLAMA),
    "llama fast, legacy": ("llama", {}, {"tokenizer_class": "LlamaTokenizerFast", "legacy": True}),
    "llama without the space": ("llama", {}, {**LLAMA, "add_prefix_space": False}),
    "llama with both ends": ("llama", {}, {**LLAMA, "add_bos_token": True, "add_eos_token": True}),
    "llama whose model adds no space": ("llama", {"add_dummy_prefix": False}, LLAMA),
    "a model that adds no space": ("llama", {"add_dummy_prefix": False}, {}),
    "mistral": ("mistral", {}, LLAMA),
    "mistral, not legacy": ("mistral", {}, {**LLAMA, "legacy": False, "add_bos_token": True}),
    "qwen3 with llama's": ("qwen3", {}, LLAMA),
    "gpt_neox with llama's": ("gpt_neox", {}, LLAMA),
    "code llama": ("llama", {}, {"tokenizer_class": "CodeLlamaTokenizer"}),
    "without bytes": ("llama", {"byte_fallback": False}, {}),
    "normalizing": (
        "llama",
        {"normalization_rule_name": "nmt_nfkc", "remove_extra_whitespaces": True},
        {},
    ),
    "without double spaces": ("llama", {"remove_extra_whitespaces": True}, {}),
    "unigram": ("llama", {**UNIGRAM, "control_symbols": ["[INST]"]}, {}),
    "unigram without bytes": ("llama", {"model_type": "unigram", "byte_fallback": False}, {}),
    "unigram as of T5": (
        "mistral",
        {
            "model_type": "unigram",
            "byte_fallback": False,
            "normalization_rule_name": "nmt_nfkc",
            "remove_extra_whitespaces": True,
        },
        LLAMA,
    ),
    "unigram without the space": ("mistral", {**UNIGRAM, "add_dummy_prefix": False}, {"add_bos_token": True}),
    "unigram, not legacy": (
        "llama",
        UNIGRAM,
        {"legacy": False, "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
    ),
    "control and user-defined": (
        "llama",
        {"user_defined_symbols": ["<mask>", "foo"], "control_symbols": ["[INST]"]},
        LLAMA,
    ),
    "renamed": (
        "mistral",
        {"control_symbols": ["[A]", "[INST]"]},
        {"added_tokens_decoder": {"3": {"content": "<|im_start|>", "special": True}}},
    ),
    "numbered": (
        "llama",
        {},
        {
            **LLAMA,
            "added_tokens_decoder": DECODER,
            "eos_token": "<|im_end|>",
            "pad_token": None,
            "image_token": "<img>",
        },
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_sentencepiece_model(tmp_path: Path, name: str) -> None:
    model_type, options, config = MODELS[name]
    files = {"tokenizer.model": sentencepiece_model(**options), "tokenizer_config.json": config}
    # transformers takes the name of a byte in a text for the byte, which SentencePiece does not.
    bytes_found = options.get("model_type") == "unigram" and options.get("byte_fallback", True)
    same_as_transformers(tmp_path, model_type, files, but={"<0x41>"} if bytes_found else set())
    prefix = config.get("add_prefix_space", "tokenizer_class" in config or options.get("add_dummy_prefix", True))
    assert tuple(make(tmp_path, model_type, files).info.values()) == ("byte_fallback", prefix, prefix)


def test_user_defined_pieces_of_a_model_without_a_class(tmp_path: Path) -> None:
    """They are no added tokens there, so that a space is put before them as before any text."""
    model = sentencepiece_model(user_defined_symbols=["<mask>", "foo"])
    same_as_transformers(tmp_path, "llama", {"tokenizer.model": model})


def test_a_sentencepiece_model_with_older_files(tmp_path: Path) -> None:
    files = {
        "tokenizer.model": sentencepiece_model(),
        "tokenizer_config.json": LLAMA,
        "added_tokens.json": {**ADDED, "plain": 402},
        "special_tokens_map.json": {
            "pad_token": "<|im_end|>",
            "mask_token": {"content": "<mask>", "lstrip": True, "normalized": False},
            "additional_special_tokens": ["<|im_start|>", "<q>"],
        },
    }
    theirs = same_as_transformers(tmp_path, "llama", files)
    assert (theirs.convert_tokens_to_ids("plain"), theirs.convert_tokens_to_ids("<mask>")) == (402, 403)


SIZE = 347
PAIRS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "gpt2": ("llama", {"tokenizer_class": "GPT2Tokenizer"}, {}),
    "gpt2 with a space": ("llama", {"tokenizer_class": "GPT2TokenizerFast", "add_prefix_space": True}, {}),
    "gpt_neox": ("gpt_neox", {}, {}),
    "gpt_neox by name": ("llama", {"tokenizer_class": "GPTNeoXTokenizerFast", "add_bos_token": True}, {}),
    "qwen2": ("qwen2", {}, {}),
    "qwen2 with another name": ("qwen2", {"tokenizer_class": "GPT2Tokenizer"}, {}),
    "qwen3": ("qwen3", {}, {}),
    "qwen3 with another name": ("qwen3", {"tokenizer_class": "GPT2Tokenizer"}, {}),
    "qwen2 with a space": ("llama", {"tokenizer_class": "Qwen2Tokenizer", "add_prefix_space": True}, {}),
    "qwen2 with older files": (
        "qwen2",
        {"eos_token": "<|im_end|>", "additional_special_tokens": ["<|im_start|>", "<|im_end|>"]},
        {"added_tokens.json": {"<|im_start|>": SIZE, "<|im_end|>": SIZE + 1}},
    ),
    "gpt2, numbered": (
        "llama",
        {
            "tokenizer_class": "GPT2Tokenizer",
            "bos_token": {"__type": "AddedToken", "content": "<|im_end|>", "lstrip": True},
            "added_tokens_decoder": {
                str(SIZE): {"content": "<|im_end|>", "special": False, "normalized": True},
                str(SIZE + 1): {"content": "<q>", "special": False, "single_word": True},
            },
        },
        {},
    ),
    "gpt_neox with a map": (
        "gpt_neox",
        {"tokenizer_class": "GPTNeoXTokenizer"},
        {"special_tokens_map.json": {"pad_token": "<|im_end|>", "bos_token": {"content": "<q>", "normalized": True}}},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_vocabulary_and_merges(tmp_path: Path, name: str) -> None:
    model_type, config, others = PAIRS[name]
    vocab, merges = vocab_and_merges()
    assert len(json.loads(vocab)) == SIZE
    files = {"vocab.json": vocab, "merges.txt": merges, "tokenizer_config.json": config, **others}
    same_as_transformers(tmp_path, model_type, files)
    assert tuple(make(tmp_path, model_type, files).info.values()) == ("byte_level", False, False)


@pytest.mark.parametrize("config", [{}, {"tokenizer_class": "PreTrainedTokenizerFast"}])
def test_pairs_of_no_class_are_gpt2s_with_a_note(tmp_path: Path, config: dict[str, Any]) -> None:
    """Transformers loads no tokenizer from such a directory."""
    vocab, merges = vocab_and_merges()
    files = {"vocab.json": vocab, "merges.txt": merges}
    notes: list[str] = []
    made = make(tmp_path / "plain", "llama", files | {"tokenizer_config.json": config}, notes)
    assert len(notes) == 1
    assert "taken for GPT-2's" in notes[0]
    named = make(tmp_path / "named", "llama", files | {"tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer"}})
    assert made == named


def test_the_bytes_are_the_same_each_time(tmp_path: Path) -> None:
    vocab, merges = vocab_and_merges()
    for files in ({"vocab.json": vocab, "merges.txt": merges}, {"tokenizer.model": sentencepiece_model()}):
        config = {"additional_special_tokens": [f"<{number}>" for number in range(50)]}
        contents = {make(tmp_path, "llama", {**files, "tokenizer_config.json": config}, []).content for _ in range(3)}
        assert len(contents) == 1
        assert next(iter(contents)).endswith(b"}\n")


def test_nothing_is_made_where_a_tokenizer_json_is_there_or_nothing_is() -> None:
    vocab, merges = vocab_and_merges()
    for files in ({}, {"vocab.json": vocab}, {"tokenizer.json": b"{}", "vocab.json": vocab, "merges.txt": merges}):
        assert make_tokenizer(files, {"model_type": "llama"}, print) is None


@pytest.mark.parametrize(
    ("names", "settings", "refused"),
    [
        (["tokenizer.json", "tokenizer.model"], {"tokenizer_class": "OddTokenizer"}, None),
        (["tokenizer.model"], LLAMA, None),
        (["vocab.json", "merges.txt"], {}, None),
        (["vocab.json", "merges.txt"], LLAMA, "the rules of LlamaTokenizer are for other files"),
        (["tokenizer.model"], {"tokenizer_class": "OddTokenizer"}, "the rules of OddTokenizer are not known"),
        (["tokenizer.model"], {"tokenizer_class": 3}, "must be the name of a class"),
        (["merges.txt", "added_tokens.json"], {}, "the checkpoint has no tokenizer"),
    ],
)
def test_what_the_names_of_files_and_the_class_show(
    names: list[str], settings: dict[str, Any], refused: str | None
) -> None:
    if refused is None:
        check_tokenizer(names, settings, {"model_type": "llama"})
        return
    with pytest.raises(InputError, match=refused):
        check_tokenizer(names, settings, {"model_type": "llama"})


@pytest.mark.parametrize("names", [[], ["tokenizer.model"]])
@pytest.mark.parametrize("classes", [["tokenization_odd.OddTokenizer", None], "tokenization_odd.OddTokenizer"])
@pytest.mark.parametrize("place", [0, 1])
def test_code_of_a_checkpoint_is_said_to_be_never_run(names: list[str], classes: Any, place: int) -> None:
    values: list[dict[str, Any]] = [{"tokenizer_class": "OddTokenizer"}, {"model_type": "chatglm"}]
    values[place]["auto_map"] = {"AutoTokenizer": classes}
    with pytest.raises(InputError) as error:
        check_tokenizer(names, *values)
    assert error.value.why == (
        "the tokenizer is code that comes with the checkpoint (tokenization_odd.OddTokenizer), which is never run"
    )
    assert error.value.fix == "put a tokenizer.json of the same vocabulary beside config.json"


@pytest.mark.parametrize("classes", [None, [], {}, {"AutoTokenizer": None}, {"AutoTokenizer": [None, 3]}])
def test_an_auto_map_without_a_tokenizer_says_nothing(classes: Any) -> None:
    with pytest.raises(InputError) as error:
        check_tokenizer([], {"auto_map": classes}, {})
    assert "tokenizer.model nor vocab.json" in str(error.value.why)


VOCAB, MERGES = vocab_and_merges()
RENAMED = {"added_tokens_decoder": {"3": {"content": "</s>"}}}
BOTH = {"vocab.json": VOCAB, "merges.txt": MERGES}


def of_class(name: Any) -> dict[str, Any]:
    return {"tokenizer_config.json": {"tokenizer_class": name}}


GPT2 = of_class("GPT2Tokenizer")


def model(**options: Any) -> dict[str, Any]:
    return {"tokenizer.model": sentencepiece_model(**options)}


def decoder(number: str, token: Any) -> dict[str, Any]:
    return settings(added_tokens_decoder={number: token})


def settings(**values: Any) -> dict[str, Any]:
    return {"tokenizer_config.json": {**LLAMA, **values}}


WRONG: dict[str, tuple[str, dict[str, Any], str]] = {
    "a class of pieces": ("llama", model() | of_class("BaichuanTokenizer"), "rules of BaichuanTokenizer"),
    "a class of pairs": ("llama", BOTH | of_class("WhisperTokenizer"), "WhisperTokenizer are not known"),
    "a class for other files": ("llama", BOTH | settings(), "LlamaTokenizer are for other files"),
    "pieces for qwen2": ("qwen2", model() | settings(), "Qwen2Tokenizer are for other files"),
    "pieces and no class": ("internlm2", model(), "without tokenizer_class"),
    "a class that is no name": ("llama", model() | of_class(7), "tokenizer_class: must be the name"),
    "unigram for a class of BPE": (
        "llama",
        model(model_type="unigram") | settings(),
        "takes the pieces for those of BPE",
    ),
    "unigram with user-defined pieces": (
        "llama",
        model(**UNIGRAM, user_defined_symbols=["foo", "ba"]),
        "has 2 that are no",
    ),
    "unigram whose bytes have names that cannot be cut": (
        "llama",
        model(model_type="unigram"),
        "it would give other tokens for",
    ),
    "words": ("llama", model(model_type="word", byte_fallback=False), "of kind word"),
    "tiktoken": ("llama", {"tokenizer.model": b"IQ== 0\nIg== 1\n"}, "a vocabulary of tiktoken"),
    "normalizing under a class that does not": (
        "llama",
        model(normalization_rule_name="nmt_nfkc") | settings(),
        "it would give other tokens for",
    ),
    "a number too far": (
        "llama",
        model() | decoder("700", {"content": "<x>"}),
        "said to be number 700, and would be number 400",
    ),
    "a name for a piece": ("llama", model() | decoder("300", {"content": "<x>"}), "said to be number 300"),
    "a number that is none": (
        "llama",
        model() | decoder("x", {"content": "<x>"}),
        "added_tokens_decoder.x: is not a token's number",
    ),
    "a token that is none": ("llama", model() | decoder("1", "<x>"), "is not a token with its properties"),
    "a decoder that is none": (
        "llama",
        model() | settings(added_tokens_decoder=[]),
        "added_tokens_decoder: must be an object",
    ),
    "a token without content": (
        "llama",
        model() | settings(eos_token={"special": True}),
        "eos_token: a token has no content",
    ),
    "a flag that is none": (
        "llama",
        model() | settings(eos_token={"content": "</s>", "lstrip": 1}),
        "'lstrip' of a token must be true or false",
    ),
    "a list that is none": (
        "llama",
        model() | settings(extra_special_tokens=5),
        "extra_special_tokens: must be a list",
    ),
    "an added number that is none": (
        "llama",
        model() | {"added_tokens.json": {"<x>": -1}},
        "<x>: must be a token's number, not -1",
    ),
    "no vocabulary": ("llama", BOTH | GPT2 | {"vocab.json": {}}, "has 0 tokens"),
    "a number that is text": ("llama", BOTH | GPT2 | {"vocab.json": {"a": "0"}}, "a: must be a token's number"),
    "a number twice": ("llama", BOTH | GPT2 | {"vocab.json": {"a": 0, "b": 0}}, "b: has number 0, as another token"),
    "a merge of one": (
        "llama",
        BOTH | GPT2 | {"merges.txt": b"#version: 0.2\nab\n"},
        "merges.txt:2: 'ab' does not join",
    ),
    "a merge to nothing": ("llama", BOTH | GPT2 | {"merges.txt": b"z q\n"}, "merges.txt:1: 'z q' does not join"),
    "merges that are not UTF-8": ("llama", BOTH | GPT2 | {"merges.txt": b"\xff"}, "merges.txt: is not UTF-8"),
    "a vocabulary with gaps": (
        "llama",
        BOTH | GPT2 | {"vocab.json": {"a": 1}, "merges.txt": b""},
        "the vocabulary has gaps",
    ),
    "two of a name": (
        "mistral",
        model(control_symbols=["[A]"]) | {"tokenizer_config.json": RENAMED},
        "two pieces would be '</s>'",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_made_is_refused_in_one_sentence(tmp_path: Path, name: str) -> None:
    model_type, files, said = WRONG[name]
    with pytest.raises(InputError) as caught:
        make(tmp_path, model_type, files)
    assert said in str(caught.value)
    assert str(caught.value).count("\n") <= 2


def test_the_library_is_named_where_it_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = model()
    monkeypatch.setitem(sys.modules, "sentencepiece", None)
    with pytest.raises(ToolchainError, match=r"the Python package sentencepiece is not installed"):
        make(tmp_path, "llama", files)


def test_merges_have_a_bound(tmp_path: Path) -> None:
    files = BOTH | GPT2 | {"vocab.json": {"a": 0, "b": 1, "ab": 2}, "merges.txt": b"a b\n" * 561}
    with pytest.raises(InputError, match=r"has 561 lines, and 560 are the most for 3 tokens"):
        make(tmp_path, "llama", files)


def test_what_the_tokenizers_library_refuses_is_refused() -> None:
    with pytest.raises(InputError, match=r"cannot be written as a tokenizer.json") as caught:
        load('{"version": "1.0"}', "vocab.json")
    assert "the tokenizers library refuses it" in str(caught.value)


def test_why_unigram_is_refused_for_a_class_of_bpe(tmp_path: Path) -> None:
    """transformers cuts texts in other places than the model does."""
    import sentencepiece
    from transformers import AutoTokenizer

    data = sentencepiece_model(**UNIGRAM)
    write(tmp_path, "llama", {"tokenizer.model": data, "tokenizer_config.json": LLAMA})
    theirs, model = AutoTokenizer.from_pretrained(tmp_path), sentencepiece.SentencePieceProcessor(model_proto=data)
    assert type(theirs.backend_tokenizer.model).__name__ == "BPE"
    texts = [text for text in TEXTS if not any(token in text for token in TOKENS)]
    assert any(theirs.encode(text, add_special_tokens=False) != model.encode(text) for text in texts)


def scored(content: bytes, score: float) -> bytes:
    return message(1, message(1, content) + b"\x15" + struct.pack("<f", score))


def test_unigram_takes_one_of_two_ways_of_the_same_score(tmp_path: Path) -> None:
    """SentencePiece adds up float32 and the library float64, so that one of the two sees a tie that the other does not."""
    import sentencepiece

    for last in range(200):
        scores = {"a": -1.1 - last / 1000, "aa": -1.3 - last / 700, "\u2581": -0.7}
        data = field(1, b"<unk>", 2) + field(1, b"<s>", 3) + field(1, b"</s>", 3)
        data += b"".join(scored(text.encode(), score) for text, score in scores.items())
        ours = Tokenizer.from_str(make(tmp_path, "llama", {"tokenizer.model": data}).content.decode())
        theirs = sentencepiece.SentencePieceProcessor(model_proto=data)
        differ = 0
        for count in range(1, 40):
            found, wanted = ours.encode("a" * count).ids, theirs.encode("a" * count)
            assert sorted(found) == sorted(wanted)
            differ += found != wanted
        if differ:
            return
    pytest.fail("no model of these shows it")


def field(number: int, content: bytes, kind: int | None = None) -> bytes:
    return message(1, message(1, content) + (b"" if kind is None else bytes([0x18, kind])))


ODD: dict[str, tuple[bytes, str]] = {
    "Unigram with a character in longer pieces only": (
        field(1, b"<unk>", 2) + field(1, b"<s>", 3) + field(1, b"</s>", 3) + field(1, b"a") + field(1, b"ab"),
        "it has pieces of characters that are no pieces by themselves",
    ),
    "no unknown piece": (field(1, b"a") + message(2, b"\x18\x02"), "it has not one unknown piece"),
    "two alike": (field(1, b"<unk>", 2) + field(1, b"a") * 2 + message(2, b"\x18\x02"), "two pieces are the same"),
    "unused": (field(1, b"<unk>", 2) + field(1, b"a", 5) + message(2, b"\x18\x02"), "it has unused pieces"),
    "spaces behind": (field(1, b"<unk>", 2) + message(2, b"\x18\x02\xc0\x01\x01"), "spaces in an uncommon way"),
    "a long piece": (field(1, b"<unk>", 2) + field(1, b"a" * 513) + message(2, b"\x18\x02"), "one has 513 characters"),
    "many user-defined": (
        field(1, b"<unk>", 2) + b"".join(field(1, b"%05d" % at, 4) for at in range(2003)) + message(2, b"\x18\x02"),
        "has 2001 user-defined pieces",
    ),
    "what the library refuses": (
        field(1, b"<unk>", 2) + field(1, b"<0x00>", 6) + field(1, b"b") + message(2, b"\x18\x02"),
        "not a SentencePiece model",
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_models_are_refused(tmp_path: Path, name: str) -> None:
    data, said = ODD[name]
    with pytest.raises(InputError) as caught:
        make(tmp_path, "llama", {"tokenizer.model": data})
    assert said in str(caught.value)


ANY: dict[str, dict[str, Any]] = {
    "pairs": {
        "vocab.json": {"a": 0, "b": 1, "ab": 2, END: 3},
        "merges.txt": b"a b\n",
        "added_tokens.json": {"<x>": 4},
        "special_tokens_map.json": {"pad_token": {"content": "<p>", "lstrip": True}, "extra_special_tokens": ["<e>"]},
        "tokenizer_config.json": {"tokenizer_class": "GPT2Tokenizer", "add_prefix_space": True, "eos_token": "<x>"},
    },
    "numbered": {
        "vocab.json": {"a": 0, "b": 1, "ab": 2, END: 3},
        "merges.txt": b"a b\n",
        "tokenizer_config.json": {
            "tokenizer_class": "Qwen2Tokenizer",
            "add_bos_token": True,
            "bos_token": {"content": "<b>", "special": True},
            "added_tokens_decoder": {"4": {"content": "<x>", "normalized": True, "rstrip": False}},
            "additional_special_tokens": ["<y>"],
        },
    },
    "Unigram": {
        "tokenizer.model": field(1, b"<unk>", 2) + field(1, b"<s>", 3) + field(1, b"a") + message(3, b"\x20\x00"),
    },
    "pieces": {
        "tokenizer.model": field(1, b"<unk>", 2)
        + field(1, b"<s>", 3)
        + field(1, b"a")
        + message(2, b"\x18\x02")
        + message(3, b"\x20\x00"),
        "added_tokens.json": {"<x>": 3},
        "tokenizer_config.json": {"tokenizer_class": "LlamaTokenizer", "legacy": True, "add_prefix_space": False},
    },
}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, files in ANY.items() for name in files])
def test_any_value_in_any_place_is_taken_or_refused(kind: str, name: str) -> None:
    files = {key: value if isinstance(value, bytes) else json.dumps(value).encode() for key, value in ANY[kind].items()}
    value = ANY[kind][name]
    if isinstance(value, bytes):
        changed = [
            value[:at] + byte + value[at + 1 :] for at in range(len(value)) for byte in (b"\x00", b"\x7f", b"\xff")
        ]
    else:
        changed = [json.dumps(one).encode() for one in mutations(value)]
    made = 0
    for content in changed:
        with contextlib.suppress(LlmbuildError):
            made += make_tokenizer(files | {name: content}, {"model_type": "llama"}, lambda said: None) is not None
    assert make_tokenizer(files, {"model_type": "llama"}, print) is not None
    assert made < len(changed)
