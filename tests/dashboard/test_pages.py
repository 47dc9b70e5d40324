"""The pages in a real browser: every view, live updates, keys, and texts that attack."""

from __future__ import annotations

import json
import math
import os
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote, urlencode

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Page, expect, sync_playwright

from palestra.deploy.dashboard.security import Access
from palestra.rl.journal import Journal
from palestra.rl.types import Message, Reward, ToolCall, Trajectory, Turn, Verdict

Make = Callable[..., Trajectory]
Open = Callable[..., Page]

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = pytest.mark.skipif(
    not CHROMIUM and not os.environ.get("CI"), reason="there is no chromium"
)

ATTACKS: list[str] = json.loads(Path(__file__).with_name("attacks.json").read_text())
GRAVE = ("serious", "critical")
STRANGE = "script, img, iframe, style, object, embed, link, meta, base, math, template"
TOKEN = "a-token-of-the-test-0123456789"
VIOLATIONS = """
window.__violations = [];
addEventListener("securitypolicyviolation", (e) => window.__violations.push(e.violatedDirective));
"""
DROPPED = "net::ERR_NETWORK_CHANGED"
"""Chromium drops what it loads whenever a container somewhere on the machine gets its interface."""
PATIENCE_MS = 60_000
"""The machine may be busy."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    expect.set_options(timeout=PATIENCE_MS)
    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root, whom CI runs as.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield started
        started.close()


@pytest.fixture
def visit(browser: Browser) -> Iterator[Open]:
    """Opens pages; at the end none has had an error or broken the policy."""
    pages: list[Page] = []
    said: list[str] = []
    dropped: list[str] = []

    def hear(line: ConsoleMessage) -> None:
        if line.type == "error":
            (dropped if DROPPED in line.text else said).append(line.text)

    def open_page(address: str, **options: object) -> Page:
        page = browser.new_page(viewport={"width": 1280, "height": 800}, **options)  # type: ignore[arg-type]
        page.set_default_timeout(PATIENCE_MS)
        page.add_init_script(VIOLATIONS)
        page.on("console", hear)
        page.on("pageerror", lambda error: said.append(str(error)))
        pages.append(page)
        page.goto(address)
        while dropped:
            dropped.clear()
            page.reload()
        return page

    yield open_page
    broken = [v for page in pages for v in page.evaluate("() => window.__violations")]
    for page in pages:
        page.close()
    assert (said, broken) == ([], [])


def at(server: str, *path: str, **query: object) -> str:
    """The address of a view."""
    place = "/".join(quote(part, safe="") for part in path)
    return f"{server}/#/{place}?{urlencode(query)}"


def ready(page: Page) -> None:
    expect(page.locator("main[aria-busy=false] .head")).to_be_visible()


def views(server: str, run: str, episode: str) -> list[str]:
    """Every view of a run."""
    return [
        f"{server}/",
        at(server, "run", run),
        at(server, "run", run, spread="yes", smooth=0.6, axis="time"),
        *(at(server, "run", run, name) for name in ("trajectories", "groups", "evals")),
        *(at(server, "run", run, name) for name in ("health", "about")),
        at(server, "run", run, "trajectory", id=episode),
        at(server, "run", run, "trajectory", id=episode, view="tokens"),
        at(server, "compare", runs=run),
        at(server, "api"),
    ]


def test_every_view_is_whole_and_accessible(tiny: Path, server: str, visit: Open) -> None:
    page = visit(server)
    for address in views(server, "tiny", "2/b/1"):
        page.goto(address)
        ready(page)
        assert page.locator(".message").count() == 0, address
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
            found = [v for v in Axe().run(page).response["violations"] if v["impact"] in GRAVE]
            shown = [(v["id"], [node["html"][:99] for node in v["nodes"]]) for v in found]
            assert shown == [], (address, scheme)


def test_attacks_are_shown_as_text(
    folder: Path, server: str, visit: Open, make_trajectory: Make
) -> None:
    name = "<img src=x onerror='window.__hit = true'>"
    episode = "<script>window.__hit = true</script>"
    evil = evil_trajectory(make_trajectory(episode, group=ATTACKS[1]))
    (folder / name).mkdir()
    (folder / name / "config.toml").write_text(json.dumps(ATTACKS))
    (folder / name / "versions.json").write_text(json.dumps({a: a for a in ATTACKS}))
    with Journal(folder / name / "journal.sqlite") as journal:
        journal.add_trajectory(evil)
        journal.finish_step(1, {f"hacking/{a}": 1.0 for a in ATTACKS} | {"reward/mean": 0.5})
    page = visit(server)
    for address in views(server, name, episode):
        page.goto(address)
        ready(page)
        assert page.evaluate("() => window.__hit") is None, address
        strange = (
            "main :is(script, img, iframe, style, object, embed, link, meta, base, math, template)"
        )
        assert page.locator(strange).count() == 0, address
        assert page.locator("[onerror], [onload], [onclick], [href^=javascript]").count() == 0
    page.goto(at(server, "run", name, "trajectory", id=episode))
    ready(page)
    missing = page.evaluate(
        """async (attacks) => {
            const { visible } = await import("/static/lib/dom.js");
            const text = document.querySelector("main").textContent;
            return attacks.filter((own) => !text.includes(visible(own)));
        }""",
        ATTACKS,
    )
    assert missing == []
    hidden = "[\\u0000-\\u0008\\u001b\\u009b\\u200b\\u202a-\\u202e\\u2066-\\u2069\\ufeff]"
    assert not page.evaluate(
        "(hidden) => new RegExp(hidden).test(document.body.textContent)", hidden
    )


def evil_trajectory(t: Trajectory) -> Trajectory:
    """Attacks wherever a text can be."""
    turns = tuple(
        Turn(
            context_ids=(1,),
            token_ids=(2,),
            logprobs=(-0.5,),
            version=0,
            message=Message(
                role="assistant",
                content=attack,
                calls=(ToolCall(name=attack, arguments={attack: attack}),),
            ),
            observation=attack,
            error=attack,
        )
        for attack in ATTACKS
    )
    return replace(
        t,
        task_id="".join(ATTACKS),
        prompt=tuple(Message(role="user", content=attack) for attack in ATTACKS),
        turns=turns,
        reward=Reward(total=1.0, parts=dict.fromkeys(ATTACKS, 1.0)),
        verdict=Verdict(outcome=t.outcome, passed=dict.fromkeys(ATTACKS, False), reason=ATTACKS[0]),
        reason=ATTACKS[0],
        patch="\n".join(ATTACKS),
    )


def test_what_is_recorded_appears_by_itself(
    tiny: Path, server: str, visit: Open, make_trajectory: Make
) -> None:
    page = visit(at(server, "run", "tiny", "trajectories"))
    expect(page.get_by_text("14 episodes")).to_be_visible()
    expect(page.get_by_text("live")).to_be_visible()
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(make_trajectory("3/a/0", group="3/a", step=3, reward=0.0))
    expect(page.get_by_text("15 episodes")).to_be_visible()
    page.goto(at(server, "run", "tiny"))
    expect(page.locator("figure[data-metric='reward/mean'] .readout")).to_have_text("0.667")
    with Journal(tiny / "journal.sqlite") as journal:
        journal.finish_step(3, {"reward/mean": 0.25})
    expect(page.locator("figure[data-metric='reward/mean'] .readout")).to_have_text("0.25")
    assert page.locator(".head").count() == 1
    page.goto(f"{server}/")
    ready(page)
    shutil.copytree(tiny, tiny.parent / "another")
    expect(page.get_by_role("link", name="another")).to_be_visible()


def test_a_connection_that_is_lost_and_comes_back(
    tiny: Path, server: str, visit: Open, make_trajectory: Make
) -> None:
    page = visit(at(server, "run", "tiny", "trajectories"))
    expect(page.get_by_text("14 episodes")).to_be_visible()
    page.evaluate("() => dispatchEvent(new Event('offline'))")
    expect(page.get_by_text("no connection")).to_be_visible()
    expect(page.get_by_text("14 episodes")).to_be_visible()
    with Journal(tiny / "journal.sqlite") as journal:
        journal.add_trajectory(make_trajectory("3/a/0", group="3/a", step=3, reward=0.0))
    page.evaluate("() => dispatchEvent(new Event('online'))")
    expect(page.get_by_text("15 episodes")).to_be_visible()
    expect(page.get_by_text("no connection")).not_to_be_visible()


def test_filters_search_and_keys(tiny: Path, server: str, visit: Open) -> None:
    page = visit(at(server, "run", "tiny", "trajectories"))
    ready(page)
    page.keyboard.press("/")
    expect(page.get_by_label("Search")).to_be_focused()
    page.keyboard.type("clamp nothing")
    expect(page.get_by_text("No episode matches.")).to_be_visible()
    page.get_by_label("Search").fill("")
    page.get_by_label("Solved").select_option("no")
    expect(page.get_by_text("5 episodes")).to_be_visible()
    assert "solved=false" in page.url
    ready(page)
    page.keyboard.press("Escape")  # leaves the search
    page.keyboard.press("j")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name=re.compile("^2.[bc]"))).to_be_visible()
    page.goto(at(server, "run", "tiny", "trajectory", id="1/b/0", split="train"))
    expect(page.get_by_role("heading", name="1/b/0")).to_be_visible()
    for key, there in (
        ("n", "1/b/1"),
        ("j", "1/b/2"),
        ("k", "1/b/1"),
        ("n", "1/b/2"),
        ("p", "1/b/1"),
    ):
        ready(page)
        page.keyboard.press(key)
        expect(page.get_by_role("heading", name=there)).to_be_visible()
    ready(page)
    page.keyboard.press("t")
    expect(page.locator(".tokens")).to_be_visible()
    page.keyboard.press("?")
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.keyboard.press("g")
    page.keyboard.press("r")
    expect(page.get_by_role("heading", name="Runs")).to_be_visible()


def test_tokens_are_coloured_and_can_be_asked(tiny: Path, server: str, visit: Open) -> None:
    page = visit(at(server, "run", "tiny", "trajectory", id="2/b/0", view="tokens"))
    expect(page.locator(".tokens")).to_contain_text("1 2 3 4 5")
    sizes = "() => Object.fromEntries([...CSS.highlights].map(([name, own]) => [name, own.size]))"
    page.wait_for_function("() => CSS.highlights.get('given')?.size === 2")
    assert page.evaluate(sizes)["heat-level-0"] == 3
    page.get_by_label("Colour").select_option("advantage")
    assert page.evaluate(sizes)["heat-sign-0"] == 3
    page.locator(".tokens").focus()
    for _ in range(4):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".inspector")).to_contain_text("id 4, turn 1, sampled with weights 0")
    expect(page.locator(".inspector")).to_contain_text("log-probability -0.2 (p = 0.819)")
    expect(page.get_by_label("Colour").locator("option", has_text="ratio")).to_be_disabled()
    with Journal(tiny / "journal.sqlite") as journal:
        journal.set_meta("learner_logprobs/2", {"2/b/0": [-0.1, -0.2 + 1e-7, -0.3 - math.log(4)]})
    page.goto(at(server, "run", "tiny", "trajectory", id="2/b/1", view="tokens"))
    page.get_by_role("link", name="2/b/0").last.click()
    expect(page.get_by_label("Colour")).to_have_value("ratio")
    page.wait_for_function("() => CSS.highlights.get('heat-level-7')?.size === 1")
    assert page.evaluate(sizes)["heat-level-0"] == 2
    page.locator(".tokens").focus()
    for _ in range(5):
        page.keyboard.press("ArrowRight")
    expect(page.locator(".inspector")).to_contain_text("learner / engine 0.25 (log -1.4e+0)")


def test_charts_zoom_move_and_compare(tiny: Path, server: str, visit: Open) -> None:
    shutil.copytree(tiny, tiny.parent / "other")
    page = visit(f"{server}/")
    for run in ("tiny", "other"):
        page.get_by_label(f"Compare {run}").check()
    page.get_by_role("button", name="Compare 2 runs").click()
    expect(page.locator("figure[data-metric='reward/mean'] .readout span")).to_have_count(2)
    canvas = page.locator("figure[data-metric='reward/mean'] canvas")
    left, right = {"x": 80, "y": 60}, {"x": 240, "y": 60}
    canvas.drag_to(canvas, source_position=left, target_position=right)  # type: ignore[arg-type]
    expect(page.get_by_role("button", name="Show all steps")).to_be_visible()
    assert "zoom=1." in page.url
    page.get_by_role("button", name="Show all steps").click()
    expect(page.get_by_role("button", name="Show all steps")).not_to_be_visible()
    page.get_by_text("numbers").first.click()
    expect(page.get_by_role("rowheader", name="2").first).to_be_visible()
    page.goto(at(server, "run", "tiny", match="odd"))
    page.locator("canvas").focus()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("ArrowLeft")
    expect(page.locator(".readout")).to_have_text("1 at 1")


def test_labels_of_an_axis_differ(tiny: Path, server: str, visit: Open) -> None:
    page = visit(f"{server}/#/")
    labels = page.evaluate(
        """async () => {
            const { tick } = await import("/static/lib/format.js");
            const { ticks } = await import("/static/lib/scale.js");
            const ranges = [
                [2.49e9, 2.56e9], [1.2e-14, 6e-14], [1.2, 1.222], [0, 1], [980, 1040], [-0.5, 0.5],
            ];
            return ranges.map(([low, high]) => {
                const found = ticks(low, high, 4);
                return found.map((value) => tick(value, found[1] - found[0]));
            });
        }"""
    )
    assert labels[0] == ["2.50e+9", "2.52e+9", "2.54e+9", "2.56e+9"]
    assert labels[2] == ["1.2", "1.21", "1.22"]
    assert labels[3] == ["0", "0.5", "1"] and labels[4][0] == "980"
    assert all(len({*each}) == len(each) > 1 for each in labels)


def test_a_token_is_asked_for(tiny: Path, serve: Callable[..., str], browser: Browser) -> None:
    page = browser.new_page()
    page.set_default_timeout(PATIENCE_MS)
    page.goto(f"{serve(Access(token=TOKEN))}/#/run/tiny")
    for token, found in (("wrong", "this is not the token"), (TOKEN, "reward/mean")):
        page.get_by_label("Token").fill(token)
        page.get_by_role("button", name="Open").click()
        expect(page.get_by_text(found, exact=True)).to_be_visible()
    assert page.evaluate("() => document.cookie") == ""
    page.close()


def test_states_of_folders_are_said(tiny: Path, server: str, visit: Open) -> None:
    (tiny.parent / "half").mkdir()
    (tiny.parent / "half" / "journal.sqlite").touch()
    (tiny.parent / "noise").mkdir()
    (tiny.parent / "noise" / "journal.sqlite").write_bytes(b"nothing of a journal" * 99)
    page = visit(f"{server}/")
    expect(page.get_by_role("row", name=re.compile("half.*empty"))).to_be_visible()
    expect(page.get_by_role("row", name=re.compile("noise.*unreadable"))).to_be_visible()
    page.goto(at(server, "run", "noise"))
    expect(page.get_by_text("the journal cannot be used")).to_be_visible()
