"""Who judges, how often, and what it may cost."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from palestra.rl.settings import Settings


class EndpointConfig(Settings):
    """An OpenAI-compatible server: another engine (`vllm serve`) or somebody's service."""

    base_url: str = ""
    """Its address, `/v1` included: `http://localhost:8000/v1`."""
    model: str = ""
    """The model to ask there."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key; empty: the server needs none. The key
    itself is never stored."""
    timeout: float = Field(default=120.0, gt=0)
    """Seconds that one reply may take."""
    retries: int = Field(default=4, ge=0)
    """How often a request is sent again after a refused connection, a time-out, or status 408,
    409, 429 or 5xx; with growing pauses, or those that the server asks for."""


class JudgeConfig(Settings):
    """The judge of rubric rewards."""

    kind: Literal["policy", "endpoint"] = "policy"
    """`policy`: the policy that is trained, with its current weights. `endpoint`: the server of
    `endpoint`."""
    endpoint: EndpointConfig = EndpointConfig()
    temperature: float = Field(default=0.7, ge=0)
    """Temperature of the judge's replies; above 0, so that asking again may help."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens per reply of the judge."""
    tries: int = Field(default=3, ge=1)
    """How often a judge is asked the same, with another seed, until it gives a verdict."""
    max_in_flight: int = Field(default=32, ge=1)
    """Questions asked at once."""
    calls_per_step: int = Field(default=0, ge=0)
    """Replies that one step may ask for; what comes later has no rubric reward. 0: no limit."""
    tokens_per_step: int = Field(default=0, ge=0)
    """Tokens, read and written, after which a step asks no more; what is being asked still ends.
    0: no limit."""


class PairwiseConfig(Settings):
    """The pairwise critic: which rubrics, how much is shown, who meets whom."""

    criteria: tuple[str, ...] = ("core", "prescriptive")
    """Files of rubrics: names of ours, or paths that end in `.toml`."""
    max_response_chars: int = Field(default=6000, ge=200)
    """Characters shown of each response, and of the task; of more, the beginning and the end."""
    all_pairs_up_to: int = Field(default=8, ge=2)
    """Largest group in which every response meets every other."""
    opponents: int = Field(default=6, ge=2, multiple_of=2)
    """How many others each response meets in larger groups."""
    repeats: int = Field(default=1, ge=1)
    """How often every pair is compared, each time in both orders."""
