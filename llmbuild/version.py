"""The version of llmbuild."""

__version__ = "0.1.0"
