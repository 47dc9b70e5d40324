"""What episodes are worth; who judges, how often, and what it may cost."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from palestra.rl.settings import Settings

Option: TypeAlias = bool | int | float | str | list[str]


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
    endpoint: EndpointConfig = EndpointConfig()

    @model_validator(mode="after")
    def _an_endpoint_has_an_address(self) -> JudgeConfig:
        if self.kind == "endpoint" and not (self.endpoint.base_url and self.endpoint.model):
            raise ValueError('kind = "endpoint" needs endpoint.base_url and endpoint.model')
        return self


class PairwiseConfig(Settings):
    """The reward `pairwise_critic`: which rubrics, how much is shown, who meets whom."""

    criteria: list[str] = ["core", "prescriptive"]
    """Files of rubrics: names of ours, or paths that end in `.toml`."""
    max_response_chars: int = Field(default=6000, ge=200)
    """Characters shown of each response, and of the task; of more, the beginning and the end."""
    all_pairs_up_to: int = Field(default=8, ge=2)
    """Largest group in which every response meets every other."""
    opponents: int = Field(default=6, ge=2, multiple_of=2)
    """How many others each response meets in larger groups."""
    repeats: int = Field(default=1, ge=1)
    """How often every pair is compared, each time in both orders."""


class RewardEntry(Settings):
    """One part of the reward, under the name of its table."""

    function: str = ""
    """A reward by name (`palestra rewards`), or `module:function` of one of yours; empty: the one
    that the table's name is the name of, in the environment or among all."""
    weight: float = Field(default=1.0, allow_inf_nan=False)
    """What it counts for in the total; 0 only measures it."""
    options: dict[str, Option] = {}
    """What the function is given by keyword."""
    deadline: float | None = Field(default=None, gt=0)
    """Seconds that it may take for an episode; by default `rewards.deadline`."""


class RewardsConfig(Settings):
    """What episodes are worth: the parts of their reward, and how these become one number."""

    environment: bool = True
    """Begin with the parts that the environment names; those of `rewards.use` come behind them, or
    in the place of one with the same name."""
    rule: Literal["weighted", "minimum", "first_failing", "gated"] = "weighted"
    """The total: the sum of the weighted parts, the smallest of them, their sum up to the first
    part below 1, or their sum if every gate is at least 1 and else that of the gates."""
    gates: list[str] = []
    """The parts that `rewards.rule = "gated"` asks for first."""
    deadline: float = Field(default=60.0, gt=0)
    """Seconds that a part may take for an episode; a group of them has as many times as long. Our
    default."""
    workers: int = Field(default=2, ge=1)
    """Processes for each reward that is not ours; they start when they are needed."""
    memory_mb: int = Field(default=4096, ge=256)
    """Address space of such a process in MiB; our default."""
    use: dict[str, RewardEntry] = {}
    """Parts of the reward by name."""
    judge: JudgeConfig = JudgeConfig()
    pairwise: PairwiseConfig = PairwiseConfig()

    @model_validator(mode="after")
    def _gates_are_for_the_gated(self) -> RewardsConfig:
        if bool(self.gates) != (self.rule == "gated"):
            raise ValueError('rewards.gates names parts if and only if rewards.rule is "gated"')
        return self
