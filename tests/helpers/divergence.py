"""What quantized weights lose: the divergence of the next token's distribution, by transformers' model with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.checkpoints import reference_model
from tests.helpers.trained import calibration_text, held_out_text, tokens_of

WINDOW = 256


class Judge:
    """A checkpoint in float32, its distributions over a text, and the second moments of its inputs over another."""

    def __init__(self, directory: Path, tokens: int = 8192, calibration: int = 16384, text: str | None = None) -> None:
        """The moments are of so many tokens of `text`, by default a part of what the small model was trained on."""
        import torch

        self.model = reference_model(directory)
        self._windows = _windows(tokens_of(directory, held_out_text())[:tokens])
        self.layers: Mapping[str, Any] = {
            name: module for name, module in self.model.named_modules() if isinstance(module, torch.nn.Linear)
        }
        self.weights = {name: module.weight.detach().numpy().copy() for name, module in self.layers.items()}
        self._reference = self._logs()
        self.moments = self._moments(_windows(tokens_of(directory, text or calibration_text())[:calibration]))

    def divergence(self, change: Callable[[str, np.ndarray], np.ndarray]) -> float:
        """Mean KL a token, in nats, where each linear layer's weight is what `change` makes of its name and value."""
        import torch

        try:
            for name, module in self.layers.items():
                module.weight.data.copy_(torch.from_numpy(change(name, self.weights[name])))
            logs = self._logs()
        finally:
            for name, module in self.layers.items():
                module.weight.data.copy_(torch.from_numpy(self.weights[name]))
        return float((self._reference.exp() * (self._reference - logs)).sum(-1).mean())

    def _logs(self) -> Any:
        import torch

        with torch.no_grad():
            parts = [torch.log_softmax(self.model(rows).logits, -1) for rows in self._windows.split(8)]
        return torch.cat(parts)

    def _moments(self, windows: Any) -> dict[str, np.ndarray]:
        import torch

        found: dict[str, Any] = {}

        def add(name: str, x: Any) -> None:
            rows = x.reshape(-1, x.shape[-1]).double()
            found[name] = found.get(name, 0) + rows.T @ rows

        hooks = [
            module.register_forward_pre_hook(lambda _, x, name=name: add(name, x[0]))
            for name, module in self.layers.items()
        ]
        with torch.no_grad():
            for rows in windows.split(8):
                self.model(rows)
        for hook in hooks:
            hook.remove()
        return {name: (each / windows.numel()).float().numpy() for name, each in found.items()}


def _windows(ids: list[int]) -> Any:
    import torch

    return torch.tensor(ids[: len(ids) // WINDOW * WINDOW]).view(-1, WINDOW)
