#!/usr/bin/env bash
# peft trains one delta for a tied embedding and head (ensure_weight_tying), and its merge adds that delta to their one tensor twice.
set -euo pipefail
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
python3 -m venv "$place/venv"
"$place/venv/bin/pip" -q install "torch==2.13.0" "transformers==5.24.0" "peft==0.21.2" "numpy==2.3.5"
cat > "$place/check.py" <<'PY'
from importlib.metadata import version

import torch
from peft import LoraConfig, get_peft_model
from transformers import LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
config = LlamaConfig(
    vocab_size=48, hidden_size=32, intermediate_size=48, num_hidden_layers=1, num_attention_heads=2,
    max_position_embeddings=32, tie_word_embeddings=True,
)
model = LlamaForCausalLM(config).eval()
before = model.model.embed_tokens.weight.detach().clone()
lora = LoraConfig(r=4, lora_alpha=4, target_modules=["embed_tokens", "lm_head"], ensure_weight_tying=True)
adapted = get_peft_model(model, lora).eval()
with torch.no_grad():
    for name, value in adapted.named_parameters():
        if "lora_" in name:
            value.normal_(std=0.2)
    embedding = adapted.base_model.model.model.embed_tokens
    delta = embedding.get_delta_weight("default").detach().clone()
    ids = torch.arange(2, 14)[None]
    trained = adapted(ids).logits
    merged = adapted.merge_and_unload()
    found = merged(ids).logits
    weight = merged.model.embed_tokens.weight
    times = float(((weight - before) * delta).sum() / (delta * delta).sum())
    distance = float((found - trained).norm() / trained.norm())
    # What was trained: the one tensor with the delta once.
    weight.copy_(before + delta)
    once = float((merged(ids).logits - trained).norm() / trained.norm())
print("peft", version("peft"), "transformers", version("transformers"), "torch", torch.__version__)
print("expected   the merged model answers as the adapted one does: its tensor has the delta once")
print(f"seen       the tensor has the delta {times:.3f} times, and logits are {distance:.2f} away (relative L2)")
print(f"with the delta once they are {once:.1e} away")
assert once < 1e-4, "the adapted model computes something else now"
assert abs(times - 2) < 1e-3 and distance > 0.05, "peft now merges what was trained"
PY
"$place/venv/bin/python" "$place/check.py"
