"""Targets as data: one TOML file a target, device kind x host triple x artifact kind.

`files` reads and merges the files, `target` is what comes of them, `compile_part` what code generation reads of it; `kinds`
holds what is known of each device kind, a file a kind; `cpu` finds out this machine's CPU, and `spoken` knows the words that
other tools use for the same targets.

docs/manifest.md describes the keys for users.
"""
