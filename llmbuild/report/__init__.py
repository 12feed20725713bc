"""Renderers of plans, reasons and events: terminal, JSON, graphs."""
