"""A target of the user's own: it builds like one that comes with llmbuild, and an edit of it runs what depends on it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.checkpoints import cached_checkpoint
from tests.helpers.cli import TINY_MANIFEST, make_project

BASE = '[target]\nextends = "x86_64-linux-cpu"\n'


def test_an_edit_of_a_target_file_runs_what_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    project = make_project(
        tmp_path, TINY_MANIFEST.replace('["x86_64-linux-cpu"]', '["mine"]'), cached_checkpoint("llama")
    )
    targets = project.root / "targets"
    targets.mkdir()
    (targets / "_base.toml").write_text(BASE)
    mine = targets / "mine.toml"
    mine.write_text('[target]\nextends = "_base"\n')
    assert project.build() == {"fetch": 1, "inspect": 1, "quantize": 1, "config": 1, "lower": 1, "link": 1}
    assert project.build() == {}

    # What only people read.
    mine.write_text('[target]\nextends = "_base"\ndescription = "the machines in the cellar"\n')
    assert project.build() == {}

    # What the linker reads, in the file that is extended.
    (targets / "_base.toml").write_text(BASE + '[link]\nflags = ["-Wl,--gc-sections"]\n')
    refused = project.run("build")
    assert refused.code == 2 and "not trusted: the flags -Wl,--gc-sections" in refused.err
    assert project.run("trust").code == 0
    why = project.run("why", "link[tiny, q4f32_1, mine]")
    assert "--gc-sections" in why.text
    assert project.build() == {"link": 1}

    # Taken back, it is a cache hit.
    (targets / "_base.toml").write_text(BASE)
    assert project.build() == {}

    # What cannot be is said with its place, and nothing runs.
    mine.write_text('[target]\nextends = "_base"\n[device]\nkind = "cuda"\narchs = ["sm_99"]\n')
    refused = project.run("build")
    assert refused.code == 2
    said = " ".join(refused.err.split())
    assert "targets/mine.toml:5: device.archs: unknown cuda architecture 'sm_99'" in said
    assert "did you mean 'sm_90'" in said
