"""Code generation for devices where TVM has none: compilers, the formats of their output, and the callbacks of TVM."""
