"""Targets as data: one TOML file a target, device kind x host triple x artifact kind.

`files` reads and merges the files, `target` is the result, `compile_part` the part that code generation reads; `kinds`
describes each device kind, a file a kind; `cpu` detects this machine's CPU, and `spoken` maps the words that other tools use
for the same targets.

docs/manifest.md describes the keys for users.
"""
