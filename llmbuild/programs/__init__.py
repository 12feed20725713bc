"""Compilers and linkers of others that llmbuild calls."""
