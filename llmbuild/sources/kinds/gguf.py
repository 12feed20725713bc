"""One GGUF file, written as its path.

spec: {"path"}, as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest
from llmbuild.sources import local
from llmbuild.sources.copying import Progress
from llmbuild.sources.kind import Context, Keep, Observation, Source


class GgufFile(local.LocalKind):
    """A file with weights, configuration and tokenizer.  Texts without a scheme come here by way of `path`."""

    name: ClassVar[str] = "gguf"
    form: ClassVar[str] = "a .gguf file"

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        return Source(self.name, {"path": text})

    def observe(self, spec: Mapping[str, str], context: Context) -> Observation:
        path = (context.root / spec["path"]).absolute()
        files = local.observe_gguf(path, context.statcache)
        return Observation({"source": {"kind": self.name}, "files": files}, {"path": str(path)})

    def size(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> int:
        return Path(hints["path"]).stat().st_size

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        return spec["path"]

    def copy(
        self, path: Path, files: Mapping[str, Digest], out: Path, progress: Progress, keep: Keep | None = None
    ) -> None:
        local.copy_files({path: next(iter(files.items()))}, out, progress, keep)


KIND = GgufFile()
