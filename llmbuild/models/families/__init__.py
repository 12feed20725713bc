"""The families, one a file: `registry` finds them by their files' names."""
