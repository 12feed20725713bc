"""The small trained model: it has learned the text, and the untied one computes the same."""

from __future__ import annotations

import pytest

from tests.helpers.checkpoints import reference_model
from tests.helpers.trained import held_out_text, tokens_of, trained_checkpoint


def test_it_has_learned_and_both_forms_agree() -> None:
    torch = pytest.importorskip("torch")
    tied, untied = (trained_checkpoint(tied=value) for value in (True, False))
    ids = torch.tensor(tokens_of(tied, held_out_text())[:2048]).view(-1, 256)
    with torch.no_grad():
        rows = [torch.log_softmax(reference_model(each)(ids).logits, -1) for each in (tied, untied)]
    loss = -rows[0][:, :-1].gather(-1, ids[:, 1:, None]).mean()
    assert loss.exp() < 200  # Of 1,024 tokens; without training it is about 1,000.
    torch.testing.assert_close(rows[0], rows[1], atol=1e-3, rtol=0)
