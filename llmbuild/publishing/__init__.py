"""Destinations of results: hubs and registries."""
