"""The recipe for a target in docs/how-to-add.md, followed: one file is dropped in."""

from __future__ import annotations

import re
from pathlib import Path

from llmbuild.targets.files import load_target
from llmbuild.targets.names import target_names

PAGE = Path(__file__).parent.parent.parent / "docs" / "how-to-add.md"


def test_a_target_is_one_file(tmp_path: Path) -> None:
    found = re.search(r"```toml\n# targets/(\w+)\.toml\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found is not None
    (tmp_path / f"{found[1]}.toml").write_text(found[2], encoding="utf-8")
    assert found[1] in target_names(tmp_path)
    part = load_target(found[1], tmp_path).compile_part()
    device = part["device"]
    assert isinstance(device, dict)
    assert (device["kind"], device["arch"], part["archs"]) == ("cuda", "sm_90a", ["sm_90a"])
