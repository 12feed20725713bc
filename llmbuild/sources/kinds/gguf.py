"""One GGUF file, written as its path; of a split one any part.

spec: {"path"}, as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from llmbuild.canonical import Digest
from llmbuild.checkpoints.weight_files import gguf_parts
from llmbuild.sources import local
from llmbuild.sources.copying import Progress
from llmbuild.sources.kind import Context, Keep, Observation, Source
from llmbuild.sources.select import output_name


class GgufFile(local.LocalKind):
    """A file with weights, configuration and tokenizer.  Texts without a scheme come here by way of `path`."""

    name: ClassVar[str] = "gguf"
    form: ClassVar[str] = "a .gguf file"

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        return Source(self.name, {"path": text})

    def observe(self, spec: Mapping[str, str], context: Context) -> Observation:
        path = local.place(context.root, spec)
        files = local.observe_gguf(path, context.statcache)
        return Observation({"source": {"kind": self.name}, "files": files}, {"path": str(path)})

    def size(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> int:
        path = Path(hints["path"])
        return sum((path.parent / name).stat().st_size for name in gguf_parts(path.name))

    def written(self, spec: Mapping[str, str], file: str = "") -> str:
        return spec["path"]

    def copy(
        self, path: Path, files: Mapping[str, Digest], out: Path, progress: Progress, keep: Keep | None = None
    ) -> None:
        parts = {output_name(name): path.parent / name for name in gguf_parts(path.name)}
        local.copy_files({parts.get(name, path): (name, digest) for name, digest in files.items()}, out, progress, keep)


KIND = GgufFile()
