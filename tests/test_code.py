"""Programs graded by their tests: public solutions pass, wrong ones fail, and no trick turns the one into the other."""

import gzip
import json
import os
import random
import re
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction

import pytest
from conftest import SHARED

from aha.config import DataConfig, RewardConfig
from aha.data.sources import load_problems
from aha.rewards import load_rewards, score
from aha.rewards.base import Grade
from aha.rewards.code import code, grade_answer, grade_completion, last_block
from aha.rewards.kept import Kept
from aha.rewards.kinds import KINDS
from aha.sandbox import Limits, find_way
from aha.types import UserError

rewards_code = sys.modules[code.__module__]
BRIEF = Limits(cpu_seconds=1, wall_seconds=5)  # by the clock as much as a busy machine may need
CUBE = "def f(x):\n    return x ** 3\n"
TESTS = "assert f(2) == 8\nassert f(3) == 27\nassert f(4) == 64\n"
DOUBLE = [{"input": "2\n", "output": "4"}, {"input": "5\n", "output": "10\n"}]


@pytest.fixture(autouse=True)
def _needs_a_sandbox():
    try:
        find_way()
    except UserError as error:
        pytest.skip(str(error))


def block(program: str) -> str:
    return f"```python\n{program}\n```"


def answer(program: str) -> str:
    return f"<think>Let me see.</think> <answer>So:\n{block(program)}\n</answer>"


# What is graded.


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("So:\n```python\na\n```\n", "a\n"),
        ("```python\na\n```\nno, better:\n```python\nb\n```\ndone", "b\n"),
        ("```python\na\n```\nIt prints\n```\n8\n```", "a\n"),
        ("```\na\n```", "a\n"),
        ("```Python3\na\n```", "a\n"),
        ("1. here\n   ```py\n   a\n   ```", "   a\n"),
        ("```python\na\n```\n```python\nb", "a\n"),  # cut off
        ("```bash\nls\n```", None),
        ("a", None),
        ("", None),
    ],
)
def test_the_program_is_the_last_closed_block_of_python(text, expected):
    assert last_block(text) == expected


@pytest.mark.parametrize(
    ("completion", "expected"),
    [
        (answer(CUBE), 1.0),
        (f"<think>Hm.</think>\n{block(CUBE)}", 1.0),
        (block(CUBE), 1.0),
        (f"<think>{block(CUBE)}</think> <answer>See above.</answer>", 0.0),
        (f"<think>{block(CUBE)}</think>", 0.0),
        (f"<think>{block(CUBE)}", 0.0),
        (f"<think>{block(CUBE)}</think> <answer>{block('f = 1')}</answer>", 0.0),
        (f"<think>a</think> {block(CUBE)} <answer>See above.</answer>", 0.0),
        ("", 0.0),
    ],
)
def test_a_program_inside_the_thoughts_is_never_run(completion, expected):
    assert grade_completion(completion, TESTS).score == expected


def test_an_answer_may_be_the_bare_program():
    assert grade_answer(CUBE, TESTS).score == grade_answer(block(CUBE), TESTS).score == 1.0
    assert (grade_answer(" ", TESTS).score, grade_answer(" ", TESTS).reason) == (0.0, "no program")
    assert grade_answer(CUBE + " " * 200_000, TESTS).reason == "longer than 100000 characters"


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (CUBE, "passed"),
        ("def f(x): return 8", r"AssertionError at `assert f\(3\) == 27`"),
        ("def f(x): return x / 0", r"ZeroDivisionError: division by zero at `assert f\(2\) == 8`"),
        ("def g(x): return 8", r"NameError: name 'f' is not defined at `assert f\(2\) == 8`"),
        ("def f(x) return 8", r"SyntaxError: expected ':' \(solution.py, line 1\)"),
        ("import nothing_like_it", "ModuleNotFoundError: No module named 'nothing_like_it'"),
        ("x = input()", "EOFError: .*"),
        ("def f(x):\n  while True: pass", "timed out"),
        ("while True: pass", "timed out"),
        ("import time; time.sleep(100)", "timed out"),
        ("def f(x): return [0] * 10 ** 12", "MemoryError at .*"),
    ],
)
def test_the_reason_says_what_went_wrong(program, reason):
    grade = grade_answer(program, TESTS, BRIEF)
    assert (grade.score, bool(re.fullmatch(reason, grade.reason))) == (float(program == CUBE), True), grade


def test_what_is_printed_or_left_running_does_not_matter():
    noisy = "print('passes'); import threading\nthreading.Thread(target=print, args=(1,)).start()\n" + CUBE
    assert grade_answer(noisy, TESTS).score == 1.0


# Programs that read and print.


@pytest.mark.parametrize(
    ("program", "score", "partial", "reason"),
    [
        ("print(int(input()) * 2)", 1.0, 1.0, "passed"),
        ("print(int(input()) * 2, '  \\n\\n')", 1.0, 1.0, "passed"),
        ("if __name__ == '__main__': print(int(input()) * 2)", 1.0, 1.0, "passed"),
        ("print(4)", 0.0, 0.5, "test 2: prints something else"),
        ("print(int(input()) * 2, end=' x')", 0.0, 0.0, "test 1: prints something else"),
        ("print(' 4')", 0.0, 0.0, "test 1: prints something else"),
        ("print(int(input()) * 2); 1/0", 0.0, 0.0, "test 1: ZeroDivisionError: division by zero"),
        ("n = int(input())\nwhile n == 5: pass\nprint(n * 2)", 0.0, 0.5, "test 2: timed out"),
        ("while True: print(4)", 0.0, 0.0, "test 1: too much output"),
        ("x = bytearray(1 << 40)", 0.0, 0.0, "test 1: too much memory"),
    ],
)
def test_printed_output_is_compared_line_by_line(program, score, partial, reason):
    assert grade_answer(program, DOUBLE, BRIEF) == type(grade_answer("", ""))(score, reason)
    grade = grade_answer(program, DOUBLE, BRIEF, partial=True)
    assert (grade.score, grade.reason.endswith(reason)) == (partial, True)


def test_nothing_is_run_after_the_first_failure_or_time_out():
    cases = [{"input": "", "output": "1"}] * 50
    assert grade_answer("print(2)", cases).reason == "test 1: prints something else"
    assert grade_answer("while True: pass", cases, BRIEF, partial=True).reason == "0 of 50 tests passed: test 1: timed out"


# Parts.


@pytest.mark.parametrize(
    ("program", "share"),
    [
        (CUBE, 1),
        ("def f(x): return 27", Fraction(1, 3)),
        ("def f(x):\n  if x == 2: raise ValueError\n  return x ** 3", Fraction(2, 3)),
        ("def f(x):\n  if x == 2: raise SystemExit\n  return x ** 3", Fraction(2, 3)),
        ("def f(x):\n  while x == 2: pass\n  return x ** 3", Fraction(2, 3)),
        ("def f(x):\n  import time; time.sleep(100 if x == 2 else 0)\n  return x ** 3", Fraction(2, 3)),
        ("def f(x):\n  import os\n  if x == 4: os._exit(0)\n  return x ** 3", Fraction(2, 3)),
        ("def f(x):\n  import os\n  if x == 3: os._exit(0)\n  return x ** 3", Fraction(1, 3)),  # nobody is left to ask
        ("import os; os._exit(0)", 0),
        ("1/0", 0),
        ("def g(x): return 1", 0),
    ],
)
def test_a_share_of_the_asserts_can_be_paid(program, share):
    assert grade_answer(program, TESTS, BRIEF, partial=True).score == pytest.approx(float(share))


def test_asserts_inside_a_function_are_counted_one_by_one():
    tests = "def check(g):\n  assert g(2) == 8\n  for n in (3, 4):\n    assert g(n) == n ** 3\n  assert g(0) == 0\ncheck(f)\n"
    assert grade_answer("def f(x): return 8 if x == 2 else 0", tests, partial=True).score == pytest.approx(2 / 3)
    assert grade_answer("def f(x): return x ** 3 if x != 4 else 1", tests, partial=True).score == pytest.approx(2 / 3)


def test_asserts_that_a_right_program_never_reaches_do_not_count():
    tests = "try:\n    f(-1)\n    assert False\nexcept ValueError:\n    pass\nassert f(2) == 8\n"
    program = "def f(x):\n    if x < 0: raise ValueError\n    return {} ** 3\n"
    assert grade_answer(program.format("x"), tests, partial=True).score == 1.0
    assert grade_answer(program.format("0"), tests, partial=True).score == 0.0
    assert grade_answer("def f(x): return x ** 3", tests, partial=True).score == 0.5


# What crosses between the tests and the solution.


@pytest.mark.parametrize(
    ("program", "tests"),
    [
        ("def f(*a, **k): return a, k", "assert f(1, [2], x=(3, {4})) == ((1, [2]), {'x': (3, {4})})"),
        (
            "def f(x): return x",
            "for v in (None, True, -0.5, 'é\\ud800', b'\\xff', 1j, {1: {2}}, frozenset({3})): assert f(v) == v",
        ),
        ("def f(x): return x", "for v in (True, 1, 1.0, '1', (1,), [1]): assert type(f(v)) is type(v)"),
        ("def f(x): return x", "import math\nassert math.isnan(f(float('nan'))) and f(float('-inf')) < 0"),
        ("def f(n): return 7 ** n", "assert f(10000) == 7 ** 10000"),
        ("def f(x): x.append(1); x[0] = 9", "v = [1, 2]\nf(v)\nassert v == [9, 2, 1]"),
        ("def f(x): x['a'] = 1", "v = {}\nf(v)\nassert v == {'a': 1}"),
        ("def f(n):\n  for i in range(n): yield i", "assert list(f(3)) == [0, 1, 2] and next(f(1)) == 0"),
        ("def f(x): return map(str, x)", "assert ''.join(f([1, 2])) == '12'"),
        (
            "def f(x): return x.keys(), x.values(), x.items()",
            "k, v, i = f({1: 2})\nassert (k, list(v), i) == ({1}, [2], {(1, 2)})",
        ),
        (
            "from collections import *\ndef f(x): return Counter(x)",
            "assert f('aab') == {'a': 2, 'b': 1} and f('aa').total() == 2",
        ),
        ("from collections import *\nP = namedtuple('P', 'x y')\ndef f(): return P(1, 2)", "assert f() == (1, 2)"),
        ("from fractions import *\ndef f(x): return Fraction(x, 3)", "from fractions import *\nassert f(2) == Fraction(2, 3)"),
        ("import re\ndef f(s): return re.match('a+', s)", "assert f('aab').group() == 'aa' and f('b') is None and f('a')"),
        ("def f(x): raise KeyError(x)", "try: f(1)\nexcept KeyError: caught = True\nassert caught"),
        (
            "class E(Exception): pass\ndef f(): raise E('no')",
            "try: f()\nexcept Exception as e: assert str(e) == 'no'\nelse: assert 0",
        ),
        ("def f(g, x): return g(g(x))", "assert f(lambda v: v + 1, 1) == 3"),
        ("def f(kind, x): return kind(x), kind", "assert f(int, '1') == (1, int)"),
        ("def f(g, x): return g(x, 2)", "import operator\nassert f(operator.add, 1) == 3"),
        ("def f(x): return lambda y: x + y", "assert f(1)(2) == 3"),
        ("def sum(a, b): return a - b", "assert sum(3, 2) == 1"),
        ("x = 5\ny = [1]\ndef f(): pass", "f()\nassert x == 5 and y == [1] and x.bit_length() == 3"),
        ("import math\ndef f(x): return math.sqrt(x)", "assert math.isclose(f(4), 2)"),
        ("import random\ndef f(x): return sorted(x)", "v = [random.random() for _ in range(9)]\nassert f(v) == sorted(v)"),
        (
            "class Node:\n  def __init__(self, v): self.v = v; self.next = None\ndef f(n): return n.v + n.next.v",
            "a = Node(1)\na.next = Node(2)\nassert f(a) == 3 and a.next.v == 2",
        ),
        (
            "class Bag:\n  def __init__(s): s.x = []\n  def add(s, v): s.x.append(v); return s\n"
            "  def __len__(s): return len(s.x)\n  def __getitem__(s, i): return s.x[i]\n  def __eq__(s, o): return s.x == o.x",
            "b = Bag().add(1).add(2)\nassert len(b) == 2 and b[1] == 2 and 2 in b and list(b) == [1, 2]\n"
            "assert b == Bag().add(1).add(2) and b != Bag()",
        ),
        ("def f(g): return g(x=1)", "assert f(lambda x: x + 1) == 2"),
        ("def f(x=None): x.append(1)", "v = []\nf(x=v)\nassert v == [1]"),
        (  # what comes next is still in step
            "def f(g):\n  try: return g(1)\n  except ValueError as e: return str(e)\ndef h(g): return g(1)",
            "def boom(x): raise ValueError('caught')\nassert f(boom) == 'caught'\nassert f(lambda x: x + 1) == 2\n"
            "try: h(boom)\nexcept ValueError: raised = True\nassert raised and f(lambda x: 3) == 3",
        ),
        (
            "class P:\n  def __init__(s, x): s.x = x\n  def double(s): return P(2 * s.x)\ndef f(g): return g(P(2)).x",
            "assert f(lambda p: p.double()) == 4",
        ),
        (
            "class C:\n  log = []\n  def __enter__(s): return 5\n  def __exit__(s, *a): s.log.append(a)",
            "c = C()\nwith c as v: assert v == 5\nassert len(c.log) == 1 and c.log[0] == (None, None, None)",
        ),
        ("class C:\n  _index = 7\n  _peer = 8", "assert C()._index == 7 and C()._peer == 8"),
        ("def f(x): return x", "if __name__ == '__main__':\n  assert f(1) == 1"),
        (
            "def f(d): return d[0]",
            "try: f({1: 2})\nexcept KeyError as e: assert e.args == (0,) and str(e) == '0'\nelse: assert 0",
        ),
        (
            "def f(x): raise ValueError('no', [x, {2}])",
            "try: f(1)\nexcept ValueError as e: assert e.args == ('no', [1, {2}])\nelse: assert 0",
        ),
        ("import sys\ndef f(): sys.exit(3)", "try: f()\nexcept SystemExit as e: assert e.code == 3\nelse: assert 0"),
        (
            "def f(x): return x.decode()",
            "try: f(b'a\\xff')\nexcept UnicodeDecodeError as e: assert e.start == 1\nelse: assert 0",
        ),
        (
            "def f(): open('none')",
            "try: f()\nexcept FileNotFoundError as e: assert e.errno == 2 and \"'none'\" in str(e)\nelse: assert 0",
        ),
        (
            "class E(Exception):\n  def __str__(s): return 'own'\ndef f(): raise E(1, E())",
            "try: f()\nexcept Exception as e: assert (type(e).__name__, str(e)) == ('E', 'own')\nelse: assert 0",
        ),
        (
            "def f(): raise ExceptionGroup('two', [ValueError()])",
            "try: f()\nexcept Exception as e: assert type(e).__name__ == 'ExceptionGroup'\nelse: assert 0",
        ),
        (
            "def f(g):\n  try: g()\n  except KeyError as e: return e.args",
            "def g(): raise KeyError('a', 2)\nassert f(g) == ('a', 2)",
        ),
        ("def f(g):\n  x = [1]\n  g(x)\n  return x", "assert f(lambda x: x.append(2)) == [1, 2]"),
        ("def f(g):\n  x = {}\n  g(x=x)\n  return x", "def g(x): x['a'] = 1\nassert f(g) == {'a': 1}"),
        ("class N: pass\ndef f(d): pass", "n = N()\nd = {n: 1}\nf(d)\nassert d[n] == 1"),
        ("@__import__('dataclasses').dataclass(order=True)\nclass P:\n  x: int", "assert P(1) < P(2) and P(1).x == 1"),
    ],
)
def test_tests_see_what_they_would_see_in_one_process(program, tests):
    assert grade_answer(program, tests).reason == "passed"


UNITTEST = """import unittest
class T(unittest.TestCase):
    def test_value(self):
        self.assertEqual(f(2), 8)
    def test_error(self):
        with self.assertRaises(TypeError): f('a')
"""
RUNS = [
    "if __name__ == '__main__':\n    unittest.main()",
    "unittest.main(argv=['x'], exit=False)",
    "unittest.TextTestRunner().run(unittest.TestLoader().loadTestsFromTestCase(T))",
    "T('test_value').run()",
]


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize("run", RUNS)
def test_tests_of_unittest_are_run(run, partial):
    assert grade_answer(CUBE, UNITTEST + run, partial=partial).reason == "passed"
    grade = grade_answer("def f(x): return x + 0", UNITTEST + run, partial=partial)
    assert (grade.score, "T.test_value: AssertionError: 2 != 8" in grade.reason) == (0.0, True)
    grade = grade_answer("import os\ndef f(x): os._exit(0)", UNITTEST + run, partial=partial)
    assert (grade.score, "the solution ended its process" in grade.reason) == (0.0, True)


@pytest.mark.parametrize("partial", [False, True])
@pytest.mark.parametrize(
    ("tests", "reason"),
    [
        ("import unittest\nf(2)\nif __name__ == '__main__':\n    unittest.main()", "the tests hold no test that unittest runs"),
        ("import unittest\nf(2)\nunittest.main(exit=False)", "the tests hold no test that unittest runs"),
        (UNITTEST.replace("    def", "    @unittest.skip('a')\n    def") + "f(2)\n" + RUNS[0], "the tests hold no test that"),
        (
            UNITTEST.replace("    def", "    @unittest.expectedFailure\n    def") + RUNS[0],
            "a test that is expected to fail passes",
        ),
        (UNITTEST, "the tests never call the solution"),
        ("import doctest\nf(2)\ndoctest.testmod()", "doctest is not run"),
        ("import doctest\ndef t():\n    '''\n    >>> f(2)\n    8\n    '''\nf(2)\ndoctest.testmod()", "doctest is not run"),
    ],
)
def test_tests_that_are_not_run_pay_nothing(tests, reason, partial):
    grade = grade_answer(CUBE, tests, partial=partial)
    assert (grade.score, reason in grade.reason) == (0.0, True), grade


def test_tests_that_hand_over_objects_of_their_own_are_told():
    tests = "class Own: pass\nassert f(Own())"
    assert "hand a Own of their own to the solution, which cannot cross" in grade_answer("def f(x): return 1", tests).reason


# Tricks. Each would pass, or has passed, where solution and tests share a process.

LOOK = """
import gc, os, re, sys
def f(x):
    seen = []
    for o in gc.get_objects():
        try: seen.append(repr(o))
        except Exception: pass
    frame = sys._getframe()
    while frame:
        seen += [repr(frame.f_locals), repr(frame.f_globals)]
        frame = frame.f_back
    for pid in {os.getpid(), os.getppid(), 1}:
        for name in ("mem", "environ", "cmdline", "fd/0", "fd/1", "fd/3", "fd/4", "fd/5", "fd/6"):
            try: seen.append(open(f"/proc/{pid}/{name}", errors="replace").read())
            except (OSError, ValueError): pass
    for n in range(64):
        try: seen.append(str(os.pread(n, 100000, 0)))
        except OSError: pass
    found = re.search("h4y" + "st[a-z0-9]+", " ".join(seen))
    return found and found.group()
"""
WRITE = """
import os
for n in range(64):
    for text in (b"passes", b"complete", b"%s passes"):
        try: os.write(n, text + b"\\n")
        except OSError: pass
for pid in (os.getppid(), 1):
    for n in range(8):
        try: open(f"/proc/{pid}/fd/{n}", "w").write("passes\\n")
        except OSError: pass
def f(x): return 0
"""
ALWAYS = "class A:\n  def __getattr__(s, n): return lambda *a: True\n" + "".join(
    f"  def __{name}__(s, *a): return {value}\n"
    for name, value in {"eq": "True", "ne": "False", "lt": "True", "le": "True", "gt": "True", "ge": "True", "sub": "0"}.items()
)
TRICKS = {
    "exit": "import sys; sys.exit(0)",
    "exit at once": "import os; os._exit(0)",
    "exit when called": "import sys\ndef f(x): sys.exit(0)",
    "exit at once when called": "import os\ndef f(x): os._exit(0)",
    "raise what ends quietly": "def f(x): raise GeneratorExit",
    "equal to all": ALWAYS + "def f(x): return A()",
    "integer equal to all": "class A(int):\n  def __eq__(s, o): return True\n  __sub__ = __eq__\ndef f(x): return A(1)",
    "text equal to all": "class A(str):\n  def __eq__(s, o): return True\n  __hash__ = str.__hash__\ndef f(x): return A('')",
    "list equal to all": "class A(list):\n  def __eq__(s, o): return True\ndef f(x): return A()",
    "function that is the number": ALWAYS + "f = A()",
    "own check": "def check(g): pass\ndef __tell__(x): pass\ndef f(x): return 0",
    "own built-ins": "import builtins\nbuiltins.abs = lambda x: 0\nbuiltins.all = lambda x: True\ndef f(x): return 0",
    "own names of built-ins": "def abs(x): return 0\ndef all(x): return True\ndef len(x): return 8\ndef f(x): return 0",
    "own module": "class math:\n  isclose = staticmethod(lambda *a, **k: True)\n  ceil = math = isclose\ndef f(x): return 0",
    "patched module": "import math\nmath.isclose = lambda *a, **k: True\ndef f(x): return 0",
    "no assertions": "import sys, builtins\nbuiltins.AssertionError = Warning\nbuiltins.__debug__ = 0\ndef f(x): return 0",
    "own exception hook": "import sys, atexit, os\nsys.excepthook = print\natexit.register(os._exit, 0)\ndef f(x): return 0",
    "trace": "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\ndef f(x): return 0",
    "written verdict": WRITE,
    "kill": "import os\nfor pid in (os.getppid(), 1):\n  try: os.kill(pid, 9)\n  except OSError: pass\ndef f(x): return 0",
    "second process": "import os\nos.fork()\ndef f(x): return 0",
    "closed pipes": "import os\nos.closerange(0, 64)\ndef f(x): return 8",
    "swallowed assertion": "class A:\n  def __enter__(s): return 0\n  def __exit__(s, *a): return True\ndef f(x): return A()",
    "contains all": "class A:\n  def __contains__(s, x): return True\ndef f(x): return A()",
    "looks around": LOOK,
}
PROBES = [
    "assert f('needle') == 'h4yst4ck'",
    "def check(g):\n    assert abs(g(2) - 8) < 1e-6\ncheck(f)",
    "assert math.isclose(f(2), 8) and len([f(2)]) == 1",
    "assert all([f(2) == 8])",
    "assert f(2) - 8 == 0 and f(2) > 7 and f(2) < 9",
    "with open('/dev/null') if f(2) == 8 else f(2) as v: assert f(2) == 8",
    "assert 8 in ([8] if f(2) == 8 else f(2))",
]


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_is_paid(trick):
    for tests in PROBES:
        for partial in (False, True):
            grade = grade_answer(TRICKS[trick], tests, BRIEF, partial)
            assert grade.score == 0.0, (tests, grade)
    assert grade_answer(TRICKS[trick] if trick == "looks around" else "", [{"input": "", "output": "x"}], BRIEF).score == 0.0


def test_an_assert_in_a_function_of_the_tests_fails_whatever_the_solution_catches():
    program = "def f(g):\n  try: g(1)\n  except BaseException: pass\n  return 8\n"
    tests = "def g(x): assert x == 2\nassert f(g) == 8"
    assert "AssertionError" in grade_answer(program, tests).reason
    assert grade_answer(program.replace("g(1)", "g(2)"), tests).reason == "passed"


UNITTEST_TRICKS = {
    **{name: TRICKS[name] for name in ("exit", "exit when called", "exit at once when called", "equal to all")},
    "skip": "import unittest\ndef f(x): raise unittest.SkipTest('a')",
    "stop": "def f(x): raise KeyboardInterrupt",
    "stop quietly": "def f(x): raise GeneratorExit",
    "name of a skip": "class SkipTest(Exception): pass\ndef f(x): raise SkipTest",
    "patched unittest": "import unittest\nunittest.TestCase.assertEqual = unittest.TestCase.run = print\ndef f(x): return 0",
}


@pytest.mark.parametrize("trick", UNITTEST_TRICKS)
def test_no_trick_passes_tests_of_unittest(trick):
    for partial in (False, True):
        grade = grade_answer(UNITTEST_TRICKS[trick], UNITTEST + RUNS[0], BRIEF, partial)
        assert grade.score == 0.0, grade


@pytest.mark.parametrize(
    "arguments",
    [
        "ALWAYS()",
        "type('A', (str,), {'__eq__': lambda s, o: True, '__hash__': str.__hash__})('')",
        "*[type('A', (tuple,), {'__eq__': lambda s, o: True})()]",
    ],
)
def test_no_argument_of_an_exception_equals_what_it_is_not(arguments):
    program = ALWAYS.replace("class A", "class ALWAYS") + f"def f(): raise KeyError({arguments})"
    tests = "try: f()\nexcept KeyError as e: assert e.args == ('x',)\nelse: assert 0"
    assert "AssertionError" in grade_answer(program, tests).reason
    assert grade_answer("def f(): raise KeyError('x')", tests).reason == "passed"
    equal = "type('A', (tuple,), {'__eq__': lambda s, o: True})()"
    own = f"class E(KeyError):\n  args = property(lambda s: {equal})\ndef f(): raise E"
    assert grade_answer(own, tests).score == 0.0


def test_the_probes_can_be_passed():
    for tests in PROBES:
        assert grade_answer("def f(x): return 8 if x == 2 else 'h4y' + 'st4ck'", tests).reason == "passed"


def test_tests_that_never_call_the_solution_pay_nothing():
    for tests in ("assert True", "def test_f():\n    assert f(2) == 8", "x = 1"):
        for partial in (False, True):
            grade = grade_answer(CUBE, tests, partial=partial)
            assert (grade.score, "the tests never call the solution" in grade.reason) == (0.0, True)


# As a reward.


def test_a_gold_answer_gets_the_top_score_and_an_empty_one_the_bottom_however_it_is_called():
    given = {"prompts": ["q"] * 2, "tests": [TESTS] * 2, "completion_ids": [[1], []], "trainer_state": None}
    assert code(completions=[answer(CUBE), ""], **given) == [1.0, 0.0]
    conversations = [[{"role": "assistant", "content": text}] for text in (answer(CUBE), "")]
    assert code(completions=conversations, **given) == [1.0, 0.0]
    other = answer("def f(x): return 8").replace("answer>", "result>").replace("think>", "thoughts>")
    assert code(completions=[other, ""], partial=True, tags=("thoughts", "result"), **given) == [pytest.approx(1 / 3), 0.0]


def test_a_batch_runs_side_by_side_and_keeps_its_order():
    programs = [CUBE, "def f(x): return 8", "", "while True: pass", CUBE]
    completions = [answer(program) for program in programs]
    assert code(["q"] * 5, completions, [TESTS] * 5, timeout=2) == [1.0, 0.0, 0.0, 0.0, 1.0]
    assert code(["q"] * 5, completions, [TESTS] * 5, timeout=2, partial=True) == [1.0, pytest.approx(1 / 3), 0.0, 0.0, 1.0]
    assert code(["q"] * 3, [answer(CUBE)] * 3, [None, "", []]) == [None] * 3


def test_a_program_that_a_busy_machine_lets_wait_is_no_slower_for_it():
    waits = answer(f"import time\ntime.sleep(1.2)\n{CUBE}")
    assert code(["q"], [waits], [TESTS], timeout=0.5) == [1.0]


def test_no_more_programs_run_at_a_time_than_there_are_processors(monkeypatch):
    under_way: list[str] = []
    most: list[int] = []

    def graded(program, *_):
        under_way.append(program)
        time.sleep(0.05)
        most.append(len(under_way))
        under_way.pop()
        return Grade(1.0, "passed")

    monkeypatch.setattr(rewards_code, "_grade_asserts", graded)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    code(["q"] * 4, [answer(f"{CUBE}#{i}") for i in range(4)], [TESTS] * 4)
    KINDS["code"].grade([(f"{CUBE}#{i}", TESTS, False) for i in range(4)])
    assert most == [1] * 8


def test_a_time_out_is_wrong_and_is_replayed_from_the_record(tmp_path, monkeypatch):
    asked = []

    def slow(program, *_):
        asked.append(program)
        time.sleep(0.6 if "while" in program else 0)
        return Grade(0.0, "timed out") if "while" in program else Grade(1.0, "passed")

    monkeypatch.setattr(rewards_code, "_grade_asserts", slow)
    monkeypatch.setattr(Kept, "of", staticmethod(Kept.of.__wrapped__))  # as another process reads it
    path = str(tmp_path / "verdicts" / "code.jsonl")
    completions = [answer("while True: pass"), answer(CUBE), answer("while True: pass")]
    assert code(["q"] * 3, completions, [TESTS, TESTS, None], verdicts=path) == [0.0, 1.0, None]
    monkeypatch.setattr(rewards_code, "_grade_asserts", lambda *_: Grade(1.0, "passed"))
    assert code(["q"], [answer("while True: pass")], [TESTS], verdicts=path) == [0.0]
    assert code(["q"], [answer("while True: pass")], [TESTS], timeout=6, verdicts=path) == [1.0]  # another question
    assert code(["q"], [answer("while True: pass")], [TESTS + "\n"], verdicts=path) == [1.0]
    assert len(asked) == 2


@pytest.mark.parametrize("grader", ["cosine", "length"])
def test_programs_may_be_what_is_right_for_rewards_of_length(grader):
    [reward] = load_rewards([RewardConfig(name=grader, args={"grader": "code"})])
    right, wrong = score(
        reward, ["q"] * 2, [answer(CUBE), answer("f = 1")], [[1], [1] * 9], [{"tests": TESTS}] * 2, ("think", "answer")
    )
    assert right > 0 > wrong


@pytest.mark.parametrize(
    ("tests", "args", "words"),
    [
        ("assert f(", {}, "reward code: row 1 of the batch: tests are not Python: '(' was never closed"),
        ([{"input": "1"}], {}, "reward code: row 1 of the batch: tests is neither Python nor a list of"),
        (5, {}, "reward code: row 1 of the batch: tests is neither Python nor a list of"),
        (TESTS, {"timeout": 0}, "reward code: timeout is 0: it must be above 0"),
        (TESTS, {"time": 1}, "reward code has no argument 'time'; known: timeout, memory_mb, partial"),
    ],
)
def test_what_does_not_fit_is_told(tests, args, words):
    def scores():
        [reward] = load_rewards([RewardConfig(name="code", args=args)])
        return score(reward, ["q"], [answer(CUBE)], [[1]], [{"tests": tests}], ("think", "answer"))

    with pytest.raises(UserError) as caught:
        scores()
    assert words in str(caught.value)


# Public data, which is read where it lies and never copied.


def public(name: str) -> list[dict]:
    path = SHARED / name
    if not path.exists():
        pytest.skip(f"{path} is absent")
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


def humaneval() -> list[tuple[str, str]]:
    rows = public("humaneval/HumanEval.jsonl.gz")
    problems = load_problems(DataConfig(source=str(SHARED / "humaneval/HumanEval.jsonl.gz"), preset="humaneval"))
    assert {problem.grader for problem in problems} == {"code"}
    pairs = zip(rows, problems, strict=True)
    return [(row["prompt"] + row["canonical_solution"], problem.columns["tests"]) for row, problem in pairs]


def mbpp() -> list[tuple[str, str]]:
    rows = public("mbpp/mbpp.jsonl")
    problems = load_problems(DataConfig(source=str(SHARED / "mbpp/mbpp.jsonl"), preset="mbpp"))
    return [(row["code"], problem.columns["tests"]) for row, problem in zip(rows, problems, strict=True)]


def all_scores(pairs: list[tuple[str, str]]) -> list[float]:
    with ThreadPoolExecutor(2) as pool:
        return [grade.score for grade in pool.map(lambda pair: grade_answer(*pair), pairs)]


@pytest.mark.parametrize("load", [humaneval, mbpp])
def test_a_sample_of_public_solutions_passes_and_those_of_others_fail(load):
    pairs = random.Random(0).sample(load(), 20)
    assert all_scores(pairs) == [1.0] * 20
    others = [(pairs[i - 1][0], tests) for i, (_, tests) in enumerate(pairs)]
    assert all_scores(others) == [0.0] * 20


@pytest.mark.slow
@pytest.mark.parametrize("load", [humaneval, mbpp])
def test_all_public_solutions_pass(load):
    scores = all_scores(load())
    assert sum(scores) == len(scores)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["mbpp_simple_gpt4", "mbpp_reflexion_gpt4"])
def test_labels_of_model_solutions_agree_but_where_their_own_grader_had_lost_the_built_in_sum(name):
    """The labels were made by executing all rows in one namespace, where a solution of the row `mbpp_126_sum` defines
    `sum` for all rows after it: docs/sandbox.md.
    """
    rows = public(f"code_labels/{name}.jsonl")
    scores = all_scores([(row["solution"], row["test"]) for row in rows])
    broken = next(i for i, row in enumerate(rows) if row["name"] == "mbpp_126_sum")
    wrong = [i for i, row in enumerate(rows) if (scores[i] == 1) != row["is_solved"]]
    assert all(i > broken and scores[i] == 1 and re.search(r"\bsum\(", rows[i]["solution"]) for i in wrong)
    assert len(wrong) <= 6
