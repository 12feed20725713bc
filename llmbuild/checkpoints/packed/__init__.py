"""Checkpoints whose weights are quantized already: which method made them, and the weights that their tensors stand for."""
