"""GPU kernels that are written by hand, for every device kind: see `block` for the features that they may use."""
