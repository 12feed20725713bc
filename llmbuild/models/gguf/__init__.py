"""GGUF files as checkpoints: what a family says of itself there, and how files are read by it."""
