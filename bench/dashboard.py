"""How fast the dashboard is with 100,000 episodes, one of them of 32,768 tokens, in a real browser.

``python bench/dashboard.py [--episodes N] [--folder DIR]`` writes ``bench/results/dashboard.json``.
The journal is made up: random words, most episodes of some hundred tokens.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlencode
from urllib.request import urlopen

from playwright.sync_api import Page, sync_playwright
from report import machine_of, write_report

from palestra.rl.journal import Journal

LONG = 32_768
GROUP, STEP = 8, 128
WORDS = (
    "clamp index return value list error test path node merge sort range empty first last".split()
)
REPEATS = 5


def main() -> None:
    """Make the journal, start the server, measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--episodes", type=int, default=100_000)
    parser.add_argument("--folder", type=Path, default=None, help="keep the run here")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        run = folder / "runs" / "large"
        if not run.is_dir():
            make_run(run, args.episodes)
        with served(folder) as address:
            index_s = indexed(address)
            figures = measured(address, args.episodes)
    figures["index"] = figure(index_s, "s", "", "from no index to all episodes, one thread")
    path = Path(__file__).parent / "results" / "dashboard.json"
    write_report(path, figures, f"{args.episodes} episodes", machine_of())


def make_run(run: Path, episodes: int) -> None:
    """A journal of so many episodes; the last one is long."""
    run.mkdir(parents=True)
    with Journal(run / "journal.sqlite") as journal:
        for step in range(1, episodes // STEP + 1):
            journal.finish_step(step, {"reward/mean": step / episodes, "timing_s/step": 1.0})
    draw = random.Random(0)
    with closing(sqlite3.connect(run / "journal.sqlite")) as connection:
        rows = (episode(i, LONG if i == episodes - 1 else 200, draw) for i in range(episodes))
        connection.executemany("INSERT INTO trajectories VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.commit()


def episode(number: int, tokens: int, draw: random.Random) -> tuple[Any, ...]:
    """A row of the journal."""
    step, group = 1 + number // STEP, f"{number // GROUP:06d}"
    name, task = f"{group}/{number % GROUP}", f"repair/{draw.choice(WORDS)}/{number % 97}"
    text = " ".join(draw.choices(WORDS, k=tokens))
    solved = draw.random() < 0.5
    turn = {
        "context_ids": list(range(40)),
        "token_ids": draw.choices(range(1000), k=tokens),
        "logprobs": [-draw.expovariate(2.0) for _ in range(tokens)],
        "version": step - 1,
        "message": {"role": "assistant", "content": text, "calls": []},
    }
    record = {
        "id": name,
        "group_id": group,
        "task_id": task,
        "step": step,
        "prompt": [{"role": "user", "content": "Fix it.", "calls": []}],
        "turns": [turn],
        "stop": draw.choice(["submitted", "max_turns"]),
        "outcome": "graded",
        "temperature": 1.0,
        "reward": {"total": float(solved), "parts": {"tests_pass": float(solved)}},
        "verdict": {"outcome": "graded", "passed": {"c#0": solved}},
    }
    return (name, step, group, task, json.dumps(record), time.time())


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The command itself, on a free port, with a fresh index."""
    shutil.rmtree(folder / "cache", ignore_errors=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = ["-m", "palestra.deploy.cli", "dashboard", str(folder / "runs"), "--port", str(port)]
    server = subprocess.Popen([sys.executable, *command, "--cache", str(folder / "cache")])
    address = f"http://127.0.0.1:{port}"
    try:
        for _ in range(600):
            try:
                urlopen(f"{address}/api/session").close()
                break
            except OSError:
                time.sleep(0.1)
        yield address
    finally:
        server.terminate()
        server.wait()


def ask(address: str, path: str, **query: object) -> Any:
    """An answer of the API about the run."""
    with urlopen(f"{address}/api/runs/large/{path}?{urlencode(query)}") as answer:
        return json.load(answer)


def indexed(address: str) -> float:
    """Seconds until every episode is in the index."""
    start = time.monotonic()
    while True:
        progress = ask(address, "trajectories", limit=1)["progress"]
        if progress["indexed"] >= progress["recorded"]:
            return time.monotonic() - start
        time.sleep(1.0)


def measured(address: str, episodes: int) -> dict[str, dict[str, object]]:
    """Times of the API and of pages."""
    last = f"{(episodes - 1) // GROUP:06d}/{(episodes - 1) % GROUP}"
    lists = {
        "list": {},
        "list by reward": {"sort": "reward"},
        "list filtered": {"solved": "false", "stop": "max_turns", "environment": "repair"},
        "search": {"q": "merge sort"},
        "search a task": {"task": "repair/clamp/5", "q": "node"},
    }
    found = {
        name: figure(timed(lambda q=q: ask(address, "trajectories", **q)), "ms", "< 300", "API")
        for name, q in lists.items()
    }
    found["facets"] = figure(timed(lambda: ask(address, "facets")), "ms", "< 300", "API")
    with sync_playwright() as playwright:
        path = shutil.which("chromium")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        views = {
            "first paint": ("", "table.runs tbody tr"),
            "page of trajectories": ("#/run/large/trajectories", "table.episodes tbody tr"),
            "32k tokens, conversation": (f"#/run/large/trajectory?id={last}", ".bubble.assistant"),
            "32k tokens, coloured": (
                f"#/run/large/trajectory?id={last}&view=tokens",
                ".tokens .block",
            ),
        }
        for name, (place, shown) in views.items():
            seconds = timed(lambda p=place, s=shown: opened(page, f"{address}/{p}", s))
            found[name] = figure(seconds, "ms", "< 1000", "address to content, Chromium")
        browser.close()
    return found


def opened(page: Page, address: str, shown: str) -> None:
    """Load an address from nothing until something is on the page."""
    page.goto("about:blank")
    page.goto(address, wait_until="commit")
    page.wait_for_selector(shown)


def timed(work: Any) -> float:
    """Median milliseconds of some tries."""
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return median(found)


def figure(value: float, unit: str, target: str, how: str) -> dict[str, object]:
    """A figure; without a target it is met."""
    met = not target or value < float(target.removeprefix("< "))
    return {"value": round(value, 1), "unit": unit, "target": target, "met": met, "how": how}


if __name__ == "__main__":
    main()
