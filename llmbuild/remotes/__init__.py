"""Other caches than the store: a file for each kind of place."""
