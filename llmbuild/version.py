"""The version of llmbuild."""

__version__ = "0.2.0"
