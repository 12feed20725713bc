"""The manifest: TOML to typed values, with every error located; the expanded build matrix; the lock file."""
