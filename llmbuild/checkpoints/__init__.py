"""Checkpoints as named tensors that are read lazily: safetensors, torch pickles, GGUF, LoRA adapters."""
