"""Worker processes: they answer, from any thread; a stuck one is replaced; none outlives the process that asked."""

import os
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from aha.rewards import maths
from aha.rewards.maths import grade_answers
from aha.rewards.workers import WORKERS, Workers, processors

EASY = ("x^2-1", "(x-1)(x+1)")
WRONG = ("x^2-1", "(x-1)(x+2)")
STUCK = ("\\sum_{k=1}^{9999} \\frac{1}{k^{k}}", "\\prod_{k=1}^{9999} \\sin(\\frac{1}{k})")
ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def workers():
    pool = Workers(2)
    yield pool
    pool.close()


def is_alive(pid: int) -> bool:
    """Whether the process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def gone(pids: list[int]) -> bool:
    for _ in range(300):
        if not any(map(is_alive, pids)):
            return True
        time.sleep(0.1)
    return False


@pytest.mark.parametrize(
    ("groups", "files", "expected"),
    [
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "max 100000"}, 8),
        ("0::/", {"cpu.max": "50000 100000"}, 1),
        ("0::/a/b", {"a/cpu.max": "250000 100000", "a/b/cpu.max": "max 100000"}, 3),
        ("0::/not/seen", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "1600000 100000"}, 8),
        ("0::/", {}, 8),
        (
            "4:memory:/\n1:cpu,cpuacct:/c",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3,
        ),
        ("1:cpu:/\n0::/", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        (None, {}, 8),
    ],
)
def test_a_quota_of_the_container_bounds_the_processors(tmp_path, monkeypatch, groups, files, expected):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    written = {f"sys/fs/cgroup/{name}": text for name, text in files.items()} | ({"proc/self/cgroup": groups} if groups else {})
    for name, text in written.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"{text}\n")
    assert processors(tmp_path) == expected


def test_workers_answer_in_the_order_of_the_questions(workers):
    verdicts = workers.decide([EASY, WRONG, EASY, WRONG, WRONG])
    assert [verdict.is_same for verdict in verdicts] == [True, False, True, False, False]
    assert {verdict.failure for verdict in verdicts} == {""}
    assert len(workers.workers) == 2


def test_a_stuck_worker_is_replaced_and_the_others_go_on(workers):
    workers.decide([EASY, WRONG])
    before = {worker.process.pid for worker in workers.workers}
    verdicts = workers.decide([EASY, STUCK, *[EASY, WRONG] * 20], seconds=0.5)
    assert (verdicts[1].is_same, verdicts[1].failure) == (False, "timed out")
    assert [verdict.is_same for verdict in verdicts[2:]] == [True, False] * 20
    after = {worker.process.pid for worker in workers.workers}
    assert len(after) <= 2
    assert after != before
    assert gone(list(before - after))


def test_a_group_with_a_completion_that_would_run_for_ever_returns_with_the_others_graded(monkeypatch):
    class Impatient(Workers):
        def decide(self, questions, seconds=0.5):
            return super().decide(questions, seconds)

    pool = Impatient(2)
    monkeypatch.setattr(maths, "WORKERS", pool)
    golds = [f"x^2-{n * n}" for n in range(1, 512)]
    answers = [f"(x-{n})(x+{n + n % 2})" for n in range(1, 512)]  # every second one is right
    golds.insert(100, STUCK[0])
    answers.insert(100, STUCK[1])
    completions = [f"<think>a</think> \\boxed{{{answer}}}" for answer in answers]
    expected = [float(n % 2 == 0) for n in range(1, 512)]
    expected.insert(100, 0.0)
    try:
        assert maths.accuracy([""] * 512, completions, gold=golds) == expected
    finally:
        pool.close()


def test_a_worker_that_is_killed_is_replaced(workers):
    workers.decide([EASY])
    for worker in workers.workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    workers.decide([EASY, EASY])  # the killed ones have no answer
    assert [verdict.is_same for verdict in workers.decide([EASY, WRONG])] == [True, False]


def test_an_interrupted_batch_leaves_no_answer_for_the_next():
    class Interrupt(Exception):
        pass

    def interrupt(*_):
        raise Interrupt

    pool = Workers(1)
    pool.decide([EASY])
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.3)
        with pytest.raises(Interrupt):
            pool.decide([EASY, STUCK], seconds=2.0)
        assert [verdict.is_same for verdict in pool.decide([WRONG, WRONG, EASY])] == [False, False, True]
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        pool.close()


def test_a_worker_that_ends_of_something_else_has_not_timed_out():
    pool = Workers(1)
    pool.decide([EASY])
    [worker] = pool.workers
    threading.Timer(0.5, os.kill, (worker.process.pid, signal.SIGKILL)).start()
    [verdict] = pool.decide([STUCK], seconds=60.0)
    assert (verdict.is_same, verdict.failure) == (False, "the worker ended")
    pool.close()


def test_workers_answer_a_process_with_many_open_files():
    program = (
        "import os, resource\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))\n"
        "held = [os.open('/dev/null', os.O_RDONLY) for _ in range(1100)]\n"
        "from aha.rewards.workers import Workers\n"
        "assert Workers(1).decide([('x^2-1', '(x-1)(x+1)')])[0].is_same\n"
    )
    if resource.getrlimit(resource.RLIMIT_NOFILE)[1] < 2048:
        pytest.skip("this machine allows fewer open files")
    assert run(program).wait(timeout=120) == 0


def test_both_places_of_algebra_tell_the_same_failures(monkeypatch):
    def fails(error):
        def raises(a, b):
            raise error

        return raises

    for error, words in ((MemoryError(), "out of memory"), (RecursionError(), "nested too deeply")):
        monkeypatch.setattr(maths, "same_expression", fails(error))
        assert maths._within(1.0, *EASY).failure == words
        assert maths.decide_by_algebra(*EASY) == (False, words)


def test_any_thread_may_ask(workers):
    answers = {}

    def ask(number: int) -> None:
        answers[number] = [verdict.is_same for verdict in workers.decide([EASY, WRONG])]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: [True, False] for number in range(4)}


def test_a_thread_grades_as_the_main_thread_does():
    grades = []
    thread = threading.Thread(target=lambda: grades.extend(grade_answers([EASY, WRONG])))
    thread.start()
    thread.join()
    assert [grade.score for grade in grades] == [1.0, 0.0]


def test_closing_leaves_no_process():
    pool = Workers(2)
    pool.decide([EASY, WRONG])
    pids = [worker.process.pid for worker in pool.workers]
    pool.close()
    assert gone(pids)
    assert pool.decide([EASY])[0].is_same  # it starts anew
    pool.close()


def run(program: str, **kwargs) -> subprocess.Popen:
    return subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT, **kwargs)


def test_few_and_plain_rows_start_no_workers():
    program = (
        "from aha.rewards import maths\n"
        "rows = [('x^2-1', '(x-1)(x+1)'), ('1/2', '0.5')] + [('18', str(n)) for n in range(2000)]\n"
        "assert sum(grade.score for grade in maths.grade_answers(rows)) == 3\n"
        "assert not maths.WORKERS.workers\n"
    )
    assert run(program).wait(timeout=120) == 0


@pytest.mark.parametrize("ending", ["pass", "os.kill(os.getpid(), signal.SIGKILL)"])
def test_no_worker_outlives_the_process_that_asked(ending):
    program = (
        "import os, signal\n"
        "from aha.rewards.workers import WORKERS\n"
        "WORKERS.decide([('x^2-1', '(x-1)(x+1)')] * 2)\n"
        "print(*(worker.process.pid for worker in WORKERS.workers), flush=True)\n"
        f"{ending}\n"
    )
    process = run(program)
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    process.wait(timeout=120)
    process.stdout.close()
    assert gone(pids)


def test_a_stuck_worker_ends_by_itself_when_the_process_that_asked_is_killed():
    program = (
        "import threading, time\n"
        "from aha.rewards.workers import WORKERS\n"
        f"question = {STUCK!r}\n"
        "threading.Thread(target=WORKERS.decide, args=([question],), kwargs={'seconds': 1.0}, daemon=True).start()\n"
        "while not (WORKERS.workers and WORKERS.workers[0].question is not None):\n"
        "    time.sleep(0.05)\n"
        "print(WORKERS.workers[0].process.pid, flush=True)\n"
        "time.sleep(600)\n"
    )
    process = run(program)
    assert process.stdout is not None
    pid = int(process.stdout.readline())
    process.kill()
    process.wait()
    process.stdout.close()
    assert gone([pid])


def test_algebra_in_this_process_is_bounded_too(monkeypatch):
    monkeypatch.setattr(maths, "same_expression", lambda a, b: all(True for _ in iter(int, 1)))  # for ever
    before = signal.getsignal(signal.SIGPROF)
    verdict = maths._within(0.2, *EASY)
    assert (verdict.is_same, verdict.failure) == (False, "timed out")
    assert signal.getsignal(signal.SIGPROF) is before


def test_the_workers_of_the_package_are_those_that_grade():
    grade_answers([EASY] + [(f"x^2-{n}", f"(x-{n})(x+1)") for n in range(2, 9)])
    assert len(WORKERS.workers) >= 1
