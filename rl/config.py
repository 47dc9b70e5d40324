"""What the training loop itself may be told; other components own their own models."""

from __future__ import annotations

from pydantic import Field

from palestra.rl.settings import Settings


class ObjectiveConfig(Settings):
    """K2.5's token-level clipped objective (report section 4.4.2, Eq. 1)."""

    alpha: float = Field(default=0.5, gt=0, lt=1)
    """Lower bound of the probability ratio for a policy gradient; our default (unpublished)."""
    beta: float = Field(default=2.0, gt=1)
    """Upper bound of the probability ratio; our default (unpublished)."""
    tau: float = Field(default=0.01, ge=0)
    """Weight of the squared log-ratio; our default (unpublished)."""
    mask_reg: bool = False
    """Also drop the squared log-ratio outside [alpha, beta]; False is the formula as printed."""


class PtxConfig(Settings):
    """Auxiliary supervised loss (K2 report section 3.2.3); values are our defaults."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the supervised loss; 0 leaves the gradient bit-identical to no PTX at all."""
    samples_per_step: int = Field(default=16, ge=0)
    """Supervised samples mixed into each optimizer step."""


class BudgetConfig(Settings):
    """Budget control (K2 report section 3.2.3): generated tokens per episode, by task kind."""

    default: int = Field(default=256, ge=1)
    """Tokens for kinds that `by_kind` does not name."""
    by_kind: dict[str, int] = {}
    """Tokens by task kind, e.g. `{repair = 96}`."""
    penalty: float = Field(default=0.0, ge=0)
    """Taken off the reward of an episode that ran over; our default (unpublished)."""


class EvalConfig(Settings):
    """Evaluation on held-out splits: before, after and every `freq` steps."""

    splits: list[str] = ["heldout_mutations", "heldout_functions"]
    """Which splits are evaluated."""
    freq: int = Field(default=0, ge=0)
    """Evaluate the first split every so many steps; 0 means only before and after."""
    limit: int = Field(default=200, ge=1)
    """Tasks per split."""
    samples: int = Field(default=1, ge=1)
    """Episodes per task."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of every evaluation; fixed over the run."""


class RLConfig(Settings):
    """The loop: how much is sampled and learned per step."""

    steps: int = Field(default=40, ge=0)
    """Optimizer steps; 0 stops after the supervised stage."""
    train_batch_size: int = Field(default=16, ge=1)
    """Tasks per step."""
    n_samples_per_prompt: int = Field(default=8, ge=2)
    """Episodes per task (the group size)."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of training episodes."""
    norm_adv_by_std: bool = False
    """Divide advantages by the group's standard deviation (GRPO); K2.5 does not."""
    max_infra_failures: float = Field(default=0.2, ge=0, le=1)
    """A step with a larger share of infrastructure failures stops the run instead of learning."""
    save_freq: int = Field(default=1, ge=1)
    """Checkpoint every so many steps; a resume replays later steps from the journal."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept; the last one is always kept."""
    mismatch_limit: float = Field(default=1e-3, gt=0)
    """Mean |engine - learner| log-probability on the probe above which the run stops."""
    objective: ObjectiveConfig = ObjectiveConfig()
    ptx: PtxConfig = PtxConfig()
    budget: BudgetConfig = BudgetConfig()
    eval: EvalConfig = EvalConfig()
