"""The objectives by name, with their own settings; what is not published is our default."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeAlias

from pydantic import Discriminator, Field, Tag

from palestra.rl.settings import Settings

AdvEstimator: TypeAlias = Literal[
    "mean", "leave_one_out", "log_z", "reinforce_plus_plus", "reinforce_plus_plus_baseline", "none"
]
LossAggMode: TypeAlias = Literal[
    "token-mean",
    "seq-mean-token-sum",
    "seq-mean-token-mean",
    "seq-mean-token-sum-norm",
    "prompt-mean-token-mean",
    "prompt-mean-seq-mean",
]
KlType: TypeAlias = Literal["k1", "k2", "k3"]
CorrectionName: TypeAlias = Literal["tis", "mis", "icepop"]
Level: TypeAlias = Literal["token", "sequence"]
OldLogprobs: TypeAlias = Literal["engine", "learner"]
OnMismatch: TypeAlias = Literal["stop", "skip"]


class K25Config(Settings):
    """K2.5's token-level clipped objective (report section 4.4.2, Eq. 1)."""

    name: Literal["k25"] = "k25"
    """Which objective."""
    alpha: float = Field(default=0.5, gt=0, lt=1)
    """Lower bound of the probability ratio for a policy gradient; our default (unpublished)."""
    beta: float = Field(default=2.0, gt=1)
    """Upper bound of the probability ratio; our default (unpublished)."""
    tau: float = Field(default=0.01, ge=0)
    """Weight of the squared log-ratio; our default (unpublished)."""
    mask_reg: bool = False
    """Also drop the squared log-ratio outside [alpha, beta]; False is the formula as printed."""


class K15Config(Settings):
    """K1.5's online policy mirror descent (report section 2.3.2)."""

    name: Literal["k15"] = "k15"
    """Which objective."""
    tau: float = Field(default=0.1, gt=0)
    """Weight of the sequence's log-ratio against its reward; our default (unpublished)."""
    reset_optimizer: bool = True
    """Forget the optimizer's moments before each step, as published."""


class K2Config(Settings):
    """K2's squared regression (report section 3.2.3)."""

    name: Literal["k2"] = "k2"
    """Which objective."""
    tau: float = Field(default=0.1, gt=0)
    """Weight of the sequence's log-ratio against its reward; our default (unpublished)."""
    reset_optimizer: bool = False
    """Forget the optimizer's moments before each step; K2's report does not repeat it."""


class PpoClipConfig(Settings):
    """PPO's clipped surrogate without a critic: PPO, GRPO, Dr. GRPO and REINFORCE++."""

    name: Literal["ppo_clip", "grpo", "dr_grpo", "reinforce_plus_plus"]
    """Which objective: they differ in advantages and loss aggregation."""
    clip_ratio_low: float = Field(default=0.2, gt=0, le=1)
    """The ratio is clipped below 1 - this."""
    clip_ratio_high: float = Field(default=0.2, gt=0)
    """The ratio is clipped above 1 + this."""
    clip_ratio_c: float | None = Field(default=None, gt=1)
    """Largest ratio that a negative advantage is multiplied with (dual clip); none by default."""


class DapoConfig(Settings):
    """DAPO: PPO's clipped surrogate with a higher upper bound, averaged over tokens."""

    name: Literal["dapo"] = "dapo"
    """Which objective."""
    clip_ratio_low: float = Field(default=0.2, gt=0, le=1)
    """The ratio is clipped below 1 - this."""
    clip_ratio_high: float = Field(default=0.28, gt=0)
    """The ratio is clipped above 1 + this."""
    clip_ratio_c: float | None = Field(default=None, gt=1)
    """Largest ratio that a negative advantage is multiplied with (dual clip); none by default."""


class RlooConfig(Settings):
    """RLOO: plain policy gradient with a leave-one-out baseline."""

    name: Literal["rloo"] = "rloo"
    """Which objective."""


class GspoConfig(Settings):
    """GSPO: the clipped surrogate with one ratio per sequence."""

    name: Literal["gspo"] = "gspo"
    """Which objective."""
    clip_ratio_low: float = Field(default=3e-4, gt=0, le=1)
    """The sequence's mean ratio is clipped below 1 - this."""
    clip_ratio_high: float = Field(default=4e-4, gt=0)
    """The sequence's mean ratio is clipped above 1 + this."""


class CispoConfig(Settings):
    """CISPO: plain policy gradient weighted by the clipped ratio."""

    name: Literal["cispo"] = "cispo"
    """Which objective."""
    clip_ratio_low: float = Field(default=1.0, gt=0, le=1)
    """The weight is clipped below 1 - this; 1 is no lower bound, as published."""
    clip_ratio_high: float = Field(default=4.0, gt=0)
    """The weight is clipped above 1 + this; our default (unpublished)."""


class PluginConfig(Settings):
    """An objective of an installed package (entry point of the group `palestra.objectives`)."""

    name: Literal["plugin"] = "plugin"
    """Which objective."""
    plugin: str
    """Name of the entry point."""
    settings: dict[str, float | bool | str] = {}
    """What the entry point is called with."""


def _name(given: Any) -> Any:
    """The name in a table or a model; a table without one means K2.5's."""
    if isinstance(given, dict):
        return given.get("name", "k25")
    return getattr(given, "name", None)


ObjectiveConfig: TypeAlias = Annotated[
    Annotated[K25Config, Tag("k25")]
    | Annotated[K15Config, Tag("k15")]
    | Annotated[K2Config, Tag("k2")]
    | Annotated[PpoClipConfig, Tag("ppo_clip")]
    | Annotated[PpoClipConfig, Tag("grpo")]
    | Annotated[PpoClipConfig, Tag("dr_grpo")]
    | Annotated[PpoClipConfig, Tag("reinforce_plus_plus")]
    | Annotated[DapoConfig, Tag("dapo")]
    | Annotated[RlooConfig, Tag("rloo")]
    | Annotated[GspoConfig, Tag("gspo")]
    | Annotated[CispoConfig, Tag("cispo")]
    | Annotated[PluginConfig, Tag("plugin")],
    Discriminator(
        _name,
        custom_error_type="objective",
        custom_error_message="Input should be a table whose name is k25, k15, k2, ppo_clip, grpo, "
        "dr_grpo, reinforce_plus_plus, dapo, rloo, gspo, cispo or plugin",
    ),
]
"""What `rl.objective` may be; `name` chooses."""
