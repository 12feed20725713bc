from __future__ import annotations

from tests.helpers.engine_fixtures import kinds, project, store

__all__ = ["kinds", "project", "store"]
