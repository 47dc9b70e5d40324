"""What the API answers; every text in it may be untrusted. Missing numbers are null."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from palestra.deploy.dashboard.runs import State
from palestra.rl.types import Outcome, Stop


class Answer(BaseModel):
    """Base of all answers."""

    model_config = ConfigDict(
        frozen=True, ser_json_inf_nan="null", use_attribute_docstrings=True, extra="forbid"
    )


class RunLine(Answer):
    """A run in the list of runs."""

    name: str
    state: State
    problem: str
    """What is wrong with the folder; empty when nothing is."""
    step: int | None
    steps: int | None
    """Steps that the configuration asks for."""
    latest: dict[str, float | None]
    """Last values of the metrics shown in the list."""
    rewards: list[float | None]
    """Mean reward by step, decimated."""
    updated: float | None
    """When the last step was finished, in seconds since the epoch."""
    wall_s: float | None


class RunList(Answer):
    """All runs of the folder."""

    folder: str
    runs: list[RunLine]


class RunDetail(Answer):
    """One run: its settings and what there is of it."""

    run: RunLine
    config: str
    """`config.toml` as text."""
    versions: dict[str, str]
    summary: str
    """`summary.json` as text."""
    metrics: list[str]
    """Names of all metrics."""
    trajectories: int
    evaluated: int


class Series(Answer):
    """One metric of one run, decimated; entry i of each list belongs together."""

    run: str
    name: str
    steps: list[int]
    times: list[float | None]
    values: list[float | None]


class SeriesList(Answer):
    """Metrics of some runs."""

    series: list[Series]


class Phases(Answer):
    """How long the phases of a step took; the journal says how long, not when within the step."""

    step: int
    end: float | None
    """Seconds since the epoch."""
    seconds: dict[str, float | None]
    total: float | None


class Timeline(Answer):
    """Seconds by phase for the last steps."""

    steps: list[Phases]


class EpisodeLine(Answer):
    """An episode in a list."""

    id: str
    split: str
    """`train`, or the split of the evaluation."""
    step: int
    group_id: str
    task_id: str
    environment: str
    outcome: Outcome
    stop: Stop
    solved: bool
    reward: float | None
    """As the rewards said, before shaping."""
    tokens: int
    turns: int
    errors: int
    version: int
    seconds: float
    preview: str


class Progress(Answer):
    """How far the index of a run is."""

    indexed: int
    recorded: int


class EpisodePage(Answer):
    """One page of a list."""

    episodes: list[EpisodeLine]
    total: int
    cursor: str
    """For the next page; empty on the last."""
    progress: Progress


class Facet(Answer):
    """How many episodes have these properties."""

    split: str
    environment: str
    outcome: Outcome
    stop: Stop
    solved: bool
    count: int


class FacetList(Answer):
    """Counts over all episodes of a run."""

    facets: list[Facet]
    steps: list[int]
    """Steps of training that have episodes, the last 2,000."""
    progress: Progress


class Neighbours(Answer):
    """Ids beside an episode, in the order of recording; empty where there is none."""

    previous: str
    next: str
    previous_failing: str
    next_failing: str


class Sibling(Answer):
    """An episode of a group; ``shaped`` is the reward that was learned from."""

    episode: EpisodeLine
    parts: dict[str, float | None]
    shaping: dict[str, float | None]
    shaped: float | None
    advantage: float | None


class GroupOf(Answer):
    """The episodes of one task in one step."""

    id: str
    task_id: str
    step: int
    teaches: bool
    """False where all rewards are equal, or too few episodes have one."""
    siblings: list[Sibling]


class GroupList(Answer):
    """The groups of a step, and how their advantages are made."""

    step: int
    estimator: str
    by_std: bool
    whitened: bool
    """Advantages are made white over the tokens of the batch afterwards, which is not shown."""
    groups: list[GroupOf]
    progress: Progress


class CallOf(Answer):
    """A tool call; arguments as JSON texts where they are not texts."""

    name: str
    arguments: dict[str, str]


class MessageOf(Answer):
    """A message of the prompt."""

    role: str
    content: str
    calls: list[CallOf]


class TurnOf(Answer):
    """A reply, and what was answered."""

    number: int
    content: str
    calls: list[CallOf]
    error: str
    observation: str
    elided: int
    version: int
    context_tokens: int
    tokens: int
    mean_logprob: float | None
    min_logprob: float | None


class CheckOf(Answer):
    """A hidden check."""

    id: str
    passed: bool


class Note(Answer):
    """What else the journal holds about an episode, such as what a judge wrote."""

    title: str
    text: str


class EpisodeDetail(Answer):
    """One episode as a conversation."""

    id: str
    split: str
    step: int
    group_id: str
    task_id: str
    outcome: Outcome
    stop: Stop
    solved: bool
    reason: str
    temperature: float
    tokens: int
    reward: float | None
    parts: dict[str, float | None]
    shaping: dict[str, float | None]
    shaped: float | None
    advantage: float | None
    prompt: list[MessageOf]
    turns: list[TurnOf]
    checks: list[CheckOf]
    verdict: str
    """The grader's reason."""
    verifier: dict[str, float | None]
    """Rewards that a task's own verifier wrote."""
    patch: str
    seconds: dict[str, float | None]
    notes: list[Note]


class TokenSegment(Answer):
    """Consecutive tokens that the policy was given, or that it sampled."""

    turn: int
    sampled: bool
    version: int
    ids: list[int]
    pieces: list[str]
    """Texts that together are the text; empty where a character goes on in the next token."""
    logprobs: list[float | None]
    """Natural logarithms, of sampled tokens only; else empty."""
    log_ratios: list[float | None]
    """The learner's log-probabilities before the update less these; empty where not kept."""


class TokenView(Answer):
    """The tokens of an episode; every token of it has the same advantage."""

    decoded: bool
    """False where no tokenizer was found: pieces are ids then."""
    advantage: float | None
    segments: list[TokenSegment]
    compared: list[str]
    """Episodes of the step whose ratios of learner to engine were kept."""


class EnvironmentHealth(Answer):
    """How the episodes of an environment went in the last steps."""

    environment: str
    split: str
    episodes: int
    groups: int
    pass_at_1: float | None
    pass_at_k: float | None
    """Share of groups in which any episode passed."""
    k: float | None
    """Mean episodes of a group."""
    mixed: float | None
    """Share of groups in which some pass and some fail: the same task, another end."""
    uniform: float | None
    """Share of groups with equal rewards, which teach nothing."""
    clipped: float | None
    """Share of episodes that ran into a token limit."""
    errors: float | None
    """Share of episodes with a reply that held no valid call."""
    tokens: float | None
    lost: float | None
    """Share of episodes without a reward, by a fault of ours or of the task."""


class Alert(Answer):
    """Something to look at."""

    level: str
    """`act` or `look`."""
    title: str
    why: str
    metric: str
    """The metric that shows it; empty where there is none."""
    step: int | None


class Detector(Answer):
    """A metric `hacking/*` or `alarm*`."""

    name: str
    last: float | None
    largest: float | None
    at: int | None
    """Step of the largest value."""


class Health(Answer):
    """Is anything wrong?"""

    alerts: list[Alert]
    detectors: list[Detector]
    environments: list[EnvironmentHealth]
    progress: Progress


class EvalPoint(Answer):
    """One evaluation of one split."""

    step: int
    split: str
    pass_at_1: float
    low: float
    high: float
    """95 % interval (Wilson) over tasks."""
    tasks: int


class EvalTask(Answer):
    """One task by evaluation; ``solved`` holds a share per entry of ``steps``."""

    split: str
    task_id: str
    steps: list[int]
    solved: list[float]


class EvalList(Answer):
    """Evaluations of a run; tasks whose result changed come first, at most 500."""

    points: list[EvalPoint]
    tasks: list[EvalTask]
