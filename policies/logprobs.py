"""Log-probabilities of chosen tokens without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil

import torch
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_NH: torch.Tensor,
    target_N: torch.Tensor,
    temperature_N: torch.Tensor,
    *,
    chunk: int,
    entropy: bool = False,
    most: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target, float32 of shape [N], and the ``entropy`` of its
    distribution: the same, or of shape [0] where nobody asks, as it costs about as much again.

    Logits (float32, divided by the temperature, as the engine's ``processed_logprobs``) exist for
    ``chunk`` tokens at a time and are computed again in the backward pass. Entropy carries no
    gradient.

    Under ZeRO every call of the head is a collective, its backward pass, too. So there are as many
    chunks as the rank with the ``most`` tokens has, the last ones empty, and never none at all.
    """
    chunks = max(1, ceil(max(most, len(target_N)) / chunk))
    starts = range(0, chunks * chunk, chunk)
    scaled = bool((temperature_N != 1).any())
    parts = [
        checkpoint(
            _chunk,
            head,
            *(x[start : start + chunk] for x in (hidden_NH, target_N, temperature_N)),
            scaled=scaled,
            entropy=entropy,
            use_reentrant=False,
        )
        for start in starts
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies)


def _chunk(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden: torch.Tensor,
    target: torch.Tensor,
    temperature: torch.Tensor,
    *,
    scaled: bool,
    entropy: bool,
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float()
    if scaled:
        logits = logits.div_(temperature[:, None])
    table = logits.log_softmax(-1)
    logprobs = table.gather(-1, target[:, None])[:, 0]
    if not entropy:
        return logprobs, table.new_empty(0)
    # After all that the backward pass needs: it is not computed again there.
    with torch.no_grad():
        return logprobs, -torch.einsum("nv,nv->n", table.exp(), table)
