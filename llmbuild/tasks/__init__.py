"""The task kinds: fetch, inspect, quantize, config, lower, link.  Each declares what its result depends on and does the work."""
