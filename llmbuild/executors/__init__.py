"""Where actions run: local processes today, other executors as adapters."""
