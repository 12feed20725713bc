"""docs/webllm-models.md: WebLLM's list against the families and presets."""

from __future__ import annotations

import shutil

import pytest

from llmbuild.quantization.scheme import SCHEMES
from tests.helpers.browser import web_llm
from tests.helpers.webllm_models import PAGE, RECORDS, counts, models, packaged, page


def test_the_page_lists_them_all() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()


def test_nearly_every_text_model_has_a_preset() -> None:
    found, every = counts()
    assert found >= 0.95 * every


def test_every_scheme_of_the_list_is_there() -> None:
    assert {scheme for model in models() for scheme in model.schemes} <= set(SCHEMES)


@pytest.mark.skipif(shutil.which("node") is None or web_llm() is None, reason="needs Node.js and WebLLM")
def test_the_list_is_that_of_the_package() -> None:
    assert RECORDS.read_text(encoding="utf-8") == packaged()
