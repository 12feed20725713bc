"""Architectures as data and parts.  Importable without TVM: configurations, parameter lists, mappings."""
