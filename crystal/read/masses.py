"""Probabilities of a next token, summed over ranges of a vocabulary: in one pass over the logits, in their own precision.

The exponentials of a row are taken once, in the order of the vocabulary's ranks. Sums are kept within blocks of BLOCK tokens in
the logits' precision, and over the blocks in float64: a range's sum is right to some 1e-7 of its blocks, and no row is ever
held in float64.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

BLOCK = 256  # tokens
ROWS = 2**22  # logits that are worked on at a time on a CPU: more would leave its cache


@dataclass(frozen=True)
class Asked:
    """What is asked of the next token of n nodes; entries are ordered by node."""

    node: np.ndarray  # (m,) ranges low .. high of ranks, none empty
    low: np.ndarray
    high: np.ndarray
    alive: np.ndarray  # (a,) nodes, and single ranks
    rank: np.ndarray

    def among(self, low: int, high: int) -> Asked:
        """What is asked of the nodes low .. high, counted from there."""
        a, b = np.searchsorted(self.node, (low, high))
        c, d = np.searchsorted(self.alive, (low, high))
        return Asked(self.node[a:b] - low, self.low[a:b], self.high[a:b], self.alive[c:d] - low, self.rank[c:d])


def padded(order: np.ndarray) -> np.ndarray:
    """rank -> id, (V,), filled up to whole blocks with any id."""
    return np.pad(order, (0, -len(order) % BLOCK))


def masses(logits: torch.Tensor, order: torch.Tensor, temperature: float, asked: Asked, there) -> torch.Tensor:
    """Weights of next tokens, the largest of a row being 1: (n + m + a,) float64, on the logits' device.

    All of each node, each range, each single rank. logits: (n, V); order: `padded`; there: puts an array on the device.
    """
    step = len(logits) if logits.is_cuda else max(1, ROWS // logits.shape[1])
    with torch.inference_mode():
        parts = [_masses(logits[low : low + step], order, temperature, asked.among(low, low + step), there)
                 for low in range(0, len(logits), step)]
        return torch.cat([torch.cat(column) for column in zip(*parts, strict=True)])


def _masses(logits: torch.Tensor, order: torch.Tensor, temperature: float, asked: Asked, there) -> tuple[torch.Tensor, ...]:
    weight, width = logits.index_select(1, order), len(order)
    weight -= weight.amax(-1, keepdim=True)
    (weight if temperature == 1 else weight.div_(temperature)).exp_()
    weight[:, logits.shape[1] :] = 0
    alive = weight.flatten().index_select(0, there(asked.alive * width + asked.rank)).double()
    inside = weight.unflatten(1, (-1, BLOCK)).cumsum_(-1)
    blocks = torch.nn.functional.pad(inside[..., -1].double().cumsum(-1), (1, 0))
    inside, count = inside.flatten(), blocks.shape[1]

    def below(rank: np.ndarray) -> torch.Tensor:
        """Of all ranks below these, each of which is 1 or more."""
        before = blocks.flatten().index_select(0, there(asked.node * count + (rank - 1) // BLOCK))
        return before.add_(inside.index_select(0, there(asked.node * width + rank - 1)))

    first = there(np.where(asked.low > 0, 1.0, 0.0))
    return blocks[:, -1], below(asked.high) - below(np.maximum(asked.low, 1)) * first, alive
