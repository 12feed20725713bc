"""The command line: one file a command; argument parsing and rendering, no logic."""
