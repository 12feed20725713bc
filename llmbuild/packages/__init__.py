"""Packages: what an application takes of a build, laid out as its runtime asks for it."""
