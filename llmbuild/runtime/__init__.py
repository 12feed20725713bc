"""Load a library and its weights, manage the KV cache, sample, chat: used by verify and chat."""
