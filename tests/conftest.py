"""What a CI job says of itself is no part of a test: under GitHub Actions llmbuild prints workflow commands too."""

from __future__ import annotations

import os

for name in ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY"):
    os.environ.pop(name, None)
