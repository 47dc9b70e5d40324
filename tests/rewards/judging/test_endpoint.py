"""The endpoint judge against a real local server that speaks the wire format, faults included."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from palestra.rewards.config import EndpointConfig, JudgeConfig
from palestra.rewards.judging.arbiter import Arbiter, JudgeError
from palestra.rewards.judging.endpoint import EndpointJudge, without_markers
from palestra.rewards.judging.fake import MemoryStore
from palestra.rewards.judging.questions import Response as Shown
from palestra.rewards.judging.questions import comparison
from palestra.rewards.judging.rubrics import Rubric
from palestra.rl.errors import Abstain, UserError
from palestra.rl.types import Message, Opinion

KEY = "sk-very-secret-7913"
ASKED = [Message(role="system", content="Judge."), Message(role="user", content="<|im_end|> ok")]
AT_ONCE = {"retry-after-ms": "1"}


class Server:
    """Answers with what stands in ``script``, the last over and over; keeps what it was sent."""

    def __init__(self) -> None:
        self.script: list[Any] = []
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str] = []
        self.released = threading.Event()
        self.url = ""

    async def answer(self, request: Request) -> Response:
        self.bodies.append(await request.json())
        self.keys.append(request.headers.get("authorization", ""))
        given = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if given == "hang":
            await asyncio.to_thread(self.released.wait)
            return Response(status_code=500)
        if isinstance(given, int):
            error = {"error": {"message": f"no: {self.keys[-1]}"}}
            return JSONResponse(error, status_code=given, headers=AT_ONCE)
        return Response(given, media_type="application/json") if given else Response("<html>")


@pytest.fixture(scope="module")
def running() -> Iterator[Server]:
    server, app = Server(), FastAPI()
    app.post("/v1/chat/completions")(server.answer)
    web = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error"))
    thread = threading.Thread(target=web.run)
    thread.start()
    while not web.started:
        assert thread.is_alive()
        thread.join(0.01)
    server.url = f"http://127.0.0.1:{web.servers[0].sockets[0].getsockname()[1]}/v1"
    yield server
    server.released.set()
    web.should_exit = True
    thread.join()


@pytest.fixture
def server(running: Server, monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("JUDGE_KEY", KEY)
    running.script, running.bodies, running.keys = [], [], []
    return running


def completion(text: str | None, **more: Any) -> str:
    choice = {"index": 0, "message": {"role": "assistant", "content": text}}
    usage = {"prompt_tokens": 12, "completion_tokens": 3, "total_tokens": 15}
    return json.dumps({"object": "chat.completion", "choices": [choice], "usage": usage} | more)


def asked(server: Server, *script: Any, **config: Any) -> Opinion:
    server.script = list(script)
    settings = {"base_url": server.url, "model": "m", "api_key_env": "JUDGE_KEY", "timeout": 30.0}

    async def ask() -> Opinion:
        judge = EndpointJudge(EndpointConfig(**settings | config), temperature=0.5)
        try:
            return await judge.ask(ASKED, max_tokens=7, seed=3)
        finally:
            await judge.close()

    return asyncio.run(ask())


def test_a_reply_and_what_was_sent(server: Server) -> None:
    opinion = asked(server, completion("Fine."))
    assert (opinion.text, opinion.input_tokens, opinion.output_tokens) == ("Fine.", 12, 3)
    assert opinion.turn is None
    (body,) = server.bodies
    sent = body.pop("messages")
    assert body == {"model": "m", "max_completion_tokens": 7, "temperature": 0.5, "seed": 3}
    assert [m["role"] for m in sent] == ["system", "user"]
    assert "<|" not in sent[1]["content"] and sent[1]["content"].replace("\u2060", "") == (
        "<|im_end|> ok"
    )
    assert server.keys == [f"Bearer {KEY}"]


def test_passing_faults_are_tried_again(server: Server) -> None:
    opinion = asked(server, 429, 500, 503, 408, completion("Fine."), retries=4)
    assert opinion.text == "Fine." and len(server.bodies) == 5


@pytest.mark.parametrize(
    ("fault", "calls"),
    [
        (429, 3),
        (500, 3),
        (401, 1),
        (404, 1),
        ("{", 1),
        ("[]", 1),
        ("null", 1),
        ('{"choices": []}', 1),
        ('{"choices": [{"message": null}]}', 1),
        (completion(["a"]), 1),  # type: ignore[arg-type]
        ("", 1),
    ],
)
def test_lasting_faults_are_errors_and_never_replies(
    server: Server, fault: int | str, calls: int
) -> None:
    with pytest.raises(JudgeError) as raised:
        asked(server, fault, retries=2)
    assert len(server.bodies) == calls
    assert KEY not in str(raised.value) and "m at http" in str(raised.value)


@pytest.mark.parametrize("refusal", [400, 413, 422])
def test_a_request_that_is_refused_will_never_have_a_reply(server: Server, refusal: int) -> None:
    with pytest.raises(Abstain):
        asked(server, refusal)
    assert len(server.bodies) == 1


def test_a_server_that_hangs_or_is_not_there_is_an_error(server: Server) -> None:
    with pytest.raises(JudgeError, match="timed out"):
        asked(server, "hang", timeout=0.2, retries=0)
    with pytest.raises(JudgeError, match="onnect"):
        asked(server, 500, base_url="http://127.0.0.1:9/v1", retries=0)


def test_a_reply_without_text_or_usage_is_empty(server: Server) -> None:
    opinion = asked(server, completion(None, usage=None))
    assert (opinion.text, opinion.input_tokens) == ("", 0)


def test_the_key_is_in_no_record(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    opinion = asked(server, completion(f"Your key is {KEY}."))
    assert opinion.text == "Your key is ***." and KEY not in repr(opinion)
    monkeypatch.delenv("JUDGE_KEY")
    with pytest.raises(UserError, match="environment variable JUDGE_KEY"):
        asked(server, completion("Fine."))


@pytest.mark.parametrize("wrong", [401, 404, 400])
def test_a_wrong_address_key_or_model_is_told_before_the_run(server: Server, wrong: int) -> None:
    async def check() -> None:
        judge = EndpointJudge(
            EndpointConfig(base_url=server.url, model="m", api_key_env="JUDGE_KEY"), temperature=0.0
        )
        server.script = [completion("H")]
        await judge.check()
        server.script = [wrong]
        with pytest.raises(UserError, match=rf"judge m at http\S+/v1/t=0: .*{wrong}") as raised:
            await judge.check()
        assert KEY not in str(raised.value)
        await judge.close()

    asyncio.run(check())


def test_a_comparison_over_the_wire(server: Server) -> None:
    question = comparison(
        "Say hello.",
        Shown(id="a", text="Hello"),
        Shown(id="b", text="Go away"),
        [Rubric(id="kind", text="It is kind.")],
        step=1,
        group_id="g",
    )
    good = f"Kinder.\n<verdict>{question.answers[0]}</verdict>"
    server.script = [completion("<verdict>first</verdict>"), 500, completion(good)]

    async def decide() -> int | None:
        config = EndpointConfig(base_url=server.url, model="m")
        judge = EndpointJudge(config, temperature=0.0)
        arbiter = Arbiter(judge, JudgeConfig(), MemoryStore())
        choice = (await arbiter.decide(question)).choice
        assert arbiter.metrics(1)["judge/no_verdict"] == 1
        assert arbiter.metrics(1)["judge/input_tokens"] == 24
        await judge.close()
        return choice

    assert asyncio.run(decide()) == 0
    seeds = [body["seed"] for body in server.bodies]
    assert seeds[0] != seeds[1] == seeds[2]
    assert server.keys == ["Bearer none"] * 3


@pytest.mark.parametrize(
    "marker",
    [
        *("<|im_end|>", "<|eot_id|>", "<｜User｜>", "</s>", "[INST]", "[/INST]", "<<SYS>>"),
        *("<start_of_turn>", "<end_of_turn>", "<think>", "</think>", "<tool_call>", "<bos>"),
    ],
)
def test_no_marker_of_a_template_survives(marker: str) -> None:
    text = f"x {marker} y"
    assert marker not in without_markers(text)
    assert without_markers(text).replace("\u2060", "") == text


@pytest.mark.parametrize("code", ["vector<int> a;", "if x < y: a[0] << 2", "<div>[INFO]</div>"])
def test_ordinary_code_is_sent_as_it_is(code: str) -> None:
    assert without_markers(code) == code


def test_an_endpoint_needs_an_address() -> None:
    with pytest.raises(ValueError, match=r"needs endpoint\.base_url"):
        JudgeConfig(kind="endpoint")
