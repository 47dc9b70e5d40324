"""Every noun that crosses a folder boundary, and the protocols between folders.

Standard library only: anyone may import this module, and it imports nothing of ours. Axes in
names: ``T`` tokens of one trajectory, ``G`` trajectories of one group, ``B`` samples of a batch.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from itertools import accumulate
from typing import Literal, Protocol, TypeAlias

Json: TypeAlias = object
"""A JSON value: None, bool, int, float, str, or lists and string-keyed dicts of them."""


# --- what is asked -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CallCheck:
    """One test that calls a function and compares its value in the trusted process.

    ``args`` and ``expected`` are Python literals as text, so that tuples, sets and integer keys
    survive storage as JSON. ``function`` may be ``Class.method``, or ``Class().method`` of a fresh
    object.

    Example: ``CallCheck(id="clamp#0", module="clamp", function="clamp", args="(5, 0, 3)",
    expected="3")``
    """

    id: str
    module: str
    function: str
    args: str
    expected: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptCheck:
    """One test given as code that raises when the candidate is wrong (HumanEval, MBPP).

    ``names`` are the names taken from ``module`` (the candidate) and visible to ``code``.

    Example: ``ScriptCheck(id="MBPP/2#0", module="solution", names=("area",),
    code="assert abs(area(2) - 12.57) < 0.01")``
    """

    id: str
    module: str
    names: tuple[str, ...]
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class UnitCheck:
    """One method of a ``unittest`` suite stored in ``Task.test_files``.

    Example: ``UnitCheck(id="leap_test.LeapTest.test_year_2015")``
    """

    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SuiteCheck:
    """One test of a pytest or ``unittest`` suite that runs in the process of the code it tests.

    Weaker than the other kinds, whose tests a candidate cannot reach: for suites that go deep into
    what they test. ``id`` is pytest's; the file is one of ``Task.test_files`` or of the tree. For
    tests of a Django project ``django`` is the path of its ``manage.py``, for Django's own that of
    ``tests/runtests.py``: one of ``Task.test_files``, and the same for all suite checks of a task.

    Example: ``SuiteCheck(id="tests/test_leap.py::TestLeap::test_century[1900-False]")``
    """

    id: str
    django: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProgramCheck:
    """One run of a program: what it prints for ``stdin``, compared in the trusted process.

    ``argv`` is what runs it, in a folder with the candidate's files. Any one of ``expected`` will
    do, word by word (with ``by_line`` also line by line); a number that is written with a point or
    an exponent may be off by ``tolerance``, absolute or relative. The exit code must be 0.

    Example: ``ProgramCheck(id="sum#0", argv=("python3", "solution.py"), stdin="1 2\\n",
    expected=("3\\n",))``
    """

    id: str
    argv: tuple[str, ...]
    stdin: str
    expected: tuple[str, ...]
    tolerance: float = 0.0
    by_line: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class AppendedCheck:
    """One test as code of any language that follows the candidate's in one file (MultiPL-E, MBXP).

    Weaker than the other kinds, like ``SuiteCheck``: a candidate can reach it. ``argv`` runs the
    file ``path``, which must get as far as ``done``, its last statement, which prints ``TOKEN``
    (replaced by something that nobody knows), and exit with 0. ``wrong`` is a statement that must
    make a program fail: a candidate with which it does not is not believed.

    Example: ``AppendedCheck(id="add#0", argv=("bash", "solution.sh"), path="solution.sh",
    code="set -e; [[ $(add 1 2) = 3 ]]", wrong="[[ 1 = 2 ]]", done="printf %s TOKEN")``
    """

    id: str
    argv: tuple[str, ...]
    path: str
    code: str
    wrong: str
    done: str


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerCheck:
    """One test of a text that the agent hands in: nothing of it is run.

    ``verifier`` is the name of an answer verifier (``rewards.answers``), which is given the text of
    the artifact ``path`` and ``expected``, whose form is the verifier's own.

    Example: ``AnswerCheck(id="gsm/1#0", verifier="numeric", expected="18")``
    """

    id: str
    verifier: str
    expected: str
    path: str = "answer.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class VerifierCheck:
    """A script that runs beside the work and writes rewards, as the verifier of a Harbor task does.

    The weakest kind: what it runs of the work could write them, too. All files of
    ``Task.test_files`` are laid out in ``/tests``, of which ``script`` is run by bash for at most
    ``timeout`` seconds with the variables ``env``. It passes when every reward is 1 or more.

    Example: ``VerifierCheck(id="verifier", script="test.sh")``
    """

    id: str
    script: str
    timeout: float = 600.0
    env: Mapping[str, str] = field(default_factory=dict)


Check: TypeAlias = (
    CallCheck
    | ScriptCheck
    | UnitCheck
    | SuiteCheck
    | ProgramCheck
    | AppendedCheck
    | AnswerCheck
    | VerifierCheck
)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A regular file: its bytes, and whether its owner may execute it (the mode bit git keeps).

    Example: ``File(data=b"print(1)\\n")``
    """

    data: bytes
    executable: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Tree:
    """A folder, such as a repository, that the agent works on as a whole.

    ``files`` is what it finds, by path below the work folder. What it changes is graded where the
    path matches a pattern of ``work`` (``fnmatch``: ``*`` stands for any text, slashes included).

    Example: ``Tree(files={"src/a.py": File(data=b"x = 1\\n")}, work=("src/*",))``
    """

    files: Mapping[str, File]
    work: tuple[str, ...] = ("*",)


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """What an agent changed in its tree, computed outside of its box.

    ``files`` maps each changed path to what is there now, None where nothing is. ``refused`` says
    why it cannot be graded: the agent's failure. ``ignored`` names changes that do not count.

    Example: ``Patch(files={"src/a.py": File(data=b"x = 2\\n"), "src/old.py": None})``
    """

    files: Mapping[str, File | None]
    refused: str = ""
    ignored: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A container image that the boxes of a task are made of. ``folder`` is where in it their work
    folder lies (absolute; empty: the backend's own), ``scratch`` names further folders that are
    empty at first and can be written to, and ``env`` has variables of their commands. Without a
    ``name`` they are as the backend makes them otherwise.

    Example: ``Image(name="swebench/sweb.eval.x86_64.acme_1776_calc-1", folder="/testbed")``
    """

    name: str
    folder: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    scratch: tuple[str, ...] = ()


Work: TypeAlias = Mapping[str, bytes] | Patch
"""What is collected from an agent's box: the artifacts of a task, or the patch of its tree."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """One problem: what the agent is given, and how its result is judged.

    The agent gets ``prompt``, ``files`` and ``visible``; it never sees ``reference``, ``hidden`` or
    ``test_files``. Only the files named in ``artifacts`` are collected for grading; where there is
    a ``tree``, there are neither ``files`` nor ``artifacts``, and what was changed in it is
    collected. ``check_s`` is for checks that need more processor seconds than ``sandbox.check_s``.
    With an ``image`` its boxes are made of that.

    Example: ``Task(id="repair/clamp/3", source="palestra/Repair-v0", kind="repair", prompt="Fix
    clamp.py ...", files={"clamp.py": broken}, reference={"clamp.py": original},
    artifacts=("clamp.py",), visible=checks[:4], hidden=checks)``
    """

    id: str
    source: str
    kind: str
    prompt: str
    files: Mapping[str, str]
    reference: Mapping[str, str]
    artifacts: tuple[str, ...]
    visible: tuple[Check, ...] = ()
    hidden: tuple[Check, ...]
    test_files: Mapping[str, str] = field(default_factory=dict)
    labels: Mapping[str, str] = field(default_factory=dict)
    tree: Tree | None = None
    check_s: float = 0.0
    image: Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ToolCall:
    """A request of the policy, parsed strictly from its token ids.

    Example: ``ToolCall(name="replace", arguments={"line": "3", "text": "    return x"})``
    """

    name: str
    arguments: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Tool:
    """What a policy is told about one tool; ``parameters`` is a JSON schema of its arguments.

    Example: ``Tool(name="submit", description="Finish.", parameters={"type": "object",
    "properties": {}})``
    """

    name: str
    description: str
    parameters: Mapping[str, Json]


@dataclass(frozen=True, slots=True, kw_only=True)
class Message:
    """One chat message as a person would read it; training never re-tokenises it.

    Example: ``Message(role="tool", content="2 of 4 tests passed")``
    """

    role: Literal["system", "user", "assistant", "tool"]
    content: str
    calls: tuple[ToolCall, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Observation:
    """What an environment answers to one tool call; ``elided`` counts the bytes of its output that
    ``text`` leaves out.

    Example: ``Observation(text="replaced line 3")`` or ``Observation(text="", submitted=True)``
    """

    text: str
    submitted: bool = False
    elided: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DemoStep:
    """One scripted assistant turn and its answer; ``learn`` is False for a planted mistake."""

    message: Message
    observation: str
    learn: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Demonstration:
    """A solved episode that an environment wrote itself, for supervised warm starts and PTX."""

    task_id: str
    prompt: tuple[Message, ...]
    steps: tuple[DemoStep, ...]


# --- what happened -------------------------------------------------------------------------------


class Stop(StrEnum):
    """Why an episode ended."""

    SUBMITTED = "submitted"
    MAX_TURNS = "max_turns"
    OVER_BUDGET = "over_budget"
    CONTEXT_FULL = "context_full"
    MALFORMED = "malformed"
    BOX_ENDED = "box_ended"
    TIME_LIMIT = "time_limit"
    TASK_ERROR = "task_error"
    REWARD_ERROR = "reward_error"
    INFRA_ERROR = "infra_error"


class Outcome(StrEnum):
    """What an episode is worth to training; what is not the agent's fault has no reward at all."""

    GRADED = "graded"
    AGENT_FAILURE = "agent_failure"
    TASK_FAILURE = "task_failure"
    INFRA_FAILURE = "infra_failure"


LOST = frozenset({Outcome.TASK_FAILURE, Outcome.INFRA_FAILURE})
"""Outcomes without a reward: in neither the batch nor the baseline."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Provenance:
    """Who vouches for a verdict or a part of a reward: a verifier or judge and its version, what it
    goes by, and what its word cost, in seconds and in tokens of a model.

    Example: ``Provenance(verifier="CallCheck", version="palestra 0.1.0", evidence="3 of 4 checks
    passed (5f1c09ab)", seconds=0.2)``
    """

    verifier: str
    version: str
    evidence: str
    seconds: float = 0.0
    tokens: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What the grader saw: one entry per expected check; a check that never reported is False.
    ``rewards`` are those that a task's own verifier wrote, by name.

    Example: ``Verdict(outcome=Outcome.GRADED, passed={"clamp#0": True, "clamp#1": False})``
    """

    outcome: Outcome
    passed: Mapping[str, bool] = field(default_factory=dict)
    reason: str = ""
    rewards: Mapping[str, float] = field(default_factory=dict)
    provenance: Provenance | None = None

    @property
    def solved(self) -> bool:
        """True when there is at least one check and every check passed."""
        return self.outcome is Outcome.GRADED and bool(self.passed) and all(self.passed.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Reward:
    """A scalar, the named parts that it is made of, what shaping has put on top, and who vouches
    for each part.

    Example: ``Reward(total=1.0, parts={"tests_pass": 1.0})``
    """

    total: float
    parts: Mapping[str, float]
    shaping: Mapping[str, float] = field(default_factory=dict)
    provenance: Mapping[str, Provenance] = field(default_factory=dict)

    def shaped(self, name: str, total: float) -> Reward:
        """The reward with another total; ``shaping`` keeps the difference under this name.

        Example: ``Reward(total=1.0, parts={"tests_pass": 1.0}).shaped("toggle", 0.0).shaping`` is
        ``{"toggle": -1.0}``
        """
        shaping = {**self.shaping, name: total - self.total}
        return replace(self, total=total, shaping=shaping)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How one reply is sampled. ``seed`` fixes the reply given the context and the weights.

    ``routed`` counts the first tokens of the context whose routing is on record already.
    ``lane`` says which of an engine's replicas gives it, counted round and round: the replies of an
    episode have the same, as the cache of one replica then holds what they have in common.
    """

    temperature: float
    max_tokens: int
    seed: int
    stop_ids: tuple[int, ...]
    routed: int = 0
    lane: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Routing:
    """The experts that the engine's routers chose for some consecutive tokens, in every layer.

    ``experts`` holds an array [tokens, layers, top_k] of their numbers, ``item_bytes`` each (1 up
    to 256 experts, else 2, little endian). A layer without experts has zeros.

    Example: ``Routing(layers=2, top_k=2, item_bytes=1, experts=bytes([0, 0, 3, 1]))`` for one token
    and a dense first layer.
    """

    layers: int
    top_k: int
    item_bytes: int
    experts: bytes

    @property
    def tokens(self) -> int:
        """How many tokens it covers."""
        return len(self.experts) // (self.layers * self.top_k * self.item_bytes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completion:
    """What the engine returned: ids, and the log-probabilities it sampled them with.

    ``logprobs`` are natural logarithms of the distribution really sampled from (temperature
    included); ``version`` counts weight updates since the start of the run. ``finish`` is ``stop``
    when the last id is a stop id, ``length`` when the budget ended the reply. ``routing``, of an
    engine that records it, goes from token ``Sampling.routed`` of the context to the last but one
    of the reply: the last was never an input.
    """

    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    version: int
    finish: Literal["stop", "length"]
    routing: Routing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """Context ids appended before a reply, and the reply itself.

    Example: a first turn holds the whole prompt in ``context_ids``; later turns hold only the
    rendered tool results. Concatenating ``context_ids + token_ids`` over turns gives the exact
    sequence that the engine saw, and that the learner trains on; ``routing`` over turns covers all
    of it but the last token. ``elided`` counts the bytes of output that ``observation`` leaves out.
    """

    context_ids: tuple[int, ...]
    token_ids: tuple[int, ...]
    logprobs: tuple[float, ...]
    version: int
    message: Message
    observation: str = ""
    elided: int = 0
    error: str = ""
    routing: Routing | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opinion:
    """What a judge replied, and what it cost. The text is untrusted, like all that a model writes.

    ``turn`` has the exact tokens where the judge is the policy, so that it can learn from them.

    Example: ``Opinion(text="<verdict>first</verdict>", judge="policy@7")``
    """

    text: str
    judge: str
    input_tokens: int = 0
    output_tokens: int = 0
    turn: Turn | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """What a judge was asked, what it replied, and which of the possible answers that was.

    ``about`` names the trajectories in the order in which they were shown. ``answers`` are what the
    judge could say, and ``choice`` is the index of the one it gave: None when it gave none.
    ``key`` tells apart what was asked of whom: same key, same reply.

    Example: ``Judgement(key="7f0c...", step=3, group_id="g", about=("g/000", "g/001"),
    messages=(Message(...),), answers=("first-4be1", "second-4be1", "tie-4be1"), choice=0,
    opinion=Opinion(...))``
    """

    key: str
    step: int
    group_id: str
    about: tuple[str, ...]
    messages: tuple[Message, ...]
    answers: tuple[str, ...]
    choice: int | None
    opinion: Opinion


@dataclass(frozen=True, slots=True, kw_only=True)
class Trajectory:
    """One episode from the prompt to its verdict; ``patch`` shows what the agent changed.

    ``abstained`` names the rewards that had nothing to say of it, and why.
    """

    id: str
    group_id: str
    task_id: str
    step: int
    prompt: tuple[Message, ...]
    turns: tuple[Turn, ...]
    stop: Stop
    outcome: Outcome
    temperature: float
    reward: Reward | None = None
    verdict: Verdict | None = None
    reason: str = ""
    patch: str = ""
    abstained: Mapping[str, str] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)

    @property
    def generated(self) -> int:
        """Number of tokens that the policy generated."""
        return sum(len(turn.token_ids) for turn in self.turns)

    @property
    def solved(self) -> bool:
        """True when it was graded and every hidden check passed."""
        return self.verdict is not None and self.verdict.solved


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Sibling trajectories of one task; ``trainable`` leaves infrastructure failures out."""

    id: str
    task_id: str
    trajectories: tuple[Trajectory, ...]

    @property
    def trainable(self) -> tuple[Trajectory, ...]:
        """Trajectories with a reward: the only ones that count for the baseline and the batch."""
        return tuple(t for t in self.trajectories if t.reward is not None)


# --- what is learned -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One token sequence with per-token training signals; five lists of equal length ``T``.

    Entry t describes ``token_ids[t]``: ``loss_mask[t]`` is True where the policy sampled it,
    ``logprobs[t]`` is what the engine sampled it with (0.0 where masked), ``advantages[t]`` weighs
    the policy gradient, ``ptx[t]`` weighs the supervised loss. ``weight`` weighs the policy loss of
    all its tokens against that of other samples (``rl.aggregation``). ``preference``, where there
    is one, has an entry per token, too: by how much the batch's loss falls when the log-probability
    of that token rises by one (``rl.critic.preference``). ``routing`` is the engine's for the first
    tokens, where it is on record.

    Example: prompt P, reply A, tool output E, reply B give ``token_ids = P+A+E+B`` and
    ``loss_mask = 0*P + 1*A + 0*E + 1*B``.
    """

    token_ids: tuple[int, ...]
    loss_mask: tuple[bool, ...]
    logprobs: tuple[float, ...]
    advantages: tuple[float, ...]
    ptx: tuple[float, ...]
    temperature: float = 1.0
    weight: float = 1.0
    routing: Routing | None = None
    preference: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        sizes = {
            len(self.token_ids),
            len(self.loss_mask),
            len(self.logprobs),
            len(self.advantages),
            len(self.ptx),
            len(self.preference or self.ptx),
        }
        if len(sizes) != 1:
            raise ValueError(f"Sample lists differ in length: {sorted(sizes)}")

    @property
    def learned(self) -> int:
        """Number of tokens with a policy loss; nothing predicts the first."""
        return sum(self.loss_mask[1:])


@dataclass(frozen=True, slots=True, kw_only=True)
class Batch:
    """The samples of one step, and the number that step carries in the journal.

    ``mini_batches`` says how many samples each optimizer update takes, in order; empty means one
    update for all.
    """

    step: int
    samples: tuple[Sample, ...]
    mini_batches: tuple[int, ...] = ()

    @property
    def updates(self) -> list[tuple[Sample, ...]]:
        """The samples of each optimizer update."""
        sizes = self.mini_batches or (len(self.samples),)
        ends = list(accumulate(sizes))
        return [self.samples[end - size : end] for end, size in zip(ends, sizes, strict=True)]


# --- who does it ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class ExecResult:
    """How one command ended. Exactly one of ``exit_code`` and ``signal`` is set, or ``timed_out``.
    ``oom`` says beside it that the box ran out of its memory.

    ``stdout`` and ``stderr`` keep the head and the tail of the output; ``elided`` counts the bytes
    dropped between them. ``report`` is what arrived on the inherited descriptor.
    """

    exit_code: int | None = None
    signal: int | None = None
    timed_out: bool = False
    oom: bool = False
    stdout: bytes = b""
    stderr: bytes = b""
    elided: int = 0
    report: bytes = b""
    wall_s: float = 0.0


class Sandbox(Protocol):
    """A box in which untrusted code runs. Non-zero exits are data; only our faults raise."""

    async def exec(
        self,
        argv: Sequence[str] | str,
        *,
        stdin: bytes = b"",
        env: Mapping[str, str] | None = None,
        timeout: float = 10.0,
        max_output: int = 65_536,
        report: bool = False,
    ) -> ExecResult:
        """Run a command in the work directory; a string is a line for ``/bin/sh``. With ``report``
        the command inherits a write descriptor, whose number it finds in the variable
        ``PALESTRA_REPORT_FD``."""
        ...

    async def read(self, path: str, *, max_bytes: int = 1 << 20) -> bytes:
        """Read a regular file below the work directory (never through a link)."""
        ...

    async def write(self, path: str, data: bytes) -> None:
        """Write a file below the work directory, making its folders."""
        ...

    async def put(
        self, files: Mapping[str, bytes], *, executable: Collection[str] = frozenset()
    ) -> None:
        """Write many files below the work directory at once; raises ``PathRefused``."""
        ...

    async def tree(
        self,
        path: str = ".",
        *,
        skip: Collection[str] = (),
        max_files: int = 10_000,
        max_bytes: int = 64 << 20,
    ) -> dict[str, File]:
        """The regular files below ``path``, by path relative to the work directory; links, devices
        and pipes are left out, and whatever has a name in ``skip``, but every other entry counts
        against ``max_files``. Names that are not UTF-8 are decoded with ``surrogateescape``.
        Raises ``PathRefused`` above either limit."""
        ...

    async def freeze(self) -> None:
        """End every process in the box, for good: files stay and can be read, but ``exec`` raises
        ``BoxDied`` from now on."""
        ...


class SandboxProvider(Protocol):
    """Opens boxes; ``guarantees`` are probed facts such as ``{"pidns", "netns", "ro_root"}``."""

    name: str
    guarantees: frozenset[str]

    def open(self, image: Image | None = None, /) -> AbstractAsyncContextManager[Sandbox]:
        """A fresh, empty box, of that image if one is given; leaving the context destroys it and
        everything that ran in it, at once or in the background."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckJob:
    """Some candidate files, or a whole ``tree`` of them, and the checks to run on them, in a box of
    ``image`` if there is one; ``check_s`` as in ``Task``."""

    files: Mapping[str, str]
    checks: tuple[Check, ...]
    test_files: Mapping[str, str] = field(default_factory=dict)
    tree: Mapping[str, File] = field(default_factory=dict)
    check_s: float = 0.0
    image: Image | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckResult:
    """How one check ended; ``got`` is a short text of the value or error, for people and agents.

    Example: ``CheckResult(id="clamp#0", passed=False, got="5")``
    """

    id: str
    passed: bool
    got: str = ""


class CheckRunner(Protocol):
    """Runs many jobs in one command of a given box; one list of results per job, in order.

    Every check of a job has a result: one that never reported is not passed. Raises
    ``SandboxError`` only when the box itself failed.
    """

    async def __call__(
        self, jobs: Sequence[CheckJob], box: Sandbox, *, timeout: float = 10.0
    ) -> list[list[CheckResult]]: ...


class Verifier(Protocol):
    """Judges an answer without a box; the text is untrusted, and nothing of it is run."""

    async def __call__(self, text: str, expected: str) -> str:
        """Why the answer is wrong; empty when it is right. Raises ``InfraError`` when that cannot
        be said, ``TaskError`` for an ``expected`` that it cannot read."""
        ...


class Grader(Protocol):
    """Runs a task's hidden checks on collected work in a fresh box."""

    async def __call__(self, task: Task, work: Work) -> Verdict: ...


class Tokenizer(Protocol):
    """What we need of a tokenizer; ``policies.tokenizer`` wraps a Hugging Face one in it.

    Control tokens are those that text of others must not spell: ends of turns, headers, markers of
    tool calls. ``encode`` finds them in a text, ``spell`` never gives one, and ``encode(t)`` is
    ``split(t)`` with the text between control tokens spelled.
    """

    eos_id: int
    vocab_size: int

    def encode(self, text: str) -> list[int]: ...
    def spell(self, text: str) -> list[int]: ...
    def split(self, text: str) -> list[str | int]: ...
    def decode(self, ids: Sequence[int]) -> str: ...
    def render(self, messages: Sequence[Message], tools: Sequence[Tool], *, reply: bool) -> str: ...
    def token_id(self, token: str) -> int | None: ...


class Policy(Protocol):
    """The sampling side of the model."""

    async def generate(self, token_ids: Sequence[int], sampling: Sampling) -> Completion: ...


class Judge(Protocol):
    """A model that is asked for its opinion: the policy itself, another engine, or an endpoint.

    ``name`` tells judges apart in records and caches: model, version, sampling.
    """

    @property
    def name(self) -> str: ...

    async def ask(self, messages: Sequence[Message], *, max_tokens: int, seed: int = 0) -> Opinion:
        """Its reply; raises ``InfraError`` when there is none, which is nobody's bad reward, and
        ``Abstain`` when there never will be, as for a prompt longer than its context."""
        ...


class JudgementStore(Protocol):
    """Where judgements are kept; what is there by key is not asked again."""

    def judgement(self, key: str) -> Judgement | None: ...
    def judgements_in(self, step: int) -> Sequence[Judgement]: ...
    def add_judgement(self, judgement: Judgement) -> None: ...


class Learner(Protocol):
    """The learning side of the model, as ordinary blocking calls."""

    def learn(self, batch: Batch) -> Mapping[str, float]:
        """Do one optimizer step and return its metrics."""
        ...

    def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """Log-probability of every token given those before it; the first entry is 0.0."""
        ...

    def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """What a frozen copy of the first weights gives the tokens of each sample that the policy
        generated, in order."""
        ...

    def save(self, folder: str) -> None:
        """Write native state and a Hugging Face export, all or nothing."""
        ...

    def load(self, folder: str) -> None:
        """Restore what ``save`` wrote."""
        ...


class Trainer(Protocol):
    """A learner and an engine that share a device, as the training loop sees them."""

    async def logprobs(
        self, sequences: Sequence[Sequence[int]], temperature: float = 1.0
    ) -> list[list[float]]:
        """As the learner's; between playing and ``learn``."""
        ...

    async def reference_logprobs(self, samples: Sequence[Sample]) -> list[list[float]]:
        """As the learner's; between playing and ``learn``."""
        ...

    async def learn(self, batch: Batch) -> Mapping[str, float]:
        """One optimizer step; the engine gives way to the learner."""
        ...

    async def publish(self, version: int) -> Mapping[str, float]:
        """Give the engine the learner's weights as ``version``, check that both agree."""
        ...

    async def save(self, folder: str) -> None: ...
    async def load(self, folder: str) -> None: ...


RewardFn: TypeAlias = Callable[[Trajectory, "Sandbox | None"], Awaitable[float]]
"""A reward for one finished trajectory; raise to say that it could not be computed."""

GroupRewardFn: TypeAlias = Callable[[list[Trajectory]], Awaitable[list[Reward]]]
"""Rewards for siblings that are judged against each other, in their order; raises as above."""

TaskOf: TypeAlias = Callable[[str], Task]
"""The task with this id; raises ``TaskError`` when there is none."""
