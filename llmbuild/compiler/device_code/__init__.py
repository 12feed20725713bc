"""What makes code for devices where TVM does not: compilers, the formats of their output, and the callbacks of TVM."""
