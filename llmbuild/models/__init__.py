"""Architectures as data and parts.  What is imported from here without TVM: configurations, parameter lists, mappings."""
