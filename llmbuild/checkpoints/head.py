"""The pair of embedding and head, as a checkpoint's tensors have it.

They may be one tensor that is stored under either name, two tensors, or two of which the configuration says that they are one.
"""

from __future__ import annotations

from itertools import zip_longest

from llmbuild.checkpoints.tensor import Checkpoint
from llmbuild.checkpoints.view import RenamedCheckpoint
from llmbuild.errors import InputError

HEAD_IN_MEMORY = "lm_head.weight"
"""What transformers 5 calls every head in memory; a state dict that was saved as it is has it in the file too."""


def with_known_pair(base: Checkpoint, embedding: str, head: str, *, tied: bool) -> Checkpoint:
    """`base` with its head under the name `head`, and with its embedding under `embedding` where only the head is stored.

    `tied` is what the configuration says of them.  Raises InputError for two heads that differ.
    """
    tensors = base.tensors
    names: dict[str, str] = {}
    hidden: set[str] = set()
    if head != HEAD_IN_MEMORY and HEAD_IN_MEMORY in tensors:
        if head not in tensors:
            names[head] = HEAD_IN_MEMORY
        elif same_values(base, head, HEAD_IN_MEMORY):
            hidden.add(HEAD_IN_MEMORY)
        else:
            raise InputError(
                f"the checkpoint has two heads that differ, '{head}' and '{HEAD_IN_MEMORY}'",
                where=base.location(HEAD_IN_MEMORY),
                why="both names are those of the layer that computes the logits",
                fix="remove the tensor that is not the model's",
            )
    stored = names.get(head, head)
    if tied and embedding not in tensors and stored in tensors:
        # safetensors' save_model writes a shared tensor once, under either of its names.
        names = {embedding: stored}
    if not names and not hidden:
        return base
    meant = {stored: name for name, stored in names.items()}
    return RenamedCheckpoint(base, {meant.get(name, name): name for name in tensors if name not in hidden})


def same_values(checkpoint: Checkpoint, one: str, other: str) -> bool:
    """Whether two tensors have the same shape and values, whatever their number types.  Reads no more than it needs."""
    import numpy as np

    if checkpoint.tensors[one].shape != checkpoint.tensors[other].shape:
        return False
    return all(
        left is not None and right is not None and np.array_equal(left.astype(np.float64), right.astype(np.float64))
        for left, right in zip_longest(checkpoint.parts(one), checkpoint.parts(other))
    )
