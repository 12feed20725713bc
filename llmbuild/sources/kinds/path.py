"""A directory with a checkpoint, written as its path.

spec: {"path"}, as it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from llmbuild.canonical import Digest, Json
from llmbuild.sources import local
from llmbuild.sources.copying import Progress
from llmbuild.sources.kind import Context, Keep, Observation, Source, SourceError
from llmbuild.sources.kinds import source_kind
from llmbuild.sources.select import output_name


class Directory(local.LocalKind):
    """The needed files of a directory."""

    name: ClassVar[str] = "path"
    schemes: ClassVar[tuple[str, ...]] = ("",)
    form: ClassVar[str] = "a directory"
    adapter: ClassVar[str] = "a directory with adapter_config.json"

    def parse(self, text: str, revision: str | None, sha256: str | None) -> Source:
        path = PurePosixPath(text)
        if path.suffix.lower() == ".gguf":
            return source_kind("gguf").parse(text, revision, sha256)
        if path.name == "config.json":
            # The second form of CONFIG in mlc_llm: the directory is what is meant.
            return Source(self.name, {"path": str(path.parent)})
        if path.suffix.lower() in (".safetensors", ".bin", ".pt", ".pth"):
            raise SourceError("is one file of a checkpoint", fix=f"name the directory: '{path.parent}'")
        return Source(self.name, {"path": text})

    def observe(self, spec: Mapping[str, str], context: Context) -> Observation:
        path = local.place(context.root, spec)
        pin = context.lock.get(self.lock_key(spec, context.source_format))
        files, unread = local.observe_directory(path, context.source_format, context.statcache, pin)
        first = next(iter(files))
        if first.lower().endswith(".gguf"):
            # A directory with nothing but a GGUF file (or its parts) is that file, whatever its name.
            found = {output_name(name): digest for name, digest in files.items()}
            return Observation({"source": {"kind": "gguf"}, "files": found}, {"path": str(path / first)})
        hints: dict[str, Json] = {"path": str(path)} if unread is None else {"path": str(path), "unread": unread}
        return Observation({"source": {"kind": self.name}, "files": files}, hints)

    def size(self, params: Mapping[str, Any], hints: Mapping[str, Any]) -> int:
        return sum((Path(hints["path"]) / name).stat().st_size for name in params["files"])

    def copy(
        self, path: Path, files: Mapping[str, Digest], out: Path, progress: Progress, keep: Keep | None = None
    ) -> None:
        local.copy_files(
            {path / name: (output_name(name), digest) for name, digest in files.items()}, out, progress, keep
        )

    def configuration(self, spec: Mapping[str, str], root: Path) -> Path | None:
        place = local.place(root, spec)
        return place if place.suffix == ".json" else place / "config.json"


KIND = Directory()
