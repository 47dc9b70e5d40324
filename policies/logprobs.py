"""Log-probabilities of chosen tokens without ever holding all logits."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.utils.checkpoint import checkpoint


def token_logprobs(
    head: Callable[[torch.Tensor], torch.Tensor],
    hidden_NH: torch.Tensor,
    target_N: torch.Tensor,
    temperature_N: torch.Tensor,
    *,
    chunk: int,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Log-probability of each target and entropy of its distribution, both float32 of shape [N].

    Logits (float32, divided by the temperature, as the engine's ``processed_logprobs``) exist for
    ``chunk`` tokens at a time and are computed again in the backward pass. Entropy carries no
    gradient.
    """
    # Without a token there is one empty chunk: the head takes part in every backward pass, or ZeRO
    # would wait for its gradient from the ranks that have none.
    parts = [
        checkpoint(_chunk, head, hidden, target, temperature, use_reentrant=False)
        for hidden, target, temperature in zip(
            *(torch.split(x, chunk) for x in (hidden_NH, target_N, temperature_N)), strict=True
        )
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
