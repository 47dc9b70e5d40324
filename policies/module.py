"""A Hugging Face causal LM that gives log-probabilities of chosen tokens."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from palestra.policies import attention
from palestra.policies.config import LearnerConfig
from palestra.policies.logprobs import token_logprobs
from palestra.policies.packing import MicroBatch


class PolicyModule(nn.Module):
    """A causal LM that returns log-probabilities of chosen tokens instead of logits."""

    def __init__(self, model: Any, chunk: int) -> None:
        super().__init__()
        self.model = model
        self.chunk = chunk
        attention.use(model)

    def forward(
        self, micro: MicroBatch, *, entropy: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probability of each token that carries a loss, [N], and its ``entropy`` if asked."""
        hidden = self.model.model(
            input_ids=micro.token_ids,
            position_ids=micro.positions,
            sequences=attention.sequences_of(micro.segments, micro.parents),
            use_cache=False,
        ).last_hidden_state
        return token_logprobs(
            self.model.lm_head,
            hidden.flatten(0, 1)[micro.source],
            micro.target,
            micro.temperature,
            chunk=self.chunk,
            entropy=entropy,
            most=micro.most,
        )


def load_policy(folder: str, config: LearnerConfig) -> PolicyModule:
    """The model of a Hugging Face folder, in the learner's precision."""
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(folder, dtype=getattr(torch, config.dtype))
    model.config.use_cache = False
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
    return PolicyModule(model, config.logprob_chunk)
