"""Conversation templates and tokenizer facts: what a runtime needs to talk to a model."""
