"""The prefix of a system library's symbols, from a template: `{model_type}_{quantization}_` becomes `gpt_neox_q4f16_1_`.

The rule is MLC's: what is not part of a C identifier becomes an underscore.
"""

from __future__ import annotations

import re

MODEL_TYPE = "{model_type}"
"""The placeholder that is known for sure only when the chat configuration was made."""


def fill(template: str, **values: str | None) -> str:
    """The template with those placeholders replaced that have a value; others stay."""
    for name, value in values.items():
        if value is not None:
            template = template.replace(f"{{{name}}}", re.sub(r"[^A-Za-z0-9_]", "_", value))
    return template
