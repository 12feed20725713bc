"""Deciding: a manifest, a lock and traces become tasks, reasons and estimates.  Pure: no disk, clock or network."""
