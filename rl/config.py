"""What the training loop itself may be told; other components own their own models."""

from __future__ import annotations

from typing import Literal, TypeAlias

from pydantic import Field, model_validator

from palestra.rl.objectives.config import (
    AdvEstimator,
    CorrectionName,
    K25Config,
    KlType,
    Level,
    LossAggMode,
    ObjectiveConfig,
    OldLogprobs,
    OnMismatch,
)
from palestra.rl.settings import Settings

HackingSign: TypeAlias = Literal[
    "heldout_fall", "visible_only_frac", "special_cased_frac", "test_edits_frac", "length_ratio"
]


class KlConfig(Settings):
    """KL divergence from a frozen reference: the policy that RL started from."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the penalty; 0 makes no reference at all."""
    where: Literal["loss", "reward"] = "loss"
    """Add it to the loss, or take it off the reward of each token before advantages."""
    type: KlType | None = None
    """Estimator per token; by default k3 in the loss and k1, which is unbiased there, in the
    reward."""

    @property
    def estimator(self) -> KlType:
        """The estimator that was chosen, or the default of the place."""
        return self.type or ("k1" if self.where == "reward" else "k3")

    @property
    def in_reward(self) -> bool:
        """Does the reward hold a penalty?"""
        return self.coef > 0 and self.where == "reward"

    @property
    def in_loss(self) -> bool:
        """Does the loss hold a penalty?"""
        return self.coef > 0 and self.where == "loss"


class MismatchConfig(Settings):
    """What to do where the engine samples from another distribution than the learner computes."""

    correction: CorrectionName | None = None
    """Weigh tokens by learner / engine: truncated (`tis`), or masked above `high` (`mis`) or
    outside [low, high] (`icepop`); needs `rl.old_logprobs = "learner"`."""
    level: Level = "token"
    """One ratio per token, or one per sequence."""
    low: float = Field(default=0.5, gt=0, le=1)
    """Smallest ratio that `icepop` keeps; published."""
    high: float = Field(default=2.0, ge=1)
    """Largest ratio that is kept whole; our default (IcePop publishes 5)."""
    limit: float = Field(default=0.1, ge=0)
    """Largest mean KL (k3) between the recorded and the learner's log-probabilities, of the first
    mini-batch or, where the update would be skipped, of all; 0: none. Our default."""
    on_limit: OnMismatch = "stop"
    """Stop the run above the limit, or skip the update at the price of one more forward pass."""
    kept_episodes: int = Field(default=0, ge=0)
    """Episodes of each step whose learner / engine ratio is kept token by token, for the dashboard;
    each costs the learner one more forward pass."""


class PtxConfig(Settings):
    """Auxiliary supervised loss (K2 report section 3.2.3); values are our defaults."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the supervised loss; 0 leaves the gradient bit-identical to no PTX at all."""
    samples_per_step: int = Field(default=16, ge=0)
    """Supervised samples mixed into each optimizer step."""
    demonstrations: float = Field(default=1.0, ge=0)
    """Weight of the environment's own demonstrations; a source's share is its weight over all."""
    files: dict[str, float] = {}
    """Weight by file of chats or texts (`.jsonl`, `.jsonl.gz`, `.json`, `.parquet`), e.g.
    `{"data/chats.jsonl" = 0.5}`."""


class BudgetConfig(Settings):
    """Budget control (K2 report section 3.2.3): generated tokens per episode, by task kind."""

    default: int = Field(default=256, ge=1)
    """Tokens for kinds that `by_kind` does not name."""
    by_kind: dict[str, int] = {}
    """Tokens by task kind, e.g. `{repair = 96}`."""
    penalty: float = Field(default=0.0, ge=0)
    """Taken off the reward of an episode that ran over; our default (unpublished)."""
    penalty_mode: Literal["add", "replace"] = "add"
    """`add`: the penalty is taken off the reward; `replace`: the reward of such an episode is minus
    the penalty, whatever it has solved. The paper does not say which."""


class ToggleConfig(Settings):
    """Toggle (K2.5 report section 4.4.2, Eq. 2): phases with and without a budget per problem. The
    values of m, rho and lambda are our defaults (unpublished)."""

    enable: bool = False
    """Alternate the phases; the first one is limited."""
    period: int = Field(default=5, ge=1)
    """Steps per phase (m)."""
    percentile: float = Field(default=50.0, ge=0, le=100)
    """A problem's budget is this percentile of the lengths of its correct episodes (rho)."""
    min_accuracy: float = Field(default=0.5, ge=0, le=1)
    """Groups with a smaller share of correct episodes are not limited (lambda)."""


class LengthPenaltyConfig(Settings):
    """K1.5's length penalty (report section 2.3.3)."""

    coef: float = Field(default=0.0, ge=0)
    """Weight of the length reward; our default (unpublished)."""
    warmup_steps: int = Field(default=0, ge=0)
    """Steps without it; from then on the weight is constant. Our default (unpublished)."""


class OverlongConfig(Settings):
    """DAPO's soft overlong punishment (arXiv 2503.14476, Eq. 13)."""

    buffer_len: int = Field(default=0, ge=0)
    """Last tokens of the budget, in which the punishment grows from 0 to its full size; 0 is off.
    """
    penalty_factor: float = Field(default=1.0, ge=0)
    """The full size."""


class TemperatureDecayConfig(Settings):
    """Sampling temperature by step (K2 report section 3.2.3); the shapes are ours."""

    shape: Literal["constant", "linear", "cosine", "exponential", "points"] = "constant"
    """How `rl.temperature` goes to `final`; `points` goes through `points` instead."""
    final: float = Field(default=1.0, gt=0)
    """Temperature of step `steps` and all later ones."""
    steps: int = Field(default=40, ge=1)
    """The step that samples at `final`; step 1 samples at `rl.temperature`."""
    points: list[tuple[int, float]] = []
    """`[step, temperature]` pairs by rising step; straight lines between them."""

    @model_validator(mode="after")
    def _points_are_a_schedule(self) -> TemperatureDecayConfig:
        steps = [step for step, _ in self.points]
        if self.shape == "points" and not steps:
            raise ValueError("points need at least one [step, temperature]")
        if steps != sorted(set(steps)) or any(value <= 0 for _, value in self.points):
            raise ValueError("points need rising steps and temperatures above 0")
        return self


class SamplingConfig(Settings):
    """Which tasks a step plays (K1.5 report sections 2.1, 2.3.4 and 3.5), and whether more follow
    for groups that teach nothing."""

    order: Literal["uniform", "easy_to_hard", "prioritized"] = "uniform"
    """`uniform`: shuffled epochs; `easy_to_hard`: epochs from the highest pass rate of the
    estimation pass to the lowest; `prioritized`: drawn with probability proportional to one minus
    the task's success rate so far."""
    hard_from_step: int = Field(default=0, ge=0)
    """From this step on only hard tasks are drawn (K1.5's ablation: 24); 0 is never."""
    hard_below: float = Field(default=0.5, gt=0, le=1)
    """A task is hard when its pass rate in the estimation pass is below this; our default."""
    estimate_samples: int = Field(default=0, ge=0)
    """Episodes of every training task before step 1 (K1.5: 10); 0 is no estimation pass."""
    min_pass_rate: float = Field(default=0.0, ge=0, le=1)
    """Tasks that the estimation pass solved less often are not trained on; our default."""
    max_pass_rate: float = Field(default=1.0, ge=0, le=1)
    """Tasks that it solved more often are not trained on; our default."""
    guesses: int = Field(default=0, ge=0)
    """Guesses per training task before step 1 (K1.5: 8); a task that one of them solves is not
    trained on. 0 is off."""
    guess_tokens: int = Field(default=64, ge=1)
    """Tokens of a guess, which is one reply; our default."""
    max_gen_batches: int = Field(default=1, ge=1)
    """Up to so many batches of tasks are played until `rl.train_batch_size` groups have rewards
    that differ (DAPO's dynamic sampling); 1 is off."""

    @model_validator(mode="after")
    def _pass_rates_are_known(self) -> SamplingConfig:
        bounds = (self.min_pass_rate, self.max_pass_rate) != (0.0, 1.0)
        if (self.order == "easy_to_hard" or self.hard_from_step or bounds) and (
            not self.estimate_samples
        ):
            raise ValueError("pass rates are wanted: set estimate_samples, for example to 10")
        if self.min_pass_rate > self.max_pass_rate:
            raise ValueError("min_pass_rate is above max_pass_rate")
        return self


class CriticConfig(Settings):
    """The closed loop (K2 report section 3.2.2): the policy's judgement is trained on pairs of
    episodes, one verified right and one wrong. The report publishes none of these values."""

    freq: int = Field(default=0, ge=0)
    """Train it every so many steps; 0 is off."""
    loss: Literal["preference", "rl"] = "preference"
    """`preference`: Bradley-Terry on the log-probabilities of both verdicts; `rl`: it replies, and
    the right verdict is worth 1, every other reply 0."""
    pairs: int = Field(default=8, ge=1)
    """Pairs to learn from at most; each is shown in both orders."""
    window: int = Field(default=1, ge=1)
    """Steps, this one included, whose episodes make pairs."""
    coef: float = Field(default=0.1, ge=0)
    """Weight of the preference loss."""
    beta: float = Field(default=1.0, gt=0)
    """Steepness of the preference loss."""
    anchor: float = Field(default=1.0, ge=0)
    """Weight, within it, of the right verdict's own mean log-likelihood, which keeps verdicts in
    the form that is asked for."""
    samples: int = Field(default=4, ge=2)
    """Replies to each question with `rl`."""
    heldout: float = Field(default=0.2, ge=0, lt=1)
    """Share of the tasks whose pairs are never trained on: they measure `critic/accuracy`."""
    heldout_pairs: int = Field(default=8, ge=1)
    """Pairs that measure it at most."""
    max_tokens: int = Field(default=512, ge=1)
    """Tokens of a reply."""
    temperature: float = Field(default=1.0, gt=0)
    """Sampling temperature of replies."""
    criteria: tuple[str, ...] = ("verified",)
    """Files of rubrics that it is asked by: names of ours, or paths that end in `.toml`."""
    max_response_chars: int = Field(default=6000, ge=200)
    """Characters shown of each response, and of the task; of more, the beginning and the end."""
    min_accuracy: float = Field(default=0.0, ge=0, le=1)
    """Below it the rewards of the policy's own opinions are switched off, until it is measured
    above; 0 is never."""


class HackingConfig(Settings):
    """Signs of reward hacking: always measured as `hacking/NAME`, by rules of ours."""

    stop_above: dict[HackingSign, float] = {}
    """Largest value by sign, e.g. `{special_cased_frac = 0.1}`, above which the run ends before it
    learns from the step; a sign that is not named ends nothing. May be changed to go on."""


class EvalConfig(Settings):
    """Evaluation on held-out splits: before, after and every `freq` steps."""

    splits: list[str] = ["heldout_mutations", "heldout_functions", "heldout"]
    """Which splits are evaluated, those of them that the tasks have: the first two are those of
    repair tasks, the third that of the other environments."""
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
    """Sampling temperature of training episodes; `rl.temperature_decay` may change it by step."""
    adv_estimator: AdvEstimator | None = None
    """Advantages from the rewards of a group; by default as the objective publishes."""
    norm_adv_by_std: bool | None = None
    """Divide advantages by the group's standard deviation; by default as the objective publishes
    (GRPO does, K2.5 does not)."""
    zero_variance_filter: bool | None = None
    """Leave out groups whose rewards are all equal; by default where they teach nothing."""
    loss_agg_mode: LossAggMode | None = None
    """How losses of tokens become one number; by default as the objective publishes."""
    loss_scale_factor: int = Field(default=256, ge=1)
    """Tokens that `seq-mean-token-sum-norm` divides each sequence by; our default."""
    mini_batches: int = Field(default=1, ge=1)
    """Optimizer updates per step; the groups of the step are dealt to them."""
    old_logprobs: OldLogprobs = "engine"
    """pi_old: as the engine recorded it, or computed by the learner before the first update."""
    max_infra_failures: float = Field(default=0.2, ge=0, le=1)
    """A step with a larger share of infrastructure failures stops the run instead of learning."""
    save_freq: int = Field(default=1, ge=1)
    """Checkpoint every so many steps; a resume replays later steps from the journal."""
    keep_checkpoints: int = Field(default=2, ge=1)
    """Checkpoints kept; the last one is always kept."""
    mismatch_limit: float = Field(default=1e-3, gt=0)
    """Mean |engine - learner| log-probability on the probe above which the run stops."""
    objective: ObjectiveConfig = K25Config()
    kl: KlConfig = KlConfig()
    mismatch: MismatchConfig = MismatchConfig()
    ptx: PtxConfig = PtxConfig()
    budget: BudgetConfig = BudgetConfig()
    toggle: ToggleConfig = ToggleConfig()
    length_penalty: LengthPenaltyConfig = LengthPenaltyConfig()
    overlong: OverlongConfig = OverlongConfig()
    temperature_decay: TemperatureDecayConfig = TemperatureDecayConfig()
    sampling: SamplingConfig = SamplingConfig()
    hacking: HackingConfig = HackingConfig()
    critic: CriticConfig = CriticConfig()
    eval: EvalConfig = EvalConfig()

    @model_validator(mode="after")
    def _group_deviations_need_siblings(self) -> RLConfig:
        named = self.objective.name == "reinforce_plus_plus"
        estimator = self.adv_estimator or ("reinforce_plus_plus" if named else "mean")
        if self.norm_adv_by_std and estimator.startswith(("none", "reinforce")):
            raise ValueError(f'norm_adv_by_std has no use for adv_estimator = "{estimator}"')
        return self

    @model_validator(mode="after")
    def _rewards_with_kl_are_never_equal(self) -> RLConfig:
        if self.kl.in_reward and self.zero_variance_filter:
            raise ValueError(
                'zero_variance_filter finds no equal rewards with kl.where = "reward": '
                'leave it out, or set kl.where = "loss"'
            )
        return self

    @model_validator(mode="after")
    def _corrections_need_a_ratio(self) -> RLConfig:
        if self.mismatch.correction and self.old_logprobs == "engine":
            raise ValueError(
                'mismatch.correction needs old_logprobs = "learner": '
                "with the engine's the objective's own ratio holds the mismatch"
            )
        return self
