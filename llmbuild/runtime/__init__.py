"""Load a library and its weights, keep the KV cache, sample, chat: what verify and chat use."""
