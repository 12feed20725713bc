"""Quantization schemes: their definition, the packing of weights, and the layers over packed weights."""
