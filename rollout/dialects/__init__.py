"""Tool-call formats. Each dialect parses sampled token ids strictly and never repairs them."""

from __future__ import annotations

from palestra.rollout.dialects.base import Dialect, Inexpressible, Malformed
from palestra.rollout.dialects.hermes import Hermes
from palestra.rollout.dialects.qwen3_coder import Qwen3Coder

DIALECTS: dict[str, Dialect] = {"hermes": Hermes(), "qwen3_coder": Qwen3Coder()}

__all__ = ["DIALECTS", "Dialect", "Inexpressible", "Malformed"]
