"""Kernels for CPUs as TVMScript."""
