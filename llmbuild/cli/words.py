"""The commands and options of other tools, and what they are here: mlc_llm, uv, cargo, buildx."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping

from llmbuild.errors import did_you_mean

_MLC = ("compile", "convert_weight", "convert-weight", "gen_config", "gen-config")

_COMMANDS: Mapping[str, str] = {
    "new": "init",
    "create": "init",
    "make": "build",
    "bake": "build",
    "sync": "build",
    "install": "build",
    "download": "build",
    "fetch": "build",
    "pull": "build",
    "quantize": "build",
    "convert": "build",
    "export": "build",
    "update": "lock --upgrade",
    "upgrade": "lock --upgrade",
    "status": "plan",
    "graph": "plan --format dot",
    "tree": "plan",
    "list": "plan",
    "ls": "plan",
    "platforms": "targets",
    "devices": "targets",
    "test": "verify",
    "check": "verify",
    "ask": "chat",
    "generate": "chat",
    "run": "chat",
    "server": "serve",
    "bundle": "package",
    "push": "publish",
    "upload": "publish",
    "gc": "cache gc",
    "prune": "cache gc",
    "version": "--version",
}

_OPTIONS: Mapping[str, str] = {
    "--device": "--platform",
    "--target": "--platform",
    "--targets": "--platform",
    "--quant": "--quantization",
    "--quantize": "--quantization",
    "--manifest": "--file",
    "--manifest-path": "--file",
    "--config": "--file",
    "--workers": "--jobs",
    "--parallel": "--jobs",
    "--rebuild": "--force",
    "--no-cache": "--force",
    "--frozen": "--locked",
    "--no-network": "--offline",
}


def instead_of_command(name: str, commands: Collection[str]) -> str:
    """What to type in the place of a command that does not exist."""
    word = name.lower()
    if word in _MLC:
        return f"`llmbuild build` does what {name} does in mlc_llm; docs/mlc-options.md has each of its options"
    meant = _COMMANDS.get(word)
    if meant is not None and (meant.startswith("-") or meant.split()[0] in commands):
        return f"`llmbuild {meant}` is what does that here"
    return did_you_mean(name, commands) or "`llmbuild --help` lists the commands"


def instead_of_option(message: str, options: Iterable[str]) -> str | None:
    """What to type in the place of an option that argparse does not know; None where its message is about something else."""
    said, colon, rest = message.partition("unrecognized arguments: ")
    wrong = next((word.partition("=")[0] for word in rest.split() if word.startswith("-")), None)
    if said or not colon or wrong is None:
        return None
    known = [option for option in options if option.startswith("--")]
    meant = _OPTIONS.get(wrong.lower())
    return f"did you mean '{meant}'?" if meant in known else did_you_mean(wrong, known)
