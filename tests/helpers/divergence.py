"""What quantized weights lose: the divergence of the next token's distribution, by transformers' model with other weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from llmbuild.quantization.calibrated import CalibratedPacker, Factor
from llmbuild.quantization.scheme import Scheme
from tests.helpers.checkpoints import reference_model
from tests.helpers.trained import calibration_text, held_out_text, tokens_of

WINDOW = 256

Change = Callable[[np.ndarray, np.ndarray, bool], np.ndarray]
"""What a method makes of a weight, with the moments of its inputs and whether it is the head."""


def pack_calibrated(
    weight: np.ndarray, scheme: Scheme, factor: Factor, threads: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """(q_weight, q_scale) of `weight` [N, K], as `pack.pack` has them."""
    packer = CalibratedPacker(scheme, *weight.shape, factor, transposed=scheme.layout == "KN")
    with ThreadPoolExecutor(threads) as pool:
        for future in list(packer.submit(pool, weight)):
            future.result()
    return packer.q_weight, packer.q_scale


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

    def mean_divergence(self, change: Change, orders: int) -> float:
        """The mean of `divergence` over orders of the inputs of every layer, the first of which is the model's own: in one order
        the luck of a few frequent tokens' rows is a tenth of it."""

        def one(seed: int) -> float:
            def in_order(name: str, weight: np.ndarray) -> np.ndarray:
                size = weight.shape[1]
                order = np.random.default_rng(seed).permutation(size) if seed else np.arange(size)
                moments = np.ascontiguousarray(self.moments[name][np.ix_(order, order)])
                found = change(np.ascontiguousarray(weight[:, order]), moments, name == "lm_head")
                return np.ascontiguousarray(found[:, np.argsort(order)])

            return self.divergence(in_order)

        return float(np.mean([one(seed) for seed in range(orders)]))

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
