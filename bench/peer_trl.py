#!/usr/bin/env python3
"""Palestra beside TRL's GRPO: the same tiny policy, prompts, rewards and steps, in turns.

    .venv/bin/python bench/peer_trl.py                 # both settings; bench/results/peer_trl.json
    .venv/bin/python bench/peer_trl.py --smoke         # a minute or two: does everything work?
    .venv/bin/python bench/peer_trl.py --settings b --steps 6

TRL lives in an environment of its own (``.venv-trl``, made on the first run) with the project's
versions of torch and transformers; it is not a dependency. Each side is a process that does one
optimizer step per command, so the two alternate on the same machine in one run, in changing order;
the side that waits blocks on a pipe. Both have the machine's cores when it is their turn.

Settings
    a   4 prompts x 8 samples, exactly 64 tokens each. For so small a model the vLLM CPU engine
        costs more per decoding step (bookkeeping in Python) than plain generation, so the wall
        ratio is not the point: everything that is not the engine should cost at most 20 % of the
        step.
    b   16 prompts x 8 samples with a long tail: 112 of 128 completions have 16 to 63 tokens, 12
        up to 204, four 256 to 512. Continuous batching and packing should make a step at least
        twice as fast as plain generation and padding.

How both sides get the same lengths: a fixed list, shuffled anew over the rows of each step.
Palestra asks the engine for that many tokens per request. TRL generates the batch up to the longest
row and cuts each row at its length, which is what plain batch generation costs: a row that ended
stays in the batch (as padding) until the longest one is done. No token ends a completion by itself,
so both sample from the same distribution.

The same on both sides: initial weights, prompt ids (checked by digest), lengths, reward (share of
ids that are multiples of four), advantage r - mean(r) without a standard deviation, AdamW and its
settings, gradient clipping, float32, no KL term, one optimizer step per batch. Palestra uses its
default threads (two for the learner, one for the engine); TRL takes two or one for everything,
whichever was faster in its warm-up: for so small a model two may be slower. Objectives:
K2.5's (alpha 0.5, beta 2, tau 0.01) against TRL's ``dapo``: both sum over tokens and divide by the
tokens of the batch, and on-policy both have the gradient of ``-A log pi``, as the ratio is 1 (for
Palestra up to the 1e-6 between engine and learner).

Not the same: random numbers, so the reward curves agree only statistically; Palestra seeds every
request, journals every trajectory with an fsync, keeps an entropy and mismatch metric, sends
weights to its engine and checks them on a probe, and all of that is in its step; TRL samples from
the training model itself and has no sync. Neither side writes checkpoints; TRL's activation
recomputation is switched off in its favour. TRL's own vLLM and continuous-batching modes are not
measured.

CPU seconds are those of all processes of a side (Ray's included) between command and answer.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import importlib.metadata
import json
import os
import platform
import queue
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).resolve().parents[1]
HERE = Path(__file__).resolve().parent / "peer_trl"
VENV = ROOT / ".venv-trl"
PINS = {"trl": "1.16.0", "accelerate": "1.15.0", "datasets": "5.2.0"}
TORCH_INDEX = os.environ.get("TORCH_INDEX", "")
"""An index that offers PyTorch's CPU wheels, as for `make install`; unset: what pip knows."""
PHASES = ("generate", "score", "learn", "sync", "rest")
SIDES = ("palestra", "trl")
GROUP = 8
WARMUP = 3
"""Steps that are not counted; TRL spends them on finding out whether threads help it."""
ANSWER_TIMEOUT = 1800.0
ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
TAIL = [16 + i * 48 // 112 for i in range(112)] + [72 + 12 * i for i in range(12)]
TAIL += [256, 320, 400, 512]


@dataclass(frozen=True)
class Setting:
    """How many completions of which lengths a step has."""

    name: str
    what: str
    lengths: tuple[int, ...]

    @property
    def prompts(self) -> int:
        return len(self.lengths) // GROUP


def settings(smoke: bool) -> dict[str, Setting]:
    """The two settings, or small ones of the same kind."""
    if smoke:
        return {
            "a": Setting("a", "16 completions of 32 tokens (smoke)", (32,) * 16),
            "b": Setting(
                "b", "32 completions, long tail (smoke)", (*TAIL[:112:4], 72, 96, 120, 160)
            ),
        }
    return {
        "a": Setting("a", "32 completions of exactly 64 tokens", (64,) * 32),
        "b": Setting("b", "128 completions, most under 64 tokens, up to 512", tuple(TAIL)),
    }


# --- the other environment ------------------------------------------------------------------------


def ensure_venv() -> Path:
    """Python of ``.venv-trl``; makes it, or brings it up to date, when the pins changed."""
    project = {name: importlib.metadata.version(name) for name in ("torch", "transformers")}
    wanted = [f"{name}=={version}" for name, version in {**project, **PINS}.items()]
    python = VENV / "bin" / "python"
    marker = VENV / "peer_trl.pins"
    if marker.is_file() and marker.read_text().split() == wanted:
        return python
    say(f"making {VENV}: {' '.join(wanted)} (about 1.5 GiB, some minutes)")
    if not python.is_file():
        subprocess.run([sys.executable, "-m", "venv", str(VENV)], check=True)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    index = ["--index-url", TORCH_INDEX] if TORCH_INDEX else []
    if subprocess.run([*pip, wanted[0], *index]).returncode:
        raise SystemExit(f"pip finds no {wanted[0]}; set TORCH_INDEX to an index that has it")
    subprocess.run([*pip, *wanted], check=True)
    marker.write_text("\n".join(wanted))
    return python


# --- what both sides are given --------------------------------------------------------------------


def write_plan(
    setting: Setting, steps: int, work: Path, args: argparse.Namespace
) -> dict[str, Any]:
    """Policy folder, prompts, and the rows of every step."""
    from palestra.envs.corpus_loader import shipped_functions
    from palestra.envs.repair import Repair, numbered
    from palestra.policies.config import TinyConfig
    from palestra.policies.tiny import build
    from palestra.policies.tokenizer import HFTokenizer
    from palestra.rl.types import Message

    sources = [function.source for function in shipped_functions()]
    policy = work / "policy"
    tiny = TinyConfig()
    if not policy.is_dir():
        build(policy, tiny, sources * 20, Repair.tools, args.seed)
    tokenizer = HFTokenizer(policy)
    texts = [
        tokenizer.render([Message(role="user", content=numbered(source))], (), reply=True)
        for source in sources
    ]
    rng = random.Random(args.seed)
    rng.shuffle(texts)
    longest = max(len(tokenizer.encode(text)) for text in texts)
    context = -(-(longest + max(setting.lengths)) // 64) * 64
    if context > tiny.max_position_embeddings:
        raise SystemExit(f"prompts of {longest} tokens leave too little room in the context")
    rows = len(setting.lengths)
    micro = min(args.trl_micro_batch, rows)
    plan = {
        "work": str(work),
        "policy": str(policy),
        "prompts": texts,
        "steps": [
            {
                "prompts": [(s * setting.prompts + i) % len(texts) for i in range(setting.prompts)],
                "lengths": rng.sample(setting.lengths, rows),
            }
            for s in range(steps)
        ],
        "rows": rows,
        "group": GROUP,
        "max_length": max(setting.lengths),
        "context": context,
        "lr": args.lr,
        "betas": [0.9, 0.95],
        "grad_clip": 1.0,
        "threads": args.threads,
        "engine_threads": args.engine_threads,
        "trl_micro_batch": micro,
        "seed": args.seed,
    }
    (work / "plan.json").write_text(json.dumps(plan))
    return plan


# --- the two processes ----------------------------------------------------------------------------


class Side:
    """One side's process and everything below it."""

    def __init__(self, name: str, python: Path | str, work: Path, threads: int) -> None:
        self.name = name
        self.log = work / f"{name}.log"
        environment = {
            k: v for k, v in os.environ.items() if k not in ("RAY_ADDRESS", "PYTHONPATH")
        }
        environment |= {
            "OMP_NUM_THREADS": str(threads),
            "HF_HUB_OFFLINE": "1",
            "TOKENIZERS_PARALLELISM": "false",
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONUNBUFFERED": "1",
        }
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [str(python), str(HERE / f"{name}_side.py"), str(work / "plan.json")],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=environment,
                cwd=ROOT,
                # Ctrl-C is ours to handle: we end both sides in order.
                start_new_session=True,
            )
        self._answers: queue.Queue[str] = queue.Queue()
        self._family: dict[int, psutil.Process] = {}
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._answers.put(line)
        self._answers.put("")

    def answer(self) -> dict[str, Any]:
        """Wait for the next answer; a side that died says why."""
        try:
            line = self._answers.get(timeout=ANSWER_TIMEOUT)
        except queue.Empty:
            raise SystemExit(f"{self.name}: no answer in {ANSWER_TIMEOUT:.0f} s") from None
        if not line:
            tail = "\n".join(self.log.read_text(errors="replace").splitlines()[-25:])
            raise SystemExit(f"{self.name} ended:\n{tail}")
        return json.loads(line)  # type: ignore[no-any-return]

    def tell(self, command: str, **details: object) -> None:
        assert self.process.stdin is not None
        print(json.dumps({"do": command, **details}), file=self.process.stdin, flush=True)

    def ask(self, command: str, **details: object) -> dict[str, Any]:
        """One command, its answer, and what it cost."""
        cpu = self.cpu()
        start = time.perf_counter()
        self.tell(command, **details)
        answer = self.answer()
        answer["wall_s"] = time.perf_counter() - start
        answer["cpu_s"] = self.cpu() - cpu
        return answer

    def family(self) -> list[psutil.Process]:
        """Every process below this side that was ever seen and still runs."""
        with contextlib.suppress(psutil.NoSuchProcess):
            root = psutil.Process(self.process.pid)
            for process in [root, *root.children(recursive=True)]:
                self._family.setdefault(process.pid, process)
        self._family = {pid: p for pid, p in self._family.items() if p.is_running()}
        return list(self._family.values())

    def cpu(self) -> float:
        """User and system seconds of all of them so far, reaped children included."""
        total = 0.0
        for process in self.family():
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                total += times.user + times.system + times.children_user + times.children_system
        return total

    def close(self) -> None:
        """End the process and whatever is left of its children, these and no others."""
        self.family()
        with contextlib.suppress(OSError, ValueError):
            self.tell("quit")
            assert self.process.stdin is not None
            self.process.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(30)
        for end in (psutil.Process.terminate, psutil.Process.kill):
            left = self.family()
            for process in left:
                with contextlib.suppress(psutil.NoSuchProcess):
                    end(process)
            psutil.wait_procs(left, timeout=5)
        self.process.wait()


@contextlib.contextmanager
def both_sides(python: Path, work: Path, threads: int) -> Iterator[dict[str, Side]]:
    """Start TRL, then Palestra, one after the other; end both whatever happens."""
    sides: dict[str, Side] = {}
    try:
        for name, interpreter in (("trl", python), ("palestra", Path(sys.executable))):
            start = time.perf_counter()
            sides[name] = Side(name, interpreter, work, threads)
            VERSIONS[name] = sides[name].answer()["versions"]
            say(f"  {name} is ready after {time.perf_counter() - start:.0f} s")
        yield sides
    finally:
        before = {number: signal.signal(number, signal.SIG_IGN) for number in ENDING}
        for side in sides.values():
            side.close()
        for number, handler in before.items():
            signal.signal(number, handler)


VERSIONS: dict[str, dict[str, str]] = {}


# --- measuring ------------------------------------------------------------------------------------


def measure(setting: Setting, args: argparse.Namespace, python: Path, work: Path) -> dict[str, Any]:
    """All steps of a setting, alternating; rows per side, warm-up included and marked."""
    total = args.steps + WARMUP
    say(f"setting {setting.name}: {setting.what}; {args.steps} steps after {WARMUP} to warm up")
    plan = write_plan(setting, total, work, args)
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in SIDES}
    floors: list[dict[str, Any]] = []
    with both_sides(python, work, args.threads) as sides:
        for step in range(total):
            for name in SIDES if step % 2 else reversed(SIDES):
                other = next(side for key, side in sides.items() if key != name)
                idle = other.cpu()
                threads = trl_threads(rows["trl"], args.threads)
                row = sides[name].ask("step", threads=threads)
                row |= {"step": step, "idle_cpu_s": other.cpu() - idle}
                if name == "trl":
                    row["threads"] = threads
                rows[name].append(row)
            floors.append(sides["palestra"].ask("floor"))
            pair = {name: rows[name][-1] for name in SIDES}
            check_same(pair, plan["steps"][step]["lengths"])
            say(
                f"  {setting.name} "
                + (f"warm-up {step + 1}/{WARMUP}" if step < WARMUP else "")
                + (f"{step + 1 - WARMUP}/{args.steps}" if step >= WARMUP else "")
                + "".join(
                    f"  {name} {row['wall_s']:.2f} s, reward {row['reward']:.3f}"
                    for name, row in pair.items()
                )
            )
    return {
        "what": setting.what,
        "rows": len(setting.lengths),
        "tokens_per_step": sum(setting.lengths),
        "longest": max(setting.lengths),
        "context": plan["context"],
        "trl_micro_batch": plan["trl_micro_batch"],
        "steps": rows,
        "floor_s": [floor["floor_s"] for floor in floors],
    }


def trl_threads(rows: Sequence[dict[str, Any]], threads: int) -> int:
    """Of TRL's next step: all of them twice (the first step is cold), one, then the faster."""
    if len(rows) < WARMUP:
        return 1 if len(rows) == WARMUP - 1 else threads
    *_, many, one = rows[:WARMUP]
    return threads if many["wall_s"] <= one["wall_s"] else 1


def check_same(pair: dict[str, dict[str, Any]], lengths: Sequence[int]) -> None:
    """Both sides saw the same prompt ids and made the planned number of tokens."""
    ours, theirs = pair["palestra"], pair["trl"]
    if ours["prompts"] != theirs["prompts"]:
        raise SystemExit("the two sides did not get the same prompts")
    if not ours["generated"] == theirs["generated"] == sum(lengths):
        raise SystemExit(
            f"tokens differ: planned {sum(lengths)}, Palestra {ours['generated']}, "
            f"TRL {theirs['generated']}"
        )


def counted(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    return [row for row in rows if row["step"] >= WARMUP]


def median(rows: Sequence[dict[str, Any]], *keys: str) -> float:
    """Median over the counted steps of one number of each row."""
    values = []
    for row in counted(rows):
        value: Any = row
        for key in keys:
            value = value[key]
        values.append(float(value))
    return statistics.median(values)


# --- figures --------------------------------------------------------------------------------------


Figures = dict[str, dict[str, Any]]


def figure(value: float, unit: str, how: str, target: str = "", met: bool = True) -> dict[str, Any]:
    return {
        "value": round(value, 4),
        "unit": unit,
        "target": target or "none, for information",
        "met": met,
        "how": how,
    }


def figures_of(name: str, result: dict[str, Any]) -> Figures:
    """Everything about one setting."""
    ours, theirs = result["steps"]["palestra"], result["steps"]["trl"]
    walls = {side: median(result["steps"][side], "wall_s") for side in SIDES}
    cpus = {side: median(result["steps"][side], "cpu_s") for side in SIDES}
    floor = statistics.median(result["floor_s"][WARMUP:])
    window = median(ours, "detail", "engine window")
    learn = median(ours, "detail", "learn, inside the learner")
    n = len(counted(ours))
    how = f"medians of {n} steps each, alternating in one run; {result['what']}"
    found: Figures = {}
    if name == "a":
        share = statistics.median(
            1 - row["detail"]["engine window"] / row["wall_s"] for row in counted(ours)
        )
        found["a_non_engine_share"] = figure(
            share,
            "share of the step",
            "(step - time from the first request to the last completion in the engine's actor) / "
            f"step, median of {n} steps",
            "<= 0.20",
            share <= 0.20,
        )
        found["a_wall_ratio"] = figure(walls["palestra"] / walls["trl"], "Palestra / TRL", how)
    else:
        speedup = walls["trl"] / walls["palestra"]
        found["b_speedup"] = figure(speedup, "TRL / Palestra", how, ">= 2", speedup >= 2)
        found["b_generate_speedup"] = figure(
            median(theirs, "phases", "generate") / median(ours, "phases", "generate"),
            "TRL / Palestra",
            "the generating phase alone: continuous against plain batching; " + how,
        )
        found["b_learn_speedup"] = figure(
            median(theirs, "phases", "learn") / median(ours, "phases", "learn"),
            "TRL / Palestra",
            "the learning phase alone: packed against padded rows; " + how,
        )
    found |= {
        f"{name}_engine_floor_s": figure(
            floor, "s", "the same requests made inside the engine's actor, no Ray between; " + how
        ),
        f"{name}_share_beyond_engine_floor": figure(
            1 - floor / walls["palestra"],
            "share of the step",
            "stricter than the window: what Ray calls cost the engine counts as ours; " + how,
        ),
        f"{name}_share_neither_engine_nor_learner": figure(
            1 - (window + learn) / walls["palestra"],
            "share of the step",
            "step less engine window and less the optimizer step inside the learner: glue, "
            "journal, weight sync, probe; " + how,
        ),
        f"{name}_engine_ms_per_decoding_step": figure(
            1000 * window / result["longest"],
            "ms",
            f"engine window / {result['longest']} decoding steps, prefill included",
        ),
        f"{name}_cpu_ratio": figure(
            cpus["palestra"] / cpus["trl"],
            "Palestra / TRL",
            "CPU seconds of all processes of a side per step; " + how,
        ),
    }
    for side in SIDES:
        found |= side_figures(f"{name}_{side}", result["steps"][side], how)
    return found


def side_figures(prefix: str, rows: Sequence[dict[str, Any]], how: str) -> Figures:
    """Seconds by phase, tokens per second and rewards of one side."""
    wall, cpu = median(rows, "wall_s"), median(rows, "cpu_s")
    generated, learned = median(rows, "generated"), median(rows, "learned")
    generate, learn = median(rows, "phases", "generate"), median(rows, "phases", "learn")
    rewards = [row["reward"] for row in rows]
    few = max(1, len(rewards) // 4)
    found = {
        f"{prefix}_wall_s": figure(wall, "s/step", how),
        f"{prefix}_cpu_s": figure(cpu, "CPU s/step", how),
        f"{prefix}_idle_cpu_s": figure(
            median(rows, "idle_cpu_s"), "CPU s/step", "what the other side used meanwhile; " + how
        ),
    }
    for phase in PHASES:
        found[f"{prefix}_{phase}_s"] = figure(median(rows, "phases", phase), "s/step", how)
    return found | {
        f"{prefix}_generate_tokens_per_s": figure(
            generated / generate, "tokens/s", "generated tokens / generating phase; " + how
        ),
        f"{prefix}_learn_tokens_per_s": figure(
            learned / learn,
            "tokens/s",
            "prompt and completion tokens, no padding / learning; " + how,
        ),
        f"{prefix}_step_tokens_per_s": figure(
            generated / wall, "tokens/s", "generated tokens / whole step; " + how
        ),
        f"{prefix}_reward_first": figure(
            statistics.mean(rewards[:few]), "reward", f"mean of the first {few} steps"
        ),
        f"{prefix}_reward_last": figure(
            statistics.mean(rewards[-few:]), "reward", f"mean of the last {few} steps"
        ),
    }


def machine() -> dict[str, Any]:
    """Where this was measured, and how busy it was with other things."""
    model = platform.processor()
    with contextlib.suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next((x.split(":")[1].strip() for x in lines if x.startswith("model name")), model)
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": platform.platform(),
        "python": platform.python_version(),
    }


# --- what people read -----------------------------------------------------------------------------


def say(text: str) -> None:
    print(text, flush=True)


def show(name: str, result: dict[str, Any], figures: Figures) -> None:
    """Where the time goes, and both reward curves."""
    steps = result["steps"]
    walls = {side: median(steps[side], "wall_s") for side in SIDES}
    say(f"\nsetting {name}: {result['what']} ({result['tokens_per_step']} tokens a step)")
    say(f"{'':34}{'palestra':>18}{'trl':>18}")
    for phase in PHASES:
        cells = [(median(steps[side], "phases", phase), walls[side]) for side in SIDES]
        say(f"{phase + ', s':34}" + "".join(f"{s:11.3f} {s / w:5.0%} " for s, w in cells))
    say(f"{'step, s':34}" + "".join(f"{walls[side]:11.3f}{'':7}" for side in SIDES))
    for label, key in (
        ("CPU s a step", "cpu_s"),
        ("CPU s of the other, waiting", "idle_cpu_s"),
        ("generating, tokens/s", "generate_tokens_per_s"),
        ("learning, tokens/s (no padding)", "learn_tokens_per_s"),
        ("whole step, tokens/s", "step_tokens_per_s"),
    ):
        values = [figures[f"{name}_{side}_{key}"]["value"] for side in SIDES]
        say(f"{label:34}" + "".join(f"{value:11.2f}{'':7}" for value in values))
    for side in SIDES:
        say(f"  inside {side}:")
        for key in steps[side][0]["detail"]:
            seconds = median(steps[side], "detail", key)
            say(f"    {key:30}{seconds:11.3f} {seconds / walls[side]:5.0%}")
    floor = figures[f"{name}_engine_floor_s"]["value"]
    say(f"    {'engine alone, without Ray':30}{floor:11.3f} (palestra)")
    say(f"  TRL's threads: {steps['trl'][-1]['threads']} (the faster choice in its warm-up)")
    padded = median(steps["trl"], "padded")
    say(
        f"  TRL learns {padded:.0f} positions a step, {median(steps['trl'], 'learned'):.0f} of "
        "them tokens; Palestra packs the tokens"
    )
    say("\n  reward by step (palestra | trl)")
    for ours, theirs in zip(steps["palestra"], steps["trl"], strict=True):
        bars = [
            f"{row['reward']:.3f} {'#' * round(30 * row['reward']):30}" for row in (ours, theirs)
        ]
        say(f"  {ours['step']:4} {bars[0]} | {bars[1]}")


def verdicts(figures: Figures) -> None:
    say("")
    for name, found in figures.items():
        if not found["target"].startswith("none"):
            mark = "met" if found["met"] else "NOT met"
            say(f"{name}: {found['value']} {found['unit']} (target {found['target']}: {mark})")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--steps", type=int, default=12, help="counted steps per side and setting")
    parser.add_argument("--settings", default="a,b", help="which settings, e.g. b")
    parser.add_argument("--smoke", action="store_true", help="2 steps of small settings")
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--threads", type=int, default=2, help="of TRL and of Palestra's learner")
    parser.add_argument(
        "--engine-threads", type=int, default=1, help="of vLLM (project default: 1)"
    )
    parser.add_argument("--trl-micro-batch", type=int, default=32, help="rows TRL learns at once")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, help="default bench/results/peer_trl.json; smoke: none")
    args = parser.parse_args()
    args.settings = args.settings.split(",")
    if unknown := set(args.settings) - set(settings(args.smoke)):
        parser.error(f"--settings knows a and b, not {', '.join(sorted(unknown))}")
    if args.smoke:
        args.steps = 2
    elif args.out is None:
        args.out = Path(__file__).resolve().parent / "results" / "peer_trl.json"
    return args


def main() -> int:
    args = arguments()
    for number in ENDING:
        # Explicitly, as a shell's background jobs inherit an ignored SIGINT.
        signal.signal(number, lambda signum, _: sys.exit(128 + signum))
    date = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    load = [os.getloadavg()[0]]
    if load[0] > 0.5:
        say(f"note: load average is {load[0]:.1f}; numbers are only good on a quiet machine")
    python = ensure_venv()
    results: dict[str, Any] = {}
    figures: Figures = {}
    for name in args.settings:
        with tempfile.TemporaryDirectory(prefix="palestra-peer-trl-") as work:
            results[name] = measure(settings(args.smoke)[name], args, python, Path(work))
        figures |= figures_of(name, results[name])
        load.append(os.getloadavg()[0])
    for name, result in results.items():
        show(name, result, figures)
    verdicts(figures)
    if args.out:
        report = {
            "date": date,
            "machine": machine() | {"load_before_and_after": load},
            "figures": figures,
            "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
            "versions": VERSIONS,
            "settings": results,
        }
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(json.dumps(report, indent=1) + "\n")
        say(f"\nwritten: {args.out}")
    return 0 if args.smoke or all(found["met"] for found in figures.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
