"""The product without a command line: a manifest with its store, what is there, what is to do, and doing it."""
