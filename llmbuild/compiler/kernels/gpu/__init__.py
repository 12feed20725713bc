"""GPU kernels that are written by hand, for every device kind: see `block` for what they may rely on."""
