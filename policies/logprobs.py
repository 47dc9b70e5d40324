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
    most: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of its distribution, both float32 of shape [N].

    Logits (float32, divided by the temperature, as the engine's ``processed_logprobs``) exist for
    ``chunk`` tokens at a time and are computed again in the backward pass. Entropy carries no
    gradient.

    Under ZeRO every call of the head is a collective, its backward pass, too. So there are as many
    chunks as the rank with the ``most`` tokens has, the last ones empty, and never none at all.
    """
    chunks = max(1, ceil(max(most, len(target_N)) / chunk))
    starts = range(0, chunks * chunk, chunk)
    parts = [
        checkpoint(
            _chunk,
            head,
            *(x[start : start + chunk] for x in (hidden_NH, target_N, temperature_N)),
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
) -> tuple[torch.Tensor, torch.Tensor]:
    logits = head(hidden).float().div_(temperature[:, None])
    normaliser = logits.logsumexp(-1)
    chosen = logits.gather(-1, target[:, None])[:, 0]
    with torch.no_grad():
        probabilities = (logits - normaliser[:, None]).exp_()
        entropy = normaliser - torch.einsum("nv,nv->n", probabilities, logits)
    return chosen - normaliser, entropy
