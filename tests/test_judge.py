"""A judge behind a stub server on the loopback interface: what it is asked, how its marks are read, what is kept."""

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aha.config import RewardConfig
from aha.rewards import load_rewards, score
from aha.rewards.judge import read_marks
from aha.rewards.kept import Kept
from aha.types import UserError

pytest.importorskip("openai")

RUBRIC = [{"criterion": "adds the two numbers", "points": 3}, {"criterion": "says the result", "points": 1}]


class Stub(ThreadingHTTPServer):
    """Answers chat completions with `reply(text)`; a number there is an HTTP status."""

    daemon_threads = True

    def __init__(self, reply):
        self.reply, self.asked, self.lock = reply, [], threading.Lock()
        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = request["messages"][0]["content"]
        with self.server.lock:
            self.server.asked.append(text)
            answer = self.server.reply(text)
        status = answer if isinstance(answer, int) else 200
        message = {"role": "assistant", "content": answer if status == 200 else ""}
        usage = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
        choices = [{"index": 0, "message": message, "finish_reason": "stop"}]
        reply = {"id": "1", "object": "chat.completion", "created": 0, "model": "stub", "choices": choices, "usage": usage}
        body = json.dumps(reply if status == 200 else {"error": {"message": f"status {status}"}}).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.send_header("retry-after-ms", "1")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def serve():
    servers = []

    def start(reply) -> Stub:
        servers.append(Stub(reply))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


def judged(server: Stub, completions: list[str], folder=None, log=None, **args) -> list[float | None]:
    values = {"url": server.url, "model": "stub", **args}
    [reward] = load_rewards([RewardConfig(name="judge", args=values)], folder)
    n = len(completions)
    columns = [{"gold": str(i)} for i in range(n)]
    told = [] if log is None else log
    return score(
        reward, ["Add 2 and 3."] * n, completions, [[1]] * n, columns, ("think", "answer"), lambda *pair: told.append(pair)
    )


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("Good.\nScore: 7", 0.7),
        ("score: 7/10", 0.7),
        ("**Score:** 8.5", 0.85),
        ("Score: 3, no: Score: 4", 0.4),
        ("Score: 99", 1.0),
        ("Score: -5", 0.0),
        ("Well done!", None),
        ("", None),
    ],
)
def test_the_last_score_is_the_mark(reply, mark):
    assert read_marks(reply, [], 10) == mark


@pytest.mark.parametrize(
    ("reply", "mark"),
    [
        ("Marks:\n1: 3\n2: 1", 1.0),
        ("1: 0 is what I first thought.\nMarks:\n1. 3\n2. 0", 0.75),
        ("Marks:\n1: 9\n2: 1", 1.0),
        ("Marks:\n1: 3", None),
        ("Score: 4", None),
    ],
)
def test_a_rubric_is_summed_here_and_every_criterion_needs_its_mark(reply, mark):
    assert read_marks(reply, [3, 1], 10) == mark


def test_the_judge_sees_the_reply_and_not_the_thoughts(serve):
    server = serve(lambda text: "Score: 10" if "It is 5." in text else "Score: 0")
    assert judged(server, ["<think>hidden</think> It is 5.", "<think>It is 5.</think> It is 6."]) == [1.0, 0.0]
    assert all("hidden" not in text and "Add 2 and 3." in text for text in server.asked)


def test_a_rubric_shows_the_working_and_pays_for_part_of_it(serve):
    server = serve(lambda text: "Marks:\n1: 3\n2: 0")
    assert judged(server, ["<think>2+3</think> It is 6."], rubric=RUBRIC) == [0.75]
    assert "1. adds the two numbers (3 points)" in server.asked[0]
    assert "<think>2+3</think>" in server.asked[0]


def test_a_template_may_use_columns_and_braces_of_a_completion_are_text(serve):
    server = serve(lambda text: "Score: 1")
    judged(server, ["{gold} {prompt}"], template="Right is {gold}. Said: {reply}")
    assert server.asked == ["Right is 0. Said: {gold} {prompt}"]
    with pytest.raises(UserError, match="the template of the judge wants 'golden'"):
        judged(server, ["x"], template="{golden}")


def test_verdicts_are_kept_and_nothing_is_asked_twice(serve, tmp_path):
    server = serve(lambda text: "Score: 6")
    told: list = []
    assert judged(server, ["a", "b", "a"], tmp_path / "verdicts", told) == [0.6] * 3
    assert len(server.asked) == 2
    assert dict(told) == {"judge/tokens": 30, "judge/unread": 0.0}
    kept = tmp_path / "verdicts" / "judge.jsonl"
    kept.write_text(kept.read_text() + '\n{"key": "cut off {}')
    Kept.of.cache_clear()  # as in another process
    assert judged(server, ["b", "c"], tmp_path / "verdicts") == [0.6, 0.6]
    assert len(server.asked) == 3
    Kept.of.cache_clear()
    assert judged(server, ["c"], tmp_path / "verdicts") == [0.6]
    assert len(server.asked) == 3


def test_a_verdict_is_kept_as_it_comes_whatever_becomes_of_the_batch(serve, tmp_path):
    refused = ["b"]
    server = serve(lambda text: 404 if any(f"\n{word}\n" in text for word in refused) else "Score: 6")
    with pytest.raises(UserError, match="status 404"):
        judged(server, ["a", "b", *map(str, range(50))], tmp_path, concurrency=1)
    assert len(server.asked) < 10  # what nobody has begun is not asked any more
    refused.clear()
    server.asked.clear()
    Kept.of.cache_clear()  # as in another process
    assert judged(server, ["a", "b"], tmp_path) == [0.6, 0.6]
    assert len(server.asked) == 1


def test_what_was_answered_ahead_is_kept_before_the_batch_is_there(serve, tmp_path):
    server = serve(lambda text: "Score: 6")
    [reward] = load_rewards([RewardConfig(name="judge", args={"url": server.url, "model": "stub"})], tmp_path)
    with ThreadPoolExecutor(1) as pool:
        score(reward, ["Add 2 and 3."], ["a"], [[1]], [{"gold": "0"}], ("think", "answer"), ahead=lambda size: pool)
    Kept.of.cache_clear()  # as in another process
    assert judged(server, ["a"], tmp_path) == [0.6]
    assert len(server.asked) == 1


def test_a_busy_server_is_asked_again(serve):
    answers = iter([429, 503, "Score: 5"])
    server = serve(lambda text: next(answers))
    assert judged(server, ["a"], max_retries=3) == [0.5]
    assert len(server.asked) == 3


@pytest.mark.parametrize("status", [400, 503])
def test_what_cannot_be_marked_is_skipped_and_a_judge_that_never_answers_stops_the_run(serve, tmp_path, status):
    server = serve(lambda text: status if "bad" in text else "no mark" if "odd" in text else "Score: 5")
    with pytest.raises(UserError, match=rf"judge http.*{status}"):
        judged(server, ["bad one"], max_retries=0)
    assert judged(server, ["fine", "bad", "odd"], tmp_path, max_retries=0) == [0.5, None, None]
    assert judged(server, ["bad two"], tmp_path, max_retries=0) == [None]  # it has answered before
    asked = len(server.asked)
    assert judged(server, ["bad"], tmp_path, max_retries=0) == [None]  # a failure that was paid for is replayed
    assert len(server.asked) == asked


def test_a_judge_that_answers_none_of_many_stops_the_run_and_its_failures_are_asked_again(serve, tmp_path):
    is_down = []
    server = serve(lambda text: 503 if is_down else "Score: 5")
    assert judged(server, ["fine"], tmp_path, max_retries=0) == [0.5]
    is_down.append(True)
    with pytest.raises(UserError, match="none of 8 requests was answered"):
        judged(server, [f"text {i}" for i in range(8)], tmp_path, max_retries=0)
    is_down.clear()
    assert judged(server, [f"text {i}" for i in range(8)], tmp_path, max_retries=0) == [0.5] * 8


def test_the_judge_sees_the_question_without_the_template_of_the_prompt(serve):
    server = serve(lambda text: "Score: 5")
    [reward] = load_rewards([RewardConfig(name="judge", args={"url": server.url, "model": "stub"})])
    score(reward, ["User: 2+3? Assistant: <think>"], ["5"], [[1]], [{"question": "2+3?"}], ("think", "answer"))
    assert "2+3?" in server.asked[0]
    assert "Assistant:" not in server.asked[0]


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_request_that_will_never_do_is_one_clear_error(serve, status):
    server = serve(lambda text: status)
    with pytest.raises(UserError, match=f"judge http.*{status}"):
        judged(server, ["a"])
    assert len(server.asked) == 1


def test_url_and_model_are_needed(serve):
    with pytest.raises(UserError, match="a judge needs url"):
        judged(serve(lambda text: ""), ["a"], url="")


def test_what_is_asked_ahead_is_asked_once_and_pays_logs_and_keeps_the_same(serve, tmp_path):
    server = serve(lambda text: f"Score: {len(text) % 11}")
    completions = ["one", "the second", "and the third", "one"]
    [reward] = load_rewards([RewardConfig(name="judge", args={"url": server.url, "model": "stub"})], tmp_path / "ahead")
    with ThreadPoolExecutor(2) as pool:
        for completion in reversed(completions):
            given = ["Add 2 and 3."], [completion], [[1]], [{"gold": "0"}], ("think", "answer")
            assert score(reward, *given, ahead=lambda size: pool) == [None]
        told: list[tuple[str, float]] = []
        given = ["Add 2 and 3."] * 4, completions, [[1]] * 4, [{"gold": "0"}] * 4, ("think", "answer")
        scores = score(reward, *given, lambda *pair: told.append(pair))
    assert len(server.asked) == 3
    later: list[tuple[str, float]] = []
    assert judged(server, completions, tmp_path / "later", later) == scores
    assert later == told
    files = [(tmp_path / folder / "judge.jsonl").read_text().splitlines() for folder in ("ahead", "later")]
    assert sorted(files[0]) == sorted(files[1])


def test_a_server_that_refuses_what_is_asked_ahead_is_told(serve, tmp_path):
    server = serve(lambda text: 404)
    [reward] = load_rewards([RewardConfig(name="judge", args={"url": server.url, "model": "stub"})], tmp_path)
    given = ["q"], ["a"], [[1]], [{}], ("think", "answer")
    with ThreadPoolExecutor(1) as pool:
        score(reward, *given, ahead=lambda size: pool)
    with pytest.raises(UserError, match="status 404"):
        score(reward, *given)
