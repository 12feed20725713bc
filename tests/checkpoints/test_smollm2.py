"""The real small model: its GGUF file, read by llmbuild, talks sense in transformers."""

import json

import pytest
from tokenizers import Tokenizer

from llmbuild.models.open import open_checkpoint, read_metadata
from tests.helpers.smollm2 import smollm2_gguf

pytestmark = pytest.mark.slow


def test_the_tokenizer_knows_special_tokens_digits_and_unicode():
    metadata = read_metadata(smollm2_gguf())
    tokenizer = Tokenizer.from_str(metadata.tokenizer_file("tokenizer.json").decode())
    assert tokenizer.get_vocab_size() == 49152
    assert tokenizer.encode("<|im_start|>user\n").ids[:1] == [1]
    assert tokenizer.encode("a<|im_end|>").ids[-1:] == [2]
    assert len(tokenizer.encode("12345").ids) == 5
    for text in (
        "It's 3.14 — don't!",
        "x = [1, 20, 300];\n\n\tif y:  z",
        "wörld 日本語 🙂🇫🇷 ﬁ",
        " leading and trailing ",
    ):
        assert tokenizer.decode(tokenizer.encode(text).ids, skip_special_tokens=False) == text
    config = json.loads(metadata.tokenizer_file("tokenizer_config.json"))
    assert config["eos_token"] == "<|im_end|>"
    assert "<|im_start|>" in config["chat_template"]


def test_it_names_the_capital_of_france(tmp_path):
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    for name, content in read_metadata(smollm2_gguf()).tokenizer_files.items():
        (tmp_path / name).write_bytes(content)
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    with open_checkpoint(smollm2_gguf()) as checkpoint:
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**checkpoint.config))
        model = model.to_empty(device="cpu").float().eval()
        # Buffers of a model made on the meta device have no content yet; the rotary embedding is made anew.
        model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
        missing, unexpected = model.load_state_dict(
            {name: torch.from_numpy(checkpoint.read(name)) for name in checkpoint.tensors}, strict=False
        )
    assert (missing, unexpected) == (["lm_head.weight"], [])
    model.tie_weights()
    messages = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        output = model.generate(ids, max_new_tokens=16, do_sample=False)
    assert tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True) == "The capital of France is Paris."
