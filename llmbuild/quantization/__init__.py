"""Quantization schemes: what they are, how weights are packed, and the layers that hold packed weights."""
