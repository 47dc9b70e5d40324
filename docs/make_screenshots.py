"""Pictures of every view of the dashboard: ``python docs/make_screenshots.py RUNS OUT``.

Needs Chromium. The first run of the folder that has episodes is shown, light and dark.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from urllib.parse import quote, urlencode
from urllib.request import urlopen

from playwright.sync_api import sync_playwright

PORT = 8799
ADDRESS = f"http://127.0.0.1:{PORT}"


def main(runs: str, out: str) -> None:
    """Serve the runs, visit each view, save what is seen."""
    Path(out).mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "palestra.deploy.cli", "dashboard", runs, "--port", str(PORT)]
    with tempfile.TemporaryDirectory() as cache:
        server = subprocess.Popen([*command, "--cache", cache])
        try:
            _photograph(Path(out))
        finally:
            server.terminate()
            server.wait()


def _photograph(out: Path) -> None:
    run, episode = _shown()
    with sync_playwright() as playwright:
        path = shutil.which("chromium") or shutil.which("google-chrome")
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1280, "height": 800})
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            for name, place in _views(run, episode).items():
                page.goto("about:blank")
                page.goto(f"{ADDRESS}/#/{place}")
                page.wait_for_selector("main[aria-busy=false] .head")
                page.screenshot(path=out / f"{name}-{scheme}.png")
        browser.close()


def _shown() -> tuple[str, str]:
    """A run and its longest episode, once the server is up and has indexed it."""
    for _ in range(300):
        try:
            name = next(run["name"] for run in _get("runs")["runs"] if run["step"])
            longest = _get(f"runs/{quote(name)}/trajectories?limit=1&sort=-tokens")["episodes"]
            if longest:
                return name, longest[0]["id"]
        except OSError:  # not up yet
            pass
        time.sleep(0.2)
    sys.exit("no run has an episode")


def _views(run: str, episode: str) -> dict[str, str]:
    own = f"run/{quote(run, safe='')}"
    one = f"{own}/trajectory?{urlencode({'id': episode})}"
    tabs = {name: f"{own}/{name}" for name in ("trajectories", "groups", "evals", "health")}
    return {"runs": "", "metrics": own, **tabs, "trajectory": one, "tokens": f"{one}&view=tokens"}


def _get(path: str) -> dict[str, list[dict[str, str]]]:
    with urlopen(f"{ADDRESS}/api/{path}") as answer:
        found: dict[str, list[dict[str, str]]] = json.load(answer)
        return found


if __name__ == "__main__":
    main(*sys.argv[1:])
