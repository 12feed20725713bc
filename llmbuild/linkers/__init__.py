"""Objects become artifacts: shared libraries and deterministic archives."""
