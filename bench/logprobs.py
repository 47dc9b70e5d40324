"""Memory and time of the log-probability pass, and tokens per second of packing.

    .venv/bin/python bench/logprobs.py [--tokens 8192] [--vocabulary 151936] [--hidden 64]

Writes bench/results/logprobs.json: peak memory and CPU seconds of log-probabilities in chunks
beside those of all logits at once, each in a process of its own; and trained tokens per CPU second
of packed rows beside padded ones, on the lengths of a step of the tiny recipe. TRL pads to
the longest sample of the batch; padding to that of each micro-batch is there as well.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from report import machine_of, write_report
from torch.nn.utils.rnn import pad_sequence

from palestra.policies.config import LearnerConfig, TinyConfig
from palestra.policies.learner import DeepSpeedLearner
from palestra.policies.logprobs import token_logprobs
from palestra.policies.packing import MicroBatch
from palestra.policies.tiny import build
from palestra.rl.objectives.k25 import K25
from palestra.rl.objectives.policy_loss import PolicyLoss
from palestra.rl.types import Batch, Sample

RESULT = Path(__file__).resolve().parent / "results" / "logprobs.json"
GROUPS = (
    (61, (293, 299, 294, 248, 262, 294, 283, 275)),
    (69, (308, 392, 182, 125, 191, 125, 165, 125)),
    (59, (413, 104, 104, 104, 104, 165, 313, 104)),
    (60, (339, 105, 220, 321, 105, 174, 105, 105)),
)
"""Four groups of step 20 of recipes/tiny.toml, seed 0: tokens of the prompt, and of each sample."""
BATCH, MICRO_BATCH = "padded to the batch's longest", "padded to the micro-batch's longest"
PADDED = (BATCH, MICRO_BATCH)
CHUNK = LearnerConfig().logprob_chunk
REPEATS = 4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=8192)
    parser.add_argument("--vocabulary", type=int, default=151_936)
    parser.add_argument("--hidden", type=int, default=64)
    args = parser.parse_args()
    shape = (args.tokens, args.hidden, args.vocabulary)
    plain, chunked = alone(all_at_once, shape), alone(in_chunks, shape)
    memory = chunked["gib"] / plain["gib"]
    seconds = chunked["seconds"] / plain["seconds"]
    with tempfile.TemporaryDirectory() as folder:
        speed = tokens_per_second(Path(folder))
    gain = {rows: speed["packed"] / speed[rows] for rows in PADDED}
    figures: dict[str, dict[str, object]] = {
        "all logits at once: peak memory": figure(plain["gib"], "GiB"),
        "in chunks: peak memory": figure(chunked["gib"], "GiB"),
        "in chunks: share of the memory": figure(memory, "", "<= 0.125", memory <= 0.125),
        "all logits at once: CPU time": figure(plain["seconds"], "s"),
        "in chunks: CPU time": figure(chunked["seconds"], "s"),
        "in chunks: share of the CPU time": figure(seconds, "", "<= 1.1", seconds <= 1.1),
        **{f"{rows}: tokens per CPU second": figure(value, "1/s") for rows, value in speed.items()},
        f"packed over {BATCH}": figure(gain[BATCH], "", ">= 2", gain[BATCH] >= 2),
        f"packed over {MICRO_BATCH}": figure(gain[MICRO_BATCH], ""),
    }
    how = f"bench/logprobs.py, {args.tokens} tokens, vocabulary {args.vocabulary}"
    write_report(RESULT, figures, f"{how}, hidden size {args.hidden}", machine_of())


def figure(value: float, unit: str, target: str = "", met: bool | None = None) -> dict[str, object]:
    return {"value": value, "unit": unit, "target": target, "met": met}


# Log-probabilities of all targets, without gradients.

Shape = tuple[int, int, int]
Pass = Callable[[torch.nn.Linear, torch.Tensor, torch.Tensor], torch.Tensor]


def all_at_once(head: torch.nn.Linear, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """What one writes first; it gives no entropy."""
    return torch.log_softmax(head(hidden), -1).gather(-1, target[:, None])[:, 0]


def in_chunks(head: torch.nn.Linear, hidden: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """The learner's pass; it gives entropy, too."""
    temperature = torch.ones(len(target))
    return token_logprobs(head, hidden, target, temperature, chunk=CHUNK)[0]


def alone(run: Pass, shape: Shape) -> dict[str, float]:
    """Peak memory above that before the pass, and the least CPU seconds of two passes."""
    context = multiprocessing.get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(run, shape, theirs))
    process.start()
    theirs.close()
    found: dict[str, float] = json.loads(ours.recv())
    process.join()
    return found


@torch.no_grad()
def measure(run: Pass, shape: Shape, answer: Connection) -> None:
    """In a fresh process, because a process never forgets its peak."""
    tokens, hidden, vocabulary = shape
    torch.manual_seed(0)
    torch.set_num_threads(1)
    head = torch.nn.Linear(hidden, vocabulary, bias=False)
    states, target = torch.randn(tokens, hidden), torch.randint(vocabulary, (tokens,))
    run(head, states[:1], target[:1])
    before = peak()
    seconds = []
    for _ in range(REPEATS):
        start = time.process_time()
        run(head, states, target)
        seconds.append(time.process_time() - start)
    answer.send(json.dumps({"gib": peak() - before, "seconds": min(seconds)}))


def peak() -> float:
    """GiB that this process ever held."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20


# One optimizer step of the tiny policy on one recorded step's lengths.


def tokens_per_second(folder: Path) -> dict[str, float]:
    """Trained tokens per second of CPU time (one thread), which other work on the machine leaves
    alone: the best of a few steps after the first, all kinds of rows by turns."""
    build(folder, TinyConfig(), ["def add(a, b):\n    return a + b\n"], [], seed=0)
    loss = PolicyLoss(objective=K25(alpha=0.5, beta=2.0, tau=0.01))
    learner = DeepSpeedLearner(str(folder), LearnerConfig(threads=1), loss)
    batch = Batch(step=1, samples=tuple(samples()))
    longest = max(len(sample.token_ids) for sample in batch.samples)
    packs = {
        "packed": learner._pack,
        BATCH: lambda batch, *ranks: padded(batch, longest),
        MICRO_BATCH: lambda batch, *ranks: padded(batch),
    }
    seconds: dict[str, list[float]] = {rows: [] for rows in packs}
    learner.learn(batch)
    for _ in range(REPEATS):
        for rows, pack in packs.items():
            learner._pack = pack  # type: ignore[method-assign]
            start = time.process_time()
            learner.learn(batch)
            seconds[rows].append(time.process_time() - start)
    trained = sum(len(sample.token_ids) for sample in batch.samples)
    return {rows: trained / min(spent) for rows, spent in seconds.items()}


def samples() -> list[Sample]:
    """Random tokens of the recorded lengths; everything after the prompt is learned."""
    generator = torch.Generator().manual_seed(0)
    found = []
    for prompt, sizes in GROUPS:
        beginning = torch.randint(1000, (prompt,), generator=generator).tolist()
        for size in sizes:
            rest = torch.randint(1000, (size - prompt,), generator=generator).tolist()
            found.append(sample([*beginning, *rest], prompt))
    return found


def sample(ids: Sequence[int], prompt: int) -> Sample:
    learned = tuple(t >= prompt for t in range(len(ids)))
    return Sample(
        token_ids=tuple(ids),
        loss_mask=learned,
        logprobs=tuple(-7.0 * value for value in learned),
        advantages=tuple(1.0 * value for value in learned),
        ptx=(0.0,) * len(ids),
    )


def padded(batch: Sequence[Sample], width: int = 0) -> list[MicroBatch]:
    """A row per sample in the order they came, each micro-batch as wide as ``width`` or its longest
    sample."""
    rows = LearnerConfig().micro_batch_tokens // max(len(sample.token_ids) for sample in batch)
    return [_padded(batch[start : start + rows], width) for start in range(0, len(batch), rows)]


def _padded(batch: Sequence[Sample], width: int) -> MicroBatch:
    ids = pad_sequence([torch.tensor(s.token_ids) for s in batch], batch_first=True)
    ids = torch.nn.functional.pad(ids, (0, max(0, width - ids.shape[1])))
    width = ids.shape[1]
    # Causal attention never looks at what stands behind: padding needs no mask.
    segments = torch.ones_like(ids)
    learned = pad_sequence([torch.tensor(s.loss_mask) for s in batch], batch_first=True)
    row, place = learned.nonzero(as_tuple=True)
    count = len(row)
    return MicroBatch(
        token_ids=ids,
        positions=torch.arange(width).expand_as(ids),
        segments=segments,
        parents=segments,
        source=row * width + place - 1,
        sample=row,
        target=ids[row, place],
        policy=torch.ones(count, dtype=torch.bool),
        logprobs=torch.full((count,), -7.0),
        advantages=torch.ones(count),
        weight=torch.ones(count),
        ptx=torch.zeros(count),
        preference=torch.zeros(count),
        temperature=torch.ones(count),
        most=count,
        experts=None,
    )


if __name__ == "__main__":
    main()
