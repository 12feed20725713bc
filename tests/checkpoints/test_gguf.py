"""GGUF files as checkpoints: values, names, layouts, configuration, tokenizer, and files that are wrong."""

import contextlib
import json
import math
import struct
import time
from array import array
from itertools import chain
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from llmbuild.checkpoints.gguf import BLOCK_TYPES, GgufFile
from llmbuild.checkpoints.gguf_tokenizer import make_tokenizer_files
from llmbuild.checkpoints.tensor import TensorInfo
from llmbuild.conversation.hard_texts import HARD_TEXTS, around, cut_at
from llmbuild.conversation.sentencepiece_model import read_sentencepiece
from llmbuild.errors import InputError, LlmbuildError
from llmbuild.models.gguf.config import make_generation_config
from llmbuild.models.open import open_checkpoint, read_metadata
from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.gguf_files import llama3_factors, make_config, make_gguf
from tests.helpers.tokenizer_files import sentencepiece_model

VARIANTS = [
    "llama",
    "llama-gqa",
    "llama-tied",
    "llama-bias",
    "llama3",
    "llama-linear-rope",
    "mistral",
    "gpt_neox",
    "gpt_neox-sequential",
    "qwen2",
    "qwen2-tied",
    "qwen3",
]
TEXTS = [
    "Hello the cat on 12345!",
    "  two  spaces\n\tand tabs ",
    "wörld 日本 🙂 don't",
    "<|im_start|>user\nhe<|im_end|>",
    "",
]


@pytest.mark.parametrize("variant", VARIANTS)
def test_tensors_and_configuration_are_those_of_the_original(tmp_path, variant, monkeypatch):
    monkeypatch.setattr("llmbuild.checkpoints.tensor.PART_ELEMENTS", 300)
    make_gguf(tmp_path / "model.gguf", variant)
    source = cached_checkpoint(variant)
    original = {
        name: value
        for name, value in load_file(source / "model.safetensors").items()
        if not name.endswith(("attention.bias", "masked_bias", "inv_freq"))
    }
    with open_checkpoint(tmp_path) as checkpoint:
        assert checkpoint.format == "gguf"
        assert set(checkpoint.tensors) == set(original)
        for name, info in checkpoint.tensors.items():
            value = checkpoint.read(name)
            assert value.shape == info.shape
            assert str(value.dtype) == info.dtype == "float32"
            assert np.array_equal(value, original[name]), name
            assert np.array_equal(np.concatenate(list(checkpoint.parts(name))), value.reshape(-1)), name
        config, wanted = checkpoint.config, json.loads((source / "config.json").read_text())
    not_in_gguf = {"torch_dtype", "transformers_version", "use_sliding_window", "max_window_layers", "sliding_window"}
    if variant == "mistral":
        not_in_gguf.remove("sliding_window")
    scaling = wanted.get("rope_scaling")
    if scaling is not None and "type" in scaling:
        wanted["rope_scaling"] = {"rope_type": scaling["type"], "factor": scaling["factor"]}
    for key in wanted.keys() - not_in_gguf:
        assert config[key] == wanted[key], key


@pytest.mark.parametrize("name", ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"])
def test_quantized_tensors_are_dequantized_before_their_rows_are_restored(tmp_path, name, monkeypatch):
    monkeypatch.setattr("llmbuild.checkpoints.tensor.PART_ELEMENTS", 300)
    make_gguf(tmp_path / "model.gguf", "llama-gqa", quantization=name)
    original = load_file(cached_checkpoint("llama-gqa") / "model.safetensors")
    bits = {"F16": 11, "BF16": 8, "Q8_0": 8, "Q5_0": 5, "Q5_1": 5}.get(name, 4)
    with open_checkpoint(tmp_path) as checkpoint:
        for tensor, info in checkpoint.tensors.items():
            value = checkpoint.read(tensor)
            assert str(value.dtype) == info.dtype
            assert value.nbytes == info.nbytes
            parts = list(checkpoint.parts(tensor))
            assert all(part.dtype == value.dtype and part.size <= max(300, info.shape[-1]) for part in parts)
            assert np.concatenate(parts).tobytes() == value.tobytes(), tensor
            error = np.abs(value.astype(np.float32) - original[tensor]).max() / np.abs(original[tensor]).max()
            assert error < 2.0 ** (1 - bits), tensor
        dtype = {"F16": "float16", "BF16": "bfloat16"}.get(name, "float32")
        assert checkpoint.tensors["model.layers.0.self_attn.q_proj.weight"].dtype == dtype


def reference_q4_k(block):
    """One block of 256 values by ggml's definition of Q4_K: eight parts with scales and minima of six bits each."""
    d, dmin = (float(x) for x in np.frombuffer(block[:4], np.float16))
    packed, quants = block[4:16], block[16:]
    result = []
    for part in range(8):
        if part < 4:
            scale, minimum = packed[part] & 63, packed[part + 4] & 63
        else:
            scale = (packed[part + 4] & 15) | (packed[part - 4] >> 6) << 4
            minimum = (packed[part + 4] >> 4) | (packed[part] >> 6) << 4
        for byte in quants[part // 2 * 32 : part // 2 * 32 + 32]:
            result.append(d * scale * (byte >> 4 * (part % 2) & 15) - dmin * minimum)
    return result


def test_k_quants_by_blocks(tmp_path):
    random = np.random.default_rng(7)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    raw = {}
    for kind in (gguf.GGMLQuantizationType[name] for name in ("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K")):
        size = gguf.GGML_QUANT_SIZES[kind][1]
        # Small random halves everywhere: every byte pattern is a valid block as long as its scales are finite.
        data = random.integers(0, 60, (6000, 2 * size), np.uint8)
        raw[kind.name] = data
        writer.add_tensor(kind.name, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    for name, data in raw.items():
        assert file.tensors[name].shape == (6000, 512)
        value = file.read(name)
        assert np.isfinite(value).all()
        assert np.array_equal(value, gguf.dequantize(data, gguf.GGMLQuantizationType[name]))
    wanted = reference_q4_k(bytes(raw["Q4_K"][5999, 144:]))
    assert np.allclose(file.read("Q4_K")[5999, 256:], wanted, rtol=1e-5)
    file.close()


def test_every_type_that_gguf_dequantizes(tmp_path):
    """Random blocks of each; whatever their bytes say, even a scale of infinity, is what gguf's own reader makes of it."""
    random = np.random.default_rng(11)
    path = tmp_path / "model.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    raw = {}
    for kind in gguf.quants._type_traits:
        elements, size = gguf.GGML_QUANT_SIZES[kind]
        raw[kind.name] = random.integers(0, 256, (300, 512 // elements * size), np.uint8)
        writer.add_tensor(kind.name, raw[kind.name], raw_dtype=kind)
    plain = {name: random.standard_normal((3, 5)).astype(name) for name in ("float64", "float32", "float16")}
    for name, value in plain.items():
        writer.add_tensor(name, value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    file = GgufFile(path)
    assert set(raw) == {kind.name for kind in BLOCK_TYPES.values()} - {"F64", "F32", "F16"}
    with np.errstate(all="ignore"):
        for name, data in raw.items():
            wanted = gguf.dequantize(data, gguf.GGMLQuantizationType[name])
            assert file.tensors[name].shape == (300, 512) == wanted.shape
            assert np.array_equal(file.read(name).astype(np.float32), wanted, equal_nan=True), name
    for name, value in plain.items():
        assert file.read(name).dtype == value.dtype
        assert np.array_equal(file.read(name), value)
    file.close()


def test_block_sizes_are_those_of_ggml():
    for number, kind in BLOCK_TYPES.items():
        official = gguf.GGMLQuantizationType(number)
        assert official.name == kind.name
        assert gguf.GGML_QUANT_SIZES[official] == (kind.elements, kind.nbytes)


@pytest.mark.parametrize("variant", ["llama", "llama3", "mistral", "qwen3"])
def test_the_tokenizer_is_that_of_the_original(tmp_path, variant):
    make_gguf(tmp_path / "model.gguf", variant)
    metadata = read_metadata(tmp_path)
    ours = Tokenizer.from_str(metadata.tokenizer_file("tokenizer.json").decode())
    original = Tokenizer.from_file(str(cached_checkpoint(variant) / "tokenizer.json"))
    assert ours.get_vocab_size() == original.get_vocab_size()
    for text in TEXTS:
        ids = original.encode(text).ids
        assert ours.encode(text).ids == ids
        assert ours.decode(ids, skip_special_tokens=False) == original.decode(ids, skip_special_tokens=False)
    config = json.loads(metadata.tokenizer_file("tokenizer_config.json"))
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<s>", "</s>", "<pad>")
    assert "<|im_start|>" in config["chat_template"]


@pytest.mark.parametrize(
    ("options", "keys"),
    [
        ({}, {}),
        ({"user_defined_symbols": ["<mask>", "foo"], "control_symbols": ["[INST]"]}, {}),
        ({"add_dummy_prefix": False}, {"tokenizer.ggml.add_space_prefix": False}),
        ({"byte_fallback": False}, {}),
    ],
)
def test_a_sentencepiece_tokenizer_is_the_models(options, keys):
    import sentencepiece

    data = sentencepiece_model(**options)
    model = read_sentencepiece(data)
    metadata = {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": model.texts,
        "tokenizer.ggml.scores": model.scores,
        "tokenizer.ggml.token_type": array("i", list(model.types)),
        "tokenizer.ggml.bos_token_id": model.bos_id,
        "tokenizer.ggml.add_bos_token": False,
    }
    ours = Tokenizer.from_str(make_tokenizer_files(metadata | keys, Path("model.gguf"))["tokenizer.json"].decode())
    library = sentencepiece.SentencePieceProcessor(model_proto=data)
    known = {token.content: number for number, token in ours.get_added_tokens_decoder().items()}
    for text in (*HARD_TEXTS, *around(known), *(piece.replace("\u2581", " ") for piece in model.texts)):
        parts = [[known[part]] if at % 2 else library.encode(part) for at, part in enumerate(cut_at(text, known))]
        assert ours.encode(text).ids == list(chain.from_iterable(parts))


CUT = "Sam's 12345 cafe\u0301 \n\n\n  x don'T 日本語 ½²"


@pytest.mark.parametrize(
    ("variant", "oracle"),
    [("qwen2", "Qwen2Tokenizer"), ("qwen3", "Qwen2Tokenizer"), ("gpt_neox", "GPTNeoXTokenizer"), ("llama3", None)],
)
@pytest.mark.parametrize("change", ["absent", "empty"])
def test_without_a_pre_tokenizer_text_is_cut_as_the_architecture_does_it(tmp_path, variant, oracle, change):
    """The oracle is the class of transformers, or for Llama 3, which has none, the file that names the pre-tokenizer."""
    import transformers

    def without(values, tensors):
        if change == "absent":
            values.pop("tokenizer.ggml.pre")
        else:
            values["tokenizer.ggml.pre"] = ("", [TEXT])

    notes = []
    made = read_metadata(rebuilt(tmp_path, without, variant), note=notes.append).tokenizer_file("tokenizer.json")
    assert notes == [
        "the GGUF file does not say how its tokenizer cuts text (tokenizer.ggml.pre); "
        f"it is cut as models of architecture {variant.removesuffix('3') if oracle is None else variant.replace('_', '')} "
        f"do it ({ {'qwen2': 'qwen2', 'qwen3': 'qwen2', 'gpt_neox': 'olmo', 'llama3': 'llama-bpe'}[variant]!r})"
    ]
    if oracle is None:
        named = rebuilt(tmp_path / "named", put("tokenizer.ggml.pre", "llama-bpe", TEXT), variant)
        assert made == read_metadata(named, note=notes.append).tokenizer_file("tokenizer.json")
        assert len(notes) == 1
        return
    model = json.loads(made)["model"]
    wanted = getattr(transformers, oracle)(vocab=model["vocab"], merges=[tuple(pair) for pair in model["merges"]])
    ours = Tokenizer.from_str(made.decode())
    cut = [piece for piece, _ in ours.pre_tokenizer.pre_tokenize_str(ours.normalizer.normalize_str(CUT))]
    backend = wanted.backend_tokenizer
    assert cut == [piece for piece, _ in backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(CUT))]
    assert ours.encode(CUT).ids == wanted.encode(CUT, add_special_tokens=False)


WORDS = "Sam's 12345 aHTTPServer don'T 日本語abc :x!!\n\n y"
PIECES = {
    "gpt-4o": ["Sam's", " ", "123", "45", " a", "HTTPServer", " don'T", " 日本語abc", " :", "x", "!!\n\n", " y"],
    "seed-coder": [
        *(
            "Sam",
            "'s",
            " ",
            "1",
            "2",
            "3",
            "4",
            "5",
            " aHTTPServer",
            " don",
            "'T",
            " 日本語abc",
            " :",
            "x",
            "!!",
            "\n\n",
        ),
        " y",
    ],
    "hunyuan-dense": [
        *("Sam", "'s", " ", "123", "45", " aHTTPServer", " don", "'T", " ", "日本語", "abc", " :", "x", "!!\n\n", " y")
    ],
    "glm4": ["Sam", "'s", " ", "123", "45", " aHTTPServer", " don", "'T", " 日本語abc", " :", "x", "!!\n\n", " y"],
    "exaone4": ["Sam", "'s", " 12345", " aHTTPServer", " don", "'", "T", " 日本語abc", " :", "x", "!!", "\n\n", " y"],
}


@pytest.mark.parametrize("name", PIECES)
def test_text_is_cut_as_the_file_says(tmp_path, name):
    """By the regular expressions that llama.cpp has from the models' own files."""
    made = read_metadata(rebuilt(tmp_path, put("tokenizer.ggml.pre", name, TEXT), "llama3"))
    cutter = Tokenizer.from_str(made.tokenizer_file("tokenizer.json").decode()).pre_tokenizer
    assert [WORDS[start:end] for _, (start, end) in cutter.pre_tokenize_str(WORDS)] == PIECES[name]


@pytest.mark.parametrize(
    ("factor", "high", "original", "theta", "head"),
    [
        (8.0, 4.0, 8192, 500000.0, 128),
        (32.0, 4.0, 8192, 500000.0, 64),
        (8.0, 4.0, 32, 500000.0, 32),
        (4.0, 8.0, 2048, 1e4, 64),
    ],
)
def test_llama3_scaling_is_found_from_its_factors(factor, high, original, theta, head):
    from llmbuild.models.gguf.rope import llama3_scaling
    from llmbuild.models.gguf.values import GgufValues

    scaling = {
        "rope_type": "llama3",
        "factor": factor,
        "low_freq_factor": 1.0,
        "high_freq_factor": high,
        "original_max_position_embeddings": original,
    }
    values = GgufValues("llama", {}, {}, "x.gguf")
    factors = [float(value) for value in llama3_factors(scaling, theta, head)]
    assert llama3_scaling(values, theta, factors) == scaling
    factors[0] = 2.0
    with pytest.raises(InputError, match="rope_freqs"):
        llama3_scaling(values, theta, factors)


def rebuilt(tmp_path, change, variant="llama-gqa"):
    """The variant's file with its metadata changed by `change(dict)`, through gguf's own reader and writer."""
    source = gguf.GGUFReader(make_gguf(tmp_path / "source" / "model.gguf", variant))
    values = {
        key: (field.contents(), field.types) for key, field in source.fields.items() if not key.startswith("GGUF.")
    }
    tensors = {tensor.name: tensor.data for tensor in source.tensors}
    change(values, tensors)
    writer = gguf.GGUFWriter(tmp_path / "model.gguf", values.pop("general.architecture")[0])
    for key, (value, types) in values.items():
        writer.add_key_value(key, value, types[0], sub_type=types[1] if len(types) > 1 else None)
    for name, data in tensors.items():
        writer.add_tensor(name, data)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return tmp_path / "model.gguf"


UINT, TEXT = gguf.GGUFValueType.UINT32, gguf.GGUFValueType.STRING


def put(key, value, kind=UINT):
    return lambda values, tensors: values.update({key: (value, [kind])})


def drop(key):
    return lambda values, tensors: values.pop(key)


WRONG_CONTENT = {
    "architecture": (put("general.architecture", "whale", TEXT), "architecture 'whale' is not supported"),
    "experts": (put("llama.expert_count", 8), "mixture of experts"),
    "no layers": (drop("llama.block_count"), "llama.block_count"),
    "layers are text": (put("llama.block_count", "two", TEXT), "not a possible count"),
    "no heads": (put("llama.attention.head_count", 0), "not a possible count"),
    "no shared heads": (put("llama.attention.head_count_kv", 0), "cannot share 0"),
    "uneven heads": (put("llama.attention.head_count_kv", 3), "cannot share 3"),
    "more heads than values": (put("llama.attention.head_count", 1 << 20), "cannot have"),
    "heads that do not divide": (
        lambda values, tensors: values.update(
            {"llama.attention.head_count": (66, [UINT]), "llama.attention.head_count_kv": (66, [UINT])}
        ),
        "attention heads do not divide",
    ),
    "split": (put("split.count", 3, gguf.GGUFValueType.UINT16), "one part of a split one"),
    "no embedding": (lambda values, tensors: tensors.pop("token_embd.weight"), "no embedding"),
    "foreign tensor": (
        lambda values, tensors: tensors.update({"blk.0.ffn_gate_inp.weight": np.zeros((2, 2), np.float32)}),
        "'blk.0.ffn_gate_inp.weight' is not one of",
    ),
    "scaling is a number": (put("llama.rope.scaling.type", 5), "not a name"),
}


@pytest.mark.parametrize("case", WRONG_CONTENT)
def test_wrong_content_is_explained(tmp_path, case):
    change, message = WRONG_CONTENT[case]
    with pytest.raises(InputError) as caught:
        open_checkpoint(rebuilt(tmp_path, change))
    assert message in str(caught.value)


WRONG_TOKENIZER = {
    "none": (drop("tokenizer.ggml.model"), "no tokenizer"),
    "kind": (put("tokenizer.ggml.model", "bert", TEXT), "kind 'bert'"),
    "pre": (put("tokenizer.ggml.pre", "smolm", TEXT), "did you mean 'smollm'"),
    "bos outside": (put("tokenizer.ggml.bos_token_id", 5000), "5000 is not a token's number"),
    "no merges": (drop("tokenizer.ggml.merges"), "missing"),
    "bad merge": (
        lambda values, tensors: values["tokenizer.ggml.merges"][0].append("a zebra"),
        "'a zebra' does not join",
    ),
    "twice": (
        lambda values, tensors: values["tokenizer.ggml.tokens"][0].__setitem__(9, "<pad>"),
        "two tokens are the same",
    ),
    "types": (lambda values, tensors: values["tokenizer.ggml.token_type"][0].pop(), "not one for each"),
}


@pytest.mark.parametrize("case", WRONG_TOKENIZER)
def test_wrong_tokenizers_are_explained(tmp_path, case):
    change, message = WRONG_TOKENIZER[case]
    with pytest.raises(InputError) as caught:
        read_metadata(rebuilt(tmp_path, change, "llama3"))
    assert message in str(caught.value)


def header(*, magic=b"GGUF", version=3, tensors=0, pairs=0, rest=b""):
    return magic + struct.pack("<IQQ", version, tensors, pairs) + rest


def text(value):
    return struct.pack("<Q", len(value)) + value


def tensor(name=b"a", dims=(32,), kind=0, offset=0):
    return text(name) + struct.pack(f"<I{len(dims)}QIQ", len(dims), *dims, kind, offset)


def pair(key=b"k", kind=4, value=b"\1\0\0\0"):
    return text(key) + struct.pack("<I", kind) + value


BROKEN = {
    "empty": (b"", "truncated"),
    "magic": (header(magic=b"GGML"), "not a GGUF file"),
    "version 1": (header(version=1), "version 1 is not supported"),
    "big-endian": (header(version=3 << 24), "big-endian"),
    "absurd tensors": (header(tensors=1 << 60), "counts are absurd"),
    "absurd pairs": (header(pairs=1 << 63), "counts are absurd"),
    "absurd key": (header(pairs=1, rest=struct.pack("<Q", 1 << 60) + bytes(64)), "has a name of"),
    "absurd array": (header(pairs=1, rest=pair(kind=9, value=struct.pack("<IQ", 4, 1 << 50))), "counts are absurd"),
    "long array": (header(pairs=1, rest=pair(kind=9, value=struct.pack("<IQ", 4, 1 << 20))), "truncated"),
    "long text array": (header(pairs=1, rest=pair(kind=9, value=struct.pack("<IQ", 8, 1 << 20))), "truncated"),
    "array of arrays": (header(pairs=1, rest=pair(kind=9, value=struct.pack("<IQ", 9, 1))), "elements of type 9"),
    "unknown type": (header(pairs=1, rest=pair(kind=77)), "unknown type 77"),
    "key twice": (header(pairs=2, rest=pair() + pair()), "'k' comes twice"),
    "not text": (header(pairs=1, rest=pair(key=b"\xff")), "not UTF-8"),
    "tensor twice": (header(tensors=2, rest=tensor() + tensor() + bytes(512)), "'a' comes twice"),
    "no dimensions": (header(tensors=1, rest=tensor(dims=()) + bytes(64)), "0 dimensions"),
    "many dimensions": (header(tensors=1, rest=tensor(dims=(1,) * 9) + bytes(64)), "9 dimensions"),
    "overflowing shape": (header(tensors=1, rest=tensor(dims=(1 << 40, 1 << 40)) + bytes(64)), "absurd"),
    "empty shape": (header(tensors=1, rest=tensor(dims=(0,)) + bytes(64)), "absurd"),
    "known but not supported": (
        header(tensors=1, rest=tensor(kind=9) + bytes(64)),
        "type Q8_1, which is not supported",
    ),
    "unknown tensor type": (header(tensors=1, rest=tensor(kind=999) + bytes(64)), "type 999, which is not supported"),
    "half a block": (header(tensors=1, rest=tensor(dims=(48,), kind=8) + bytes(64)), "not whole blocks of 32"),
    "data missing": (header(tensors=1, rest=tensor(dims=(1 << 20,)) + bytes(64)), "truncated"),
    "unaligned": (header(tensors=1, rest=tensor(offset=4) + bytes(512)), "unaligned"),
    "overlap": (header(tensors=2, rest=tensor() + tensor(b"b", offset=64) + bytes(512)), "overlaps"),
    "alignment": (
        header(pairs=1, rest=pair(b"general.alignment", value=struct.pack("<I", 3))),
        "general.alignment is 3",
    ),
}


@pytest.mark.parametrize("case", BROKEN)
def test_broken_files_are_explained_quickly(tmp_path, case):
    data, message = BROKEN[case]
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    begin = time.monotonic()
    with pytest.raises(InputError) as caught:
        GgufFile(path)
    assert message in str(caught.value)
    assert time.monotonic() - begin < 1


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return make_gguf(tmp_path_factory.mktemp("gguf") / "model.gguf", "llama-gqa").read_bytes()


def test_cuts_are_input_errors(tmp_path, small):
    path = tmp_path / "model.gguf"
    for length in [*range(0, 400), *range(400, len(small), 4999), len(small) - 1]:
        path.write_bytes(small[:length])
        with pytest.raises(InputError):
            open_checkpoint(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(position=st.integers(0, 15_000), values=st.binary(min_size=1, max_size=8))
def test_altered_headers_never_crash(tmp_path, small, position, values):
    data = bytearray(small)
    data[position : position + len(values)] = values
    path = tmp_path / "model.gguf"
    path.write_bytes(data)
    with contextlib.suppress(InputError), open_checkpoint(path) as checkpoint:
        for name in checkpoint.tensors:
            checkpoint.read(name)
    with contextlib.suppress(InputError):
        read_metadata(path)


def test_several_files_need_a_choice(tmp_path):
    (tmp_path / "a.gguf").write_bytes(b"GGUF")
    (tmp_path / "b.gguf").write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"2 GGUF files[^!]*a\.gguf, b\.gguf"):
        open_checkpoint(tmp_path)


METADATA: dict[str, Any] = {
    "general.architecture": "llama",
    "general.sampling.temp": 0.5,
    "llama.embedding_length": 64,
    "llama.attention.head_count": 4,
    "llama.attention.head_count_kv": array("I", [2, 2]),
    "llama.attention.sliding_window": 16,
    "llama.feed_forward_length": 128,
    "llama.block_count": 2,
    "llama.context_length": 64,
    "llama.attention.layer_norm_rms_epsilon": 1e-5,
    "llama.rope.freq_base": 10000.0,
    "llama.rope.scaling.type": "linear",
    "llama.rope.scaling.factor": 2.0,
    "split.count": 1,
    "tokenizer.chat_template": "x",
    "tokenizer.ggml.model": "llama",
    "tokenizer.ggml.tokens": ["<s>", "a", "b", "ab"],
    "tokenizer.ggml.scores": array("f", [0, 0, 0, -1]),
    "tokenizer.ggml.token_type": array("i", [3, 1, 1, 1]),
    "tokenizer.ggml.bos_token_id": 0,
    "tokenizer.ggml.add_bos_token": True,
}
BYTE_LEVEL = {
    "tokenizer.ggml.model": "gpt2",
    "tokenizer.ggml.pre": "llama-bpe",
    "tokenizer.ggml.merges": ["a b"],
}
WRONG: tuple[Any, ...] = (
    *(True, 0, -1, 1 << 63, 0.5, 1e300, 1e-300, math.nan, math.inf, "", "x", [], ["x"], ["a", "b", "c", "d"]),
    *(array("B", [1, 0]), array("i", [-1, 7, 7, 7]), array("f", [math.nan] * 4), array("d"), array("d", [1e300] * 4)),
)
EMBEDDING = {"token_embd.weight": TensorInfo.of("token_embd.weight", (4, 64), "float32")}


@pytest.mark.parametrize("base", [METADATA, METADATA | BYTE_LEVEL])
def test_any_value_of_any_key_is_taken_or_refused(base: dict[str, Any], tmp_path: Path) -> None:
    for key in base:
        left = {name: value for name, value in base.items() if name != key}
        for metadata in (left, *(base | {key: value} for value in WRONG)):
            with contextlib.suppress(LlmbuildError):
                make_config(metadata, EMBEDDING, {}, tmp_path)
            with contextlib.suppress(LlmbuildError):
                make_generation_config(metadata)
                for content in make_tokenizer_files(metadata, tmp_path).values():
                    assert json.loads(content)


@pytest.mark.parametrize("kind", ["linear", "yarn"])
def test_rope_factors_beside_another_scaling_are_refused(kind: str) -> None:
    theta, head = 5e5, 64
    scaling = {
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8192,
    }
    factors = [float(value) for value in llama3_factors(scaling, theta, head)]
    metadata = METADATA | {"llama.rope.freq_base": theta, "llama.rope.scaling.factor": 1.0}
    one = make_config(
        metadata | {"llama.rope.scaling.type": "linear"}, EMBEDDING, {"rope_freqs.weight": factors}, Path("x.gguf")
    )
    assert one["rope_scaling"]["rope_type"] == "llama3"
    with pytest.raises(InputError, match=r"metadata cannot be used") as caught:
        two = {"llama.rope.scaling.type": kind, "llama.rope.scaling.factor": 4.0}
        make_config(metadata | two, EMBEDDING, {"rope_freqs.weight": factors}, Path("x.gguf"))
    assert caught.value.why == f"it is '{kind}', and the file has rope_freqs beside it"


@pytest.mark.parametrize(
    ("scaling", "expected"),
    [
        ({"scaling.type": "none", "scaling.factor": 4.0}, None),
        ({"scaling.type": "linear", "scaling.factor": 0.0}, None),
        ({"scaling.factor": 0.0, "scale_linear": 4.0}, None),
        ({"scale_linear": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scaling.factor": 4.0}, {"rope_type": "linear", "factor": 4.0}),
        ({"scaling.type": "linear", "scaling.yarn_ext_factor": 1.0, "scaling.factor": 1.0}, None),
    ],
)
def test_a_factor_of_rope_counts_as_in_llama_cpp(scaling: dict[str, Any], expected: Any) -> None:
    """A kind that is not named is linear, "none" scales never, and a factor of 0 is none."""
    plain = {key: value for key, value in METADATA.items() if not key.startswith("llama.rope.")}
    metadata = plain | {f"llama.rope.{key}": value for key, value in scaling.items()}
    assert make_config(metadata, EMBEDDING, {}, Path("x.gguf")).get("rope_scaling") == expected


@settings(max_examples=300, deadline=None)
@given(st.lists(st.floats(allow_nan=True), min_size=1, max_size=8), st.sampled_from([1e-9, 1.0, 1 + 2e-16, 1e4, 1e300]))
def test_any_rope_factors_are_taken_or_refused(factors: list[float], theta: float) -> None:
    with contextlib.suppress(LlmbuildError):
        metadata = METADATA | {"llama.rope.freq_base": theta}
        json.dumps(make_config(metadata, EMBEDDING, {"rope_freqs.weight": factors}, Path("x.gguf")), allow_nan=False)
