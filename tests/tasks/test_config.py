"""The config task: fields, precedence, tokenizer files, and what is refused."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest

from llmbuild.conversation.templates import resolve_template
from llmbuild.engine.kind import Job
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.models.family import Overrides
from llmbuild.models.registry import family, infer_model_type
from llmbuild.tasks.config import KIND
from tests.helpers.checkpoints import make_checkpoint
from tests.helpers.gguf_files import make_gguf
from tests.helpers.inspected import write_facts
from tests.helpers.replaced_parts import mutations
from tests.helpers.tokenizer_files import sentencepiece_model

FIELDS = [
    "version",
    "model_type",
    "quantization",
    "model_config",
    "vocab_size",
    "context_window_size",
    "sliding_window_size",
    "prefill_chunk_size",
    "attention_sink_size",
    "tensor_parallel_shards",
    "pipeline_parallel_stages",
    "active_vocab_size",
    "temperature",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "top_p",
    "tokenizer_files",
    "tokenizer_info",
    "conv_template",
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "model_task",
    "embedding_metadata",
]


NOTES: list[str] = []
"""The notes of the latest run, without those that compare chatml with the checkpoint's chat template."""
COMPARED: list[str] = []
"""Those."""


def take(note: str) -> None:
    (COMPARED if "is not the checkpoint's chat template" in note else NOTES).append(note)


def run(out: Path, checkpoint: Path | None, facts: dict[str, Any] | None = None, **params: Any) -> dict[str, Any]:
    """Run the task into `out` and return mlc-chat-config.json."""
    NOTES.clear()
    COMPARED.clear()
    out.mkdir(exist_ok=True)
    scratch = out.parent / "scratch"
    scratch.mkdir(exist_ok=True)
    defaults = {
        "quantization": "q4f32_1",
        "model-type": None,
        "ignore-keys": [],
        "conversation": resolve_template("chatml", Path()),
        "system-prompt": None,
        "metadata": {},
        "generation": {},
        "preset": None,
        "architecture": None,
    }
    assert set(defaults) == set(KIND.params)
    inputs = {}
    if checkpoint is not None:
        found = write_facts(scratch / "facts.json", checkpoint, params.get("model-type"), facts)
        inputs = {"checkpoint": checkpoint, "facts": found}
    KIND.run(Job({**defaults, **params}, inputs, {}, out, scratch, lambda done, total, unit="": None, note=take))
    result: dict[str, Any] = json.loads((out / "mlc-chat-config.json").read_text())
    return result


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return make_checkpoint(tmp_path / "checkpoint", "llama")


def change(file: Path, **values: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **values}))


def test_fields_in_order_and_their_values(tmp_path: Path, checkpoint: Path) -> None:
    from transformers import AutoTokenizer

    config = run(tmp_path / "out", checkpoint)
    assert list(config) == FIELDS
    assert config["version"] == "0.1.0"
    assert (config["model_type"], config["quantization"], config["vocab_size"]) == ("llama", "q4f32_1", 320)
    assert (config["context_window_size"], config["sliding_window_size"], config["attention_sink_size"]) == (
        256,
        -1,
        -1,
    )
    assert (config["prefill_chunk_size"], config["tensor_parallel_shards"]) == (256, 1)
    assert config["model_config"]["max_batch_size"] == 128
    assert config["active_vocab_size"] == len(AutoTokenizer.from_pretrained(checkpoint))
    assert (config["temperature"], config["top_p"], config["repetition_penalty"]) == (0.7, 0.9, 1.0)
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 1, 2)
    assert config["tokenizer_files"] == ["tokenizer.json", "tokenizer_config.json"]
    assert config["tokenizer_info"]["token_postproc_method"] == "byte_fallback"
    assert config["conv_template"]["name"] == "chatml"
    assert (config["model_task"], config["embedding_metadata"]) == ("chat", None)
    written = (tmp_path / "out" / "mlc-chat-config.json").read_text()
    assert written == json.dumps(config, indent=2)
    assert {path.name for path in (tmp_path / "out").iterdir()} == {
        "mlc-chat-config.json",
        "tokenizer.json",
        "tokenizer_config.json",
    }


def test_the_checkpoints_own_template_and_a_named_one_beside_it(tmp_path: Path, checkpoint: Path) -> None:
    own = run(tmp_path / "own", checkpoint, conversation="checkpoint")["conv_template"]
    assert (own["name"], own["stop_token_ids"], NOTES + COMPARED) == ("checkpoint", [4, 2], [])
    named = run(tmp_path / "named", checkpoint, **{"system-prompt": "Be kind."})["conv_template"]
    assert (named["name"], named["system_message"]) == ("chatml", "Be kind.")
    assert [note.partition(":")[0] for note in COMPARED] == [
        "conv-template 'chatml' is not the checkpoint's chat template"
    ]
    (checkpoint / "chat_template.jinja").write_text("{{ messages[0].content | trim }}")
    with pytest.raises(InputError, match=r"chat_template\.jinja: MLC's fields cannot express"):
        run(tmp_path / "own", checkpoint, conversation="checkpoint")


def test_windows(tmp_path: Path) -> None:
    """Those of the checkpoint are in the library; a rolling cache is written as MLC writes it."""
    keys = ("context_window_size", "sliding_window_size", "attention_sink_size")
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "mistral")
    config = run(tmp_path / "out", checkpoint)
    assert [config[key] for key in keys] == [256, -1, -1]
    assert config["model_config"]["sliding_window"] == 32
    rolling = run(tmp_path / "rolling", checkpoint, metadata={"sliding-window-size": 32})
    assert [rolling[key] for key in keys] == [-1, 32, 4]
    assert "sliding_window" not in rolling["model_config"]


def test_metadata_overrides(tmp_path: Path, checkpoint: Path) -> None:
    metadata = {"context-window-size": 128, "prefill-chunk-size": 64, "max-batch-size": 2}
    config = run(tmp_path / "out", checkpoint, metadata=metadata)
    assert (config["context_window_size"], config["prefill_chunk_size"]) == (128, 64)
    model_config = config["model_config"]
    assert (model_config["context_window_size"], model_config["max_batch_size"]) == (128, 2)


def test_precedence_of_sampling_values(tmp_path: Path, checkpoint: Path) -> None:
    change(checkpoint / "config.json", temperature=0.1, top_p=0.2, repetition_penalty=1.3, presence_penalty=0.5)
    change(
        checkpoint / "generation_config.json", temperature=0.7, top_p=0.9, repetition_penalty=None, eos_token_id=[2, 4]
    )
    config = run(tmp_path / "out", checkpoint, generation={"temperature": 0.0})
    assert [config[name] for name in ("temperature", "top_p", "repetition_penalty", "presence_penalty")] == [
        0.0,
        0.9,
        1.3,
        0.5,
    ]
    assert (config["frequency_penalty"], config["eos_token_id"]) == (0.0, [2, 4])


def test_defaults_without_generation_config(tmp_path: Path, checkpoint: Path) -> None:
    (checkpoint / "generation_config.json").unlink()
    values = json.loads((checkpoint / "config.json").read_text())
    for name in ("bos_token_id", "eos_token_id", "pad_token_id"):
        values.pop(name)
    (checkpoint / "config.json").write_text(json.dumps(values))
    config = run(tmp_path / "out", checkpoint)
    assert (config["temperature"], config["top_p"], config["presence_penalty"]) == (1.0, 1.0, 0.0)
    assert (config["pad_token_id"], config["bos_token_id"], config["eos_token_id"]) == (0, 1, 2)


def remove_ids(checkpoint: Path, *names: str) -> None:
    """Take token ids out of both configurations."""
    for file in ("config.json", "generation_config.json"):
        values = json.loads((checkpoint / file).read_text())
        (checkpoint / file).write_text(json.dumps({key: values[key] for key in values if key not in names}))


@pytest.mark.parametrize(
    ("token", "number"),
    [("</s>", 2), ("<|im_end|>", 4), ({"__type": "AddedToken", "content": "<|im_end|>"}, 4), ("<s>", 1)],
)
def test_an_end_token_that_only_the_tokenizer_names(tmp_path: Path, checkpoint: Path, token: Any, number: int) -> None:
    from transformers import AutoTokenizer

    remove_ids(checkpoint, "eos_token_id")
    change(checkpoint / "tokenizer_config.json", eos_token=token)
    config = run(tmp_path / "out", checkpoint)
    assert config["eos_token_id"] == number == AutoTokenizer.from_pretrained(checkpoint).eos_token_id
    # Both the checkpoint's end token and what chatml writes after an answer; its fixed 2 only where it is one of these.
    assert sorted(config["conv_template"]["stop_token_ids"]) == sorted({number, 4})
    assert len(NOTES) == (number != 2)


def test_the_older_file_of_special_tokens_counts_where_the_newer_says_nothing(tmp_path: Path, checkpoint: Path) -> None:
    remove_ids(checkpoint, "eos_token_id")
    change(checkpoint / "tokenizer_config.json", eos_token=None)
    (checkpoint / "special_tokens_map.json").write_text(json.dumps({"eos_token": "<|im_end|>"}))
    assert run(tmp_path / "out", checkpoint)["eos_token_id"] == 4


def test_an_end_token_is_never_invented(tmp_path: Path, checkpoint: Path) -> None:
    remove_ids(checkpoint, "eos_token_id")
    change(checkpoint / "tokenizer_config.json", eos_token=None)
    config = run(tmp_path / "out", checkpoint, conversation=resolve_template("LM", Path()))
    assert (config["eos_token_id"], config["conv_template"]["stop_token_ids"]) == (None, [])
    assert any("no file of the checkpoint names an end token" in note for note in NOTES)


@pytest.mark.parametrize(
    "values", [{"eos_token_id": 4}, {"eos_token_id": [2, 4]}, {"eos_token_id": None}, {"eos_token_id": 0}, {}]
)
def test_end_tokens_are_those_of_transformers(tmp_path: Path, checkpoint: Path, values: dict[str, Any]) -> None:
    from transformers import GenerationConfig

    remove_ids(checkpoint, "eos_token_id")
    change(checkpoint / "generation_config.json", **values)
    read = GenerationConfig.from_pretrained(checkpoint).eos_token_id
    # Where transformers names none, its text generation takes the tokenizer's own.
    assert run(tmp_path / "out", checkpoint)["eos_token_id"] == (2 if read is None else read)


def test_no_token_below_zero_is_one(tmp_path: Path, checkpoint: Path) -> None:
    change(checkpoint / "generation_config.json", eos_token_id=[-1, 4], bos_token_id=-1, pad_token_id=-1)
    config = run(tmp_path / "out", checkpoint)
    assert (config["eos_token_id"], config["bos_token_id"], config["pad_token_id"]) == ([4], 1, 0)
    change(checkpoint / "generation_config.json", eos_token_id=-1)
    assert run(tmp_path / "again", checkpoint)["eos_token_id"] == 2


def test_nobody_says_how_to_sample(tmp_path: Path, checkpoint: Path) -> None:
    assert "sampling_unset" not in run(tmp_path / "said", checkpoint)
    change(checkpoint / "generation_config.json", temperature=None, top_p=None)
    config = run(tmp_path / "unsaid", checkpoint)
    assert (config["temperature"], config["top_p"], config["sampling_unset"]) == (1.0, 1.0, True)
    assert "sampling_unset" not in run(tmp_path / "manifest", checkpoint, generation={"top-p": 1.0})


def add_tokens(checkpoint: Path, *tokens: tuple[str, int]) -> None:
    """Add special tokens at the end of tokenizer.json's list."""
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    content["added_tokens"] += [{"id": number, "content": text, **flags} for text, number in tokens]
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))


def test_added_tokens_beyond_the_rows_are_a_note(tmp_path: Path, checkpoint: Path) -> None:
    add_tokens(checkpoint, ("<|extra|>", 320), ("<|extra2|>", 400))
    config = run(tmp_path / "out", checkpoint)
    (note,) = NOTES
    assert '"<|extra|>" (number 320) and 1 more are beyond the embedding\'s 320 rows' in note
    assert config["active_vocab_size"] <= config["vocab_size"]


def test_a_tokenizer_that_is_longer_than_the_embedding(tmp_path: Path, checkpoint: Path) -> None:
    add_tokens(checkpoint, *((f"<|x{number}|>", number) for number in range(269, 469)))
    config = run(tmp_path / "out", checkpoint)
    assert "320 rows" in NOTES[0]
    assert config["active_vocab_size"] == 320
    with pytest.raises(InputError, match=r"'own' sends the token \"<\|x419\|>\", number 4"):
        own = {**resolve_template("chatml", Path()), "name": "own", "seps": ["<|x419|>"]}
        run(tmp_path / "out", checkpoint, conversation=own)


def test_a_vocabulary_that_is_longer_than_the_embedding(tmp_path: Path, checkpoint: Path) -> None:
    change(checkpoint / "config.json", vocab_size=200)
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", checkpoint)
    assert "has the number 200" in caught.value.what
    assert "the embedding has 200 rows" in (caught.value.why or "")


def test_a_template_of_a_larger_vocabulary(tmp_path: Path, checkpoint: Path) -> None:
    with pytest.raises(InputError, match="'llama-3' begins with the token 128000"):
        run(tmp_path / "out", checkpoint, conversation=resolve_template("llama-3", Path()))
    # Numbers that are only compared with what the model says give way instead.
    config = run(tmp_path / "out", checkpoint, conversation=resolve_template("qwen2", Path()))
    assert config["conv_template"]["stop_token_ids"] == [4, 2]


@pytest.mark.parametrize("file", ["config.json", "generation_config.json"])
@pytest.mark.parametrize("key", ["bos_token_id", "eos_token_id", "pad_token_id"])
def test_token_ids_beyond_the_rows(tmp_path: Path, checkpoint: Path, file: str, key: str) -> None:
    change(checkpoint / file, **{key: 99999})
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", checkpoint)
    assert (str(caught.value.where), caught.value.what) == (f"{file}: {key}", "there is no token 99999")


def test_a_token_id_that_is_ignored_counts_as_absent(tmp_path: Path, checkpoint: Path) -> None:
    change(checkpoint / "config.json", pad_token_id=99999)
    assert run(tmp_path / "out", checkpoint, **{"ignore-keys": ["pad_token_id"]})["pad_token_id"] == 0


def test_tokens_of_a_gguf_file_beyond_its_rows(tmp_path: Path) -> None:
    (tmp_path / "checkpoint").mkdir()
    make_gguf(tmp_path / "checkpoint/model.gguf", "llama", config={"vocab_size": 260})
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", tmp_path / "checkpoint")
    assert "has the number 260" in caught.value.what
    assert "the embedding has 260 rows" in (caught.value.why or "")


def test_numbers_with_gaps_can_all_be_drawn(tmp_path: Path, checkpoint: Path) -> None:
    content = json.loads((checkpoint / "tokenizer.json").read_text())
    content["model"]["vocab"]["far"] = 300
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))
    assert run(tmp_path / "out", checkpoint)["active_vocab_size"] == 301


def entry(text: str) -> dict[str, Any]:
    return {"content": text, "special": True, **dict.fromkeys(("lstrip", "rstrip", "single_word", "normalized"), False)}


@pytest.mark.parametrize("end", ["</s>", "<|im_end|>", "<far>", "<new>"])
@pytest.mark.parametrize("numbers", [(275, 276), (300, 290), (260, 261)])
@pytest.mark.parametrize("listed", [False, True])
def test_end_tokens_where_added_tokens_have_gaps(
    tmp_path: Path, checkpoint: Path, end: str, numbers: tuple[int, int], listed: bool
) -> None:
    """tokenizer.json gives its last added tokens numbers that leave a gap, and another file adds more."""
    from transformers import AutoTokenizer

    content = json.loads((checkpoint / "tokenizer.json").read_text())
    del content["model"]["vocab"]["<|im_end|>"]
    content["model"]["vocab"]["last"] = 4
    content["added_tokens"] = [each for each in content["added_tokens"] if each["content"] != "<|im_end|>"]
    beyond = {280: "<|im_end|>", 285: "<far>"}
    content["added_tokens"] += [{"id": number, **entry(text)} for number, text in beyond.items()]
    (checkpoint / "tokenizer.json").write_text(json.dumps(content))
    more = {numbers[0]: "<new>", numbers[1]: "<other>", **(beyond if listed else {})}
    table = {str(number): entry(text) for number, text in more.items()}
    change(checkpoint / "tokenizer_config.json", eos_token=end, added_tokens_decoder=table)
    remove_ids(checkpoint, "eos_token_id")
    reference = AutoTokenizer.from_pretrained(checkpoint)
    config = run(tmp_path / "out", checkpoint)
    assert config["eos_token_id"] == reference.eos_token_id
    # The end token, and the stop string of chatml, which is one of the tokens behind the gap.
    stops = {reference.eos_token_id, reference.convert_tokens_to_ids("<|im_end|>")}
    assert set(config["conv_template"]["stop_token_ids"]) == stops
    assert config["active_vocab_size"] == len(reference)


def test_weights_are_not_needed(tmp_path: Path, checkpoint: Path) -> None:
    whole = run(tmp_path / "whole", checkpoint)
    for weights in checkpoint.glob("*.safetensors"):
        weights.unlink()
    assert run(tmp_path / "small", checkpoint) == whole


def test_a_preset_needs_no_checkpoint(tmp_path: Path) -> None:
    from llmbuild.models.presets import presets

    config = run(tmp_path / "out", None, preset=next(iter(presets().values())))
    assert config["active_vocab_size"] == config["vocab_size"]
    assert (config["tokenizer_files"], list(config)) == ([], FIELDS)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mlc-chat-config.json"]


@pytest.mark.parametrize(
    ("file", "values", "said"),
    [
        ("generation_config.json", {"temperature": "hot"}, "generation_config.json: temperature: must be a number"),
        ("generation_config.json", {"top_p": float("nan")}, "top_p: must be a number"),
        ("generation_config.json", {"top_p": 1.5}, "top_p: must be a number, more than 0 and at most 1"),
        ("config.json", {"repetition_penalty": -1}, "config.json: repetition_penalty: must be a number, more than 0"),
        ("generation_config.json", {"eos_token_id": []}, "eos_token_id: must be a token id or a list"),
        ("generation_config.json", {"pad_token_id": True}, "pad_token_id: must be a token id"),
        ("config.json", {"model_type": "bert", "architectures": ["BertModel"]}, "BertModel"),
        (
            "tokenizer.json",
            {"added_tokens": [{"id": 0, "content": "<s>"}, {"id": 1, "content": "<s>"}]},
            "listed twice",
        ),
    ],
)
def test_wrong_values_are_refused(tmp_path: Path, checkpoint: Path, file: str, values: Any, said: str) -> None:
    change(checkpoint / file, **values)
    with pytest.raises(InputError) as caught:
        run(tmp_path / "out", checkpoint)
    assert said in str(caught.value)


def test_a_missing_tokenizer_is_refused(tmp_path: Path) -> None:
    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", tokenizer=False)
    with pytest.raises(InputError, match="no tokenizer"):
        run(tmp_path / "out", checkpoint)


@pytest.mark.parametrize("merges", ["all", "none"])
def test_vocabulary_and_merges_alone_become_a_tokenizer_json(tmp_path: Path, merges: str) -> None:
    from tokenizers import Tokenizer

    checkpoint = make_checkpoint(tmp_path / "checkpoint", "qwen3")
    model = json.loads((checkpoint / "tokenizer.json").read_text())["model"]
    (checkpoint / "vocab.json").write_text(json.dumps(model["vocab"]))
    lines = ["#version: 0.2", *(" ".join(pair) for pair in model["merges"] if merges == "all")]
    (checkpoint / "merges.txt").write_text("\n".join(lines) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (checkpoint / name).unlink()
    config = run(tmp_path / "out", checkpoint)
    assert config["tokenizer_files"] == ["tokenizer.json", "vocab.json", "merges.txt"]
    assert config["tokenizer_info"] == {
        "token_postproc_method": "byte_level",
        "prepend_space_in_encode": False,
        "strip_space_in_decode": False,
    }
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert config["active_vocab_size"] == tokenizer.get_vocab_size()
    assert tokenizer.encode(" the").tokens == (["Ġthe"] if merges == "all" else [*"Ġthe"])


def test_a_sentencepiece_model_alone_becomes_a_tokenizer_json(tmp_path: Path) -> None:
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    checkpoint = make_checkpoint(tmp_path / "checkpoint", "llama", tokenizer=False)
    (checkpoint / "tokenizer.model").write_bytes(sentencepiece_model(vocab_size=318))
    (checkpoint / "tokenizer_config.json").write_text('{"tokenizer_class": "LlamaTokenizer", "pad_token": "<pad>"}')
    config = run(tmp_path / "out", checkpoint)
    assert config["tokenizer_files"] == ["tokenizer.model", "tokenizer.json", "tokenizer_config.json"]
    assert config["tokenizer_info"] == {
        "token_postproc_method": "byte_fallback",
        "prepend_space_in_encode": True,
        "strip_space_in_decode": True,
    }
    theirs = AutoTokenizer.from_pretrained(checkpoint)
    assert config["active_vocab_size"] == len(theirs) == 319
    tokenizer = Tokenizer.from_file(str(tmp_path / "out/tokenizer.json"))
    assert tokenizer.encode("naïve 日本").ids == theirs.encode("naïve 日本")


SMALL: dict[str, Any] = {
    "config.json": {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 8,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "vocab_size": 8,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "attention_bias": False,
        "tie_word_embeddings": True,
        "bos_token_id": 1,
        "eos_token_id": [2],
        "rope_scaling": {
            "rope_type": "llama3",
            "factor": 8.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 32,
        },
    },
    "generation_config.json": {"temperature": 0.5, "top_p": 0.9, "eos_token_id": [2, 3], "pad_token_id": 0},
    "tokenizer.json": {
        "added_tokens": [{"id": 2, "content": "<s>"}],
        "normalizer": {"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "x"}]},
        "decoder": {"type": "Sequence", "decoders": [{"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": [["a", "b"]]},
    },
    "tokenizer_config.json": {
        "bos_token": {"content": "<s>"},
        "eos_token": "</s>",
        "additional_special_tokens": ["<x>"],
        "extra_special_tokens": {"y": "<y>"},
    },
    "special_tokens_map.json": {"unk_token": {"content": "<unk>"}, "additional_special_tokens": [{"content": "<z>"}]},
    "added_tokens.json": {"<new>": 5},
}
FAMILIES: dict[str, dict[str, Any]] = {
    "mistral": {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 32},
    "qwen2": {"architectures": ["Qwen2ForCausalLM"], "layer_types": ["full_attention"], "use_sliding_window": False},
    "qwen3": {"architectures": ["Qwen3ForCausalLM"], "quantization_config": {"quant_method": "awq"}},
    "gpt_neox": {
        "architectures": ["GPTNeoXForCausalLM"],
        "num_key_value_heads": 2,
        "rotary_pct": 0.5,
        "hidden_act": "gelu",
        "rope_parameters": {"rope_theta": 10000, "partial_rotary_factor": 0.5},
    },
}


@pytest.mark.parametrize("file", SMALL)
def test_any_value_in_any_place_is_taken_or_refused(tmp_path: Path, file: str) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for name, value in SMALL.items():
        (source / name).write_text(json.dumps(value))
    run(tmp_path / "plain", source)
    for number, value in enumerate(mutations(SMALL[file])):
        (source / file).write_text(json.dumps(value))
        with contextlib.suppress(LlmbuildError):
            run(tmp_path / str(number % 2), source)


@pytest.mark.parametrize("name", FAMILIES)
def test_any_configuration_of_a_family_is_taken_or_refused(name: str) -> None:
    base = SMALL["config.json"] | {"model_type": name} | FAMILIES[name]
    base = {key: value for key, value in base.items() if key != "rope_scaling" or name == "llama"}
    assert family(name).parameters(family(name).configure(base, Overrides()))
    for value in mutations(base):
        if isinstance(value, dict):
            with contextlib.suppress(LlmbuildError):
                config = family(infer_model_type(value)).configure(value, Overrides())
                assert json.dumps(config.to_json(), allow_nan=False)


def test_an_ignored_key_counts_as_absent_and_a_note_says_so(tmp_path: Path, checkpoint: Path) -> None:
    change(checkpoint / "config.json", is_causal=False)
    with pytest.raises(InputError, match="not supported") as error:
        run(tmp_path / "out", checkpoint)
    assert error.value.fix is not None and 'ignore-keys = ["is_causal"]' in error.value.fix
    run(tmp_path / "out", checkpoint, **{"ignore-keys": ["is_causal"]})
    assert "config.json: is_causal = false counts as absent, as ignore-keys says" in NOTES
