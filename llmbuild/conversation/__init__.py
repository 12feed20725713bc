"""Conversation templates and tokenizer facts, which a runtime requires for a conversation with a model."""
