"""The engine that asks a server, against a stub on the loopback interface: what it sends, and what it makes of replies."""

import sys
import threading
import time
from concurrent.futures import as_completed

import pytest
from stub_server import StubServer, text_of

from aha.config import ServerConfig
from aha.engine.sampling import Sampling
from aha.engine.server import ServerEngine
from aha.remote import ask
from aha.rewards.kept import Kept
from aha.types import UserError

pytest.importorskip("openai")

SAMPLING = Sampling("42/toy", max_tokens=7)


def chat(text: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": text}]


def engine_of(server: StubServer, kept=None, **settings) -> ServerEngine:
    values = {"base_url": server.url, "model": "stub", "max_retries": 0, **settings}
    return ServerEngine(ServerConfig(**values), kept)


def texts(replies) -> list[list[str | None]]:
    return [[reply.text for reply in group] for group in replies]


def test_replies_stand_in_the_order_of_the_requests_whoever_comes_first(serve):
    server = serve(lambda request: time.sleep(0.2 if text_of(request) == "a" else 0) or text_of(request).upper())
    assert texts(engine_of(server).generate([chat("a"), chat("b")], 2, SAMPLING)) == [["A", "A"], ["B", "B"]]


def test_every_sample_has_a_seed_of_its_own_and_the_same_one_next_time(serve):
    server = serve(lambda request: "x")

    def seeds() -> list[int]:
        server.asked.clear()
        engine_of(server, concurrency=1).generate([chat("a"), chat("b")], 2, SAMPLING, ["p/0", "p/1"])
        return [request["seed"] for request in server.asked]

    first = seeds()
    assert len(set(first)) == 4
    Kept.of.cache_clear()  # as in another process
    assert seeds() == first
    assert all(0 <= seed < 2**31 for seed in first)


def test_only_what_is_set_is_sent(serve):
    server = serve(lambda request: "x")
    engine_of(server).generate([chat("a")], 1, SAMPLING)
    [request] = server.asked
    assert request.keys() == {"model", "messages", "max_tokens", "temperature", "seed"}
    assert (request["model"], request["max_tokens"], request["temperature"]) == ("stub", 7, 1.0)
    full = Sampling("s", 7, temperature=0.6, top_p=0.9, top_k=20, min_p=0.05)
    engine_of(server, extra_body={"reasoning_effort": "high"}).generate([chat("a")], 1, full, stop=["\nQuestion:"])
    assert {"top_p": 0.9, "top_k": 20, "min_p": 0.05, "reasoning_effort": "high"}.items() <= server.asked[1].items()
    assert server.asked[1]["stop"] == ["\nQuestion:"]


def test_a_text_is_continued_and_messages_are_answered(serve):
    server = serve(lambda request: "x")
    engine_of(server).generate(["1+1="], 1, SAMPLING)
    engine_of(server).generate([chat("1+1?")], 1, SAMPLING)
    assert server.paths == ["/v1/completions", "/v1/chat/completions"]
    assert server.asked[0]["prompt"] == "1+1="


def test_tokens_the_end_and_thoughts_that_the_server_keeps_apart_are_read(serve):
    server = serve(lambda request: {"content": None, text_of(request): "It is 5."}, finish_reason="length")
    replies = engine_of(server).generate([chat("reasoning_content"), chat("reasoning")], 1, SAMPLING)
    assert [[(reply.text, reply.thoughts) for reply in group] for group in replies] == [[("", "It is 5.")]] * 2
    assert {(reply.finish_reason, reply.completion_tokens) for [reply] in replies} == {("length", 5)}


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        *((word, "stop") for word in ("stop", "eos", "eos_token", "stop_sequence", None)),
        *((word, "length") for word in ("length", "content_filter", "tool_calls", "abort", "")),
    ],
)
def test_an_answer_is_finished_only_if_its_model_ended_it(serve, said, meant):
    server = serve(lambda request: "It is", finish_reason=said)
    assert ask(ServerConfig(base_url=server.url, model="stub"), chat("a")).finish_reason == meant


def test_the_key_comes_from_the_environment(serve, monkeypatch):
    server = serve(lambda request: "x")
    monkeypatch.setenv("TOY_KEY", "secret")
    engine_of(server, api_key_env="TOY_KEY").generate([chat("a")], 1, SAMPLING)
    engine_of(server, api_key_env="NO_SUCH_KEY").generate([chat("b")], 1, SAMPLING)
    assert server.keys == ["Bearer secret", "Bearer none"]


def test_no_more_requests_at_a_time_than_allowed(serve):
    lock, under_way, most = threading.Lock(), [0], [0]

    def reply(request):
        with lock:
            under_way[0] += 1
            most[0] = max(most[0], under_way[0])
        time.sleep(0.05)
        with lock:
            under_way[0] -= 1
        return "x"

    engine_of(serve(reply), concurrency=3).generate([chat(str(i)) for i in range(9)], 1, SAMPLING)
    assert 1 < most[0] <= 3


def test_a_busy_server_is_asked_again(serve):
    answers = iter([429, 503, "x"])
    server = serve(lambda request: next(answers))
    assert texts(engine_of(server, max_retries=2).generate([chat("a")], 1, SAMPLING)) == [["x"]]


RUBBISH = [
    b"<html>busy</html>",
    b"not json",
    b"[]",
    b"{}",
    b'{"choices": []}',
    b'{"choices": [{"finish_reason": "stop"}]}',
    b'{"choices": [{"message": {"content": [1]}}]}',
    b"\xff\xfe",
]


@pytest.mark.parametrize("body", RUBBISH)
def test_rubbish_is_a_failure_that_says_so(serve, body):
    server = serve(lambda request: body)
    reply = ask(ServerConfig(base_url=server.url, model="stub"), chat("a"))
    assert reply.text is None
    assert reply.failure == "the reply is no completion in the form of the OpenAI interface"


def test_some_requests_may_fail(serve):
    server = serve(lambda request: 400 if text_of(request) == "bad" else "x")
    replies = engine_of(server, max_failed=0.5).generate([chat("bad"), chat("good")], 1, SAMPLING)
    assert texts(replies) == [[None], ["x"]]
    assert "status 400" in replies[0][0].failure


def test_too_many_failures_stop_the_stage_early(serve):
    server = serve(lambda request: 503)
    requests = [chat(str(i)) for i in range(100)]
    with pytest.raises(UserError, match=r"http.*: 6 requests failed, of 100, the last: .*503.*run again"):
        engine_of(server, concurrency=1).generate(requests, 1, SAMPLING)
    assert len(server.asked) <= 7


def test_a_server_that_does_not_answer_in_time_has_failed(serve):
    server = serve(lambda request: time.sleep(1) or "x")
    with pytest.raises(UserError, match="timed out"):
        engine_of(server, timeout=0.1).generate([chat("a")], 1, SAMPLING)


def test_a_server_that_is_not_there_is_one_line(serve):
    server = serve(lambda request: "x")
    server.close()
    with pytest.raises(UserError, match=r"1 requests failed, of 1, the last: Connection error"):
        engine_of(server).generate([chat("a")], 1, SAMPLING)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_what_no_request_will_get_is_told_at_once(serve, status):
    server = serve(lambda request: status)
    with pytest.raises(UserError, match=f"http.*{status}"):
        engine_of(server, concurrency=1, max_failed=0.9).generate([chat(str(i)) for i in range(50)], 1, SAMPLING)
    assert len(server.asked) <= 2


def test_what_was_answered_is_kept_and_only_the_rest_is_asked_for(serve, tmp_path):
    is_up = [False]
    server = serve(lambda request: "x" if is_up[0] or text_of(request) == "a" else 503)
    file = tmp_path / "replies" / "step-000001.jsonl"
    engine = engine_of(server, file, concurrency=1)
    with pytest.raises(UserError, match="run again to ask for the rest"):
        engine.generate([chat("a"), chat("b")], 1, SAMPLING)
    Kept.of.cache_clear()  # as in another process
    file.write_text(file.read_text() + '\n{"key": "cut off')
    is_up[0] = True
    server.asked.clear()
    assert texts(engine.generate([chat("a"), chat("b")], 1, SAMPLING)) == [["x"], ["x"]]
    assert [text_of(request) for request in server.asked] == ["b"]
    assert texts(engine.generate([chat("a")], 1, Sampling("43/toy", 7))) == [["x"]]  # another seed is another request
    assert len(server.asked) == 2


def test_what_was_under_way_when_the_stage_was_stopped_is_kept(serve, tmp_path, monkeypatch):
    def stopped(futures):
        yield next(as_completed(futures))
        raise KeyboardInterrupt

    server = serve(lambda request: time.sleep(0 if text_of(request) == "a" else 0.5) or text_of(request).upper())
    engine = engine_of(server, tmp_path / "replies.jsonl", concurrency=2)
    requests = [chat(text) for text in "abcdef"]
    with monkeypatch.context() as patch:
        patch.setattr("aha.engine.server.as_completed", stopped)
        with pytest.raises(KeyboardInterrupt):
            engine.generate(requests, 1, SAMPLING)
    asked = [text_of(request) for request in server.asked]
    assert {"a", "b"} <= set(asked) < set("abcdef")
    Kept.of.cache_clear()  # as in another process
    assert texts(engine.generate(requests, 1, SAMPLING)) == [[text] for text in "ABCDEF"]
    assert sorted(text_of(request) for request in server.asked) == list("abcdef")


def test_without_the_client_the_extra_is_named(serve, monkeypatch):
    monkeypatch.setitem(sys.modules, "openai", None)
    server = serve(lambda request: "x")
    with pytest.raises(UserError, match=r"needs the extra `server`"):
        engine_of(server).generate([chat("a")], 1, SAMPLING)
