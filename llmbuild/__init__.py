"""llmbuild: a declarative, cached, exact build system for LLM libraries."""

__version__ = "0.1.0"
