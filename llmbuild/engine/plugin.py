"""What users name: one of llmbuild's own, or any module that Python can import."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

from llmbuild.errors import UsageError, did_you_mean


def opener(what: str, name: str, own: Mapping[str, str], function: str) -> Callable[[Any], Any]:
    """The function of the module with a name.  `own` are the modules of llmbuild by their names, `what` is an "executor"
    or whatever else the module makes.

    Raises UsageError when there is no such module, it cannot be imported, or it lacks the function.
    """
    module_name = own.get(name, name)
    fix = (
        did_you_mean(name, own)
        or f"llmbuild has {', '.join(own)}; any other name is that of a module that Python can import"
    )
    if not all(part.isidentifier() for part in module_name.split(".")):
        raise UsageError(f"there is no {what} '{name}'", fix=fix)
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        # The module is the user's, and may fail in any way.
        why = f"{type(error).__name__}: {error}"
        raise UsageError(f"there is no {what} '{name}'", why=why, fix=fix) from error
    found: Callable[[Any], Any] | None = getattr(module, function, None)
    if not callable(found):
        why = f"{getattr(module, '__file__', None) or module_name} has no function `{function}`"
        raise UsageError(f"the module {name} is no {what}", why=why, fix="see docs/how-to-add.md")
    return found
