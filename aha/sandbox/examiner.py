"""Runs tests against a solution that cannot fake their success. Its text is handed to `run_python`.

Two processes. A child, forked before a byte of the tests is read, holds the solution. This one holds the tests, runs
them, and alone can write the verdict. A call of the solution crosses a pipe, and what comes back is data: numbers,
texts, containers, and names for objects that stay in the child. So the solution can neither see the tests nor reach
into the process that compares, and all that it can do to pass is to return what the tests expect.

Standard input: the solution, then the tests as JSON, each after its length. Standard output: lines that begin with the
token of the tests; see `Verdict`.
"""

import ast
import builtins
import functools
import importlib
import itertools
import json
import operator
import os
import signal
import struct
import sys
import time
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterable
from typing import Any, NoReturn

FORK_TRIES = 100
MAX_BYTES = 1 << 28  # of a message; more than that is noise on the pipe
MAX_TEXT = 500  # characters of an exception that cross
Keep = Callable[[Any], Any]  # JSON for a value that is no data
Fetch = Callable[[str, Any], Any]  # and what that JSON stands for on the other side
# What the tests may do with an object that stays in the child, by the method that asks for it.
OPERATIONS: dict[str, Callable[..., Any]] = {
    "__call__": lambda target, *args, **kwargs: target(*args, **kwargs),
    "__getattr__": getattr,
    "__setattr__": setattr,
    "__iter__": iter,
    "__next__": next,
    "__len__": len,
    "__bool__": bool,
    "__str__": str,
    "__repr__": repr,
    "__getitem__": operator.getitem,
    "__setitem__": operator.setitem,
    "__enter__": lambda target: target.__enter__(),
    "__exit__": lambda target, *none: target.__exit__(*none),  # an exception cannot cross, so that none is swallowed
    "__delitem__": operator.delitem,
    "__eq__": operator.eq,
    "__lt__": operator.lt,
}
COMPARES = {"__eq__", "__lt__"}  # with another object of the solution only: what the tests expect is never shown to one
CONTAINERS: dict[str, Any] = {kind.__name__: kind for kind in (list, tuple, set, frozenset, deque)}
MAPPINGS: dict[str, Any] = {kind.__name__: kind for kind in (Counter, OrderedDict, dict)}
BUILTIN = {value for value in vars(builtins).values() if type(value) is type}
VIEWS: dict[str, Any] = {"keys": type({}.keys()), "values": type({}.values()), "items": type({}.items())}
MUTABLE = (list, dict, set, bytearray, deque, Counter, OrderedDict)
# Values of the standard library that are told by what their constructor takes.
VALUES: dict[tuple[str, str], Callable[[Any], list[Any]]] = {
    ("fractions", "Fraction"): lambda v: [v.numerator, v.denominator],
    ("decimal", "Decimal"): lambda v: [str(v)],
    ("datetime", "date"): lambda v: [v.year, v.month, v.day],
    ("datetime", "time"): lambda v: [v.hour, v.minute, v.second, v.microsecond],
    ("datetime", "datetime"): lambda v: [v.year, v.month, v.day, v.hour, v.minute, v.second, v.microsecond],
    ("datetime", "timedelta"): lambda v: [v.days, v.seconds, v.microseconds],
}


class Ended(BaseException):
    """The process of the solution is gone, or speaks nonsense."""


class Pipe:
    """Messages between two processes: JSON after its length."""

    def __init__(self, reads: int, writes: int):
        self.reads, self.writes = reads, writes

    def send(self, message: Any) -> None:
        data = json.dumps(message).encode()
        data = struct.pack("<Q", len(data)) + data
        try:
            while data:
                data = data[os.write(self.writes, data) :]
        except BrokenPipeError:
            raise Ended from None

    def receive(self) -> Any:
        return json.loads(read_frame(self.reads))


def read_frame(descriptor: int) -> bytes:
    """Exactly one frame and not a byte more: what follows is not for the child that is forked in between."""
    size = struct.unpack("<Q", _read(descriptor, 8))[0]
    if size > MAX_BYTES:
        raise Ended
    return _read(descriptor, size)


def _read(descriptor: int, size: int) -> bytes:
    data = bytearray()
    while len(data) < size:
        part = os.read(descriptor, min(size - len(data), 1 << 20))
        if not part:
            raise Ended
        data += part
    return bytes(data)


class Remote:
    """In the process of the tests: an object of the solution. It equals no plain data and cannot be reckoned with, since its
    own methods would decide, and be told what to answer.
    """

    def __init__(self, peer: "Tests", index: int):
        object.__setattr__(self, "_remote_peer", peer)
        object.__setattr__(self, "_remote_index", index)

    __hash__ = object.__hash__


def _asks(name: str) -> Callable[..., Any]:
    def ask(self: Remote, *args: Any, **kwargs: Any) -> Any:
        if name in COMPARES and not isinstance(args[0], Remote):
            return NotImplemented
        peer: Tests = object.__getattribute__(self, "_remote_peer")
        return peer.ask(name, self, args, kwargs)

    return ask


for _name in OPERATIONS:
    setattr(Remote, _name, _asks(_name))


def encode(value: Any, keep: Keep) -> Any:
    """JSON for a value; `keep` makes it for what cannot be told as data. Subclasses are told as what they extend."""
    kind = type(value)
    if value is None or kind in (bool, int, float, str):
        return value
    if kind is list:
        return [encode(item, keep) for item in value]
    named = (kind.__module__, kind.__qualname__)
    if named in VALUES and getattr(value, "tzinfo", None) is None:
        return {"t": "value", "v": [*named, VALUES[named](value)]}
    for number in (str, int, float):
        if isinstance(value, number):
            return number(value)
    for shape, base in MAPPINGS.items():
        if isinstance(value, base):
            return {"t": shape, "v": [[encode(k, keep), encode(v, keep)] for k, v in value.items()]}
    if isinstance(value, complex):
        return {"t": "complex", "v": [value.real, value.imag]}
    if isinstance(value, bytes | bytearray):
        return {"t": "bytes" if isinstance(value, bytes) else "bytearray", "v": value.hex()}
    if isinstance(value, range):
        return {"t": "range", "v": [value.start, value.stop, value.step]}
    for shape, base in (CONTAINERS | VIEWS).items():
        if isinstance(value, base):
            items = [encode(item, keep) for item in value]
            return items if base is list else {"t": shape, "v": items}
    if kind is type and value in BUILTIN:
        return {"t": "builtin", "v": value.__name__}
    return keep(value)


def decode(told: Any, fetch: Fetch) -> Any:
    """The value of JSON made by `encode`; `fetch` finds what is no data. Raises for what nobody would have sent."""
    if isinstance(told, list):
        return [decode(item, fetch) for item in told]
    if not isinstance(told, dict):
        return told
    shape, inner = told["t"], told["v"]
    if shape in MAPPINGS:
        pairs = [(decode(k, fetch), decode(v, fetch)) for k, v in inner]
        return Counter(dict(pairs)) if shape == "Counter" else MAPPINGS[shape](pairs)
    if shape in CONTAINERS:
        return CONTAINERS[shape](decode(item, fetch) for item in inner)
    if shape == "complex":
        return complex(*inner)
    if shape in ("bytes", "bytearray"):
        return (bytes if shape == "bytes" else bytearray).fromhex(inner)
    if shape == "range":
        return range(*inner)
    if shape == "keys":
        return dict.fromkeys(decode(inner, fetch)).keys()
    if shape == "values":
        return dict(enumerate(decode(inner, fetch))).values()
    if shape == "items":
        return dict(decode(inner, fetch)).items()
    if shape == "value":
        module, name, arguments = inner
        if (module, name) not in VALUES:
            raise Ended
        return getattr(importlib.import_module(module), name)(*arguments)
    if shape == "builtin":
        return next(known for known in BUILTIN if known.__name__ == inner)
    return fetch(shape, inner)


def perform(call: Callable[..., Any], request: dict[str, Any], fetch: Fetch, keep: Keep) -> tuple[Any, dict[Any, Any]]:
    """Call for the other side: the value, and by their place or name the arguments that the call has changed."""
    given = [decode(told, fetch) for told in request["args"]]
    named = {name: decode(told, fetch) for name, told in request["kwargs"].items()}
    value = encode(call(*given, **named), keep)
    before = dict(enumerate(request["args"])) | request["kwargs"]
    after = {i: encode(arg, keep) for i, arg in (*enumerate(given), *named.items()) if isinstance(arg, MUTABLE)}
    return value, {i: new for i, new in after.items() if new != before[i]}


def performed(reply: Any, args: tuple[Any, ...], kwargs: dict[str, Any], fetch: Fetch) -> Any:
    """What `perform` of the other side gave: the value, after `args` and `kwargs` were changed as it has changed its copies."""
    value, changed = reply
    for place, new in changed.items():
        _refill(kwargs[place] if place in kwargs else args[int(place)], decode(new, fetch))
    return decode(value, fetch)


def _refill(container: Any, new: Any) -> None:
    """Make `container` hold what a call left in its copy of it."""
    if type(container) is not type(new):
        return
    if isinstance(container, list | bytearray):
        container[:] = new
    else:
        container.clear()
        container.extend(new) if isinstance(container, deque) else container.update(new)


class Solution:
    """The child: runs the solution, then what the tests ask of it."""

    def __init__(self, pipe: Pipe):
        self.pipe = pipe
        self.objects: list[Any] = []
        self.places: dict[int, int] = {}  # of the objects in that list, by their ids
        self.started = time.monotonic()

    def serve(self, source: str) -> None:
        module = types.ModuleType("solution")
        sys.modules["solution"] = module
        self.pipe.send(self.attempt(lambda: exec(compile(source, "solution.py", "exec"), module.__dict__)))
        while True:
            request = self.pipe.receive()
            if "result" in request:
                continue  # of a function of the tests for which the solution was not given the time to wait
            if "names" in request:
                found = {name: module.__dict__[name] for name in request["names"] if name in module.__dict__}
                self.pipe.send({name: encode(value, self.keep) for name, value in found.items()})
            else:
                self.pipe.send(self.answer(request))

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        def run() -> Any:
            operation = functools.partial(OPERATIONS[request["do"]], self.objects[request["on"]])
            return perform(operation, request, self.fetch, self.keep)

        if not request["cpu"]:
            return self.attempt(run)
        # Half of what is left for each call, so that one which never ends leaves something for the next.
        _interrupt(signal.ITIMER_PROF, (request["cpu"] - time.process_time()) / 2)
        _interrupt(signal.ITIMER_REAL, (request["wall"] - (time.monotonic() - self.started)) / 2)
        reply = self.attempt(run)
        _interrupt(signal.ITIMER_PROF, 0)
        _interrupt(signal.ITIMER_REAL, 0)
        return reply

    def attempt(self, run: Callable[[], Any]) -> dict[str, Any]:
        try:
            return {"value": run()}
        except Ended:
            raise
        except BaseException as error:
            return told_error(error)

    def keep(self, value: Any) -> Any:
        place = self.places.setdefault(id(value), len(self.objects))
        if place == len(self.objects):
            self.objects.append(value)
        return {"t": "object", "v": place}

    def fetch(self, shape: str, told: Any) -> Any:
        if shape == "object":
            return self.objects[told]
        if shape == "library":
            return operator.attrgetter(told[1])(importlib.import_module(told[0]))

        def call_back(*args: Any, **kwargs: Any) -> Any:
            named = {name: encode(arg, self.keep) for name, arg in kwargs.items()}
            self.pipe.send({"call": told, "args": [encode(arg, self.keep) for arg in args], "kwargs": named})
            while "do" in (reply := self.pipe.receive()):  # the function asks something of an object that it was given
                self.pipe.send(self.answer({**reply, "cpu": 0}))
            if "error" in reply["result"]:
                raise error_of(reply["result"])
            return performed(reply["result"]["value"], args, kwargs, self.fetch)

        return call_back


def told_error(error: BaseException) -> dict[str, Any]:
    """JSON for an exception: its name, its text, and its arguments if all of them are data."""
    text = str(error)[:MAX_TEXT]
    try:
        arguments = [encode(argument, _no_data) for argument in error.args]
    except Exception:
        arguments = [text]
    return {"error": type(error).__name__, "text": text, "args": arguments}


def error_of(told: dict[str, Any]) -> BaseException:
    """What `told_error` made: a built-in exception, or for any other one of the same name."""
    name, text = str(told["error"]), str(told["text"])
    kind = getattr(builtins, name, None)
    if not (isinstance(kind, type) and issubclass(kind, BaseException)):
        kind = type(name, (Exception,), {})
    try:
        error: BaseException = kind(*(decode(argument, _no_data) for argument in told["args"]))
        if str(error)[:MAX_TEXT] == text:
            return error
        return type(name, (kind,), {"__str__": lambda _: text})(*error.args)  # told by what did not cross
    except (TypeError, ValueError):  # one that cannot be made of these
        return type(name, (Exception,), {})(text)


def _no_data(*_: Any) -> NoReturn:
    raise TypeError("an object, where data are wanted")


def _interrupt(timer: int, seconds: float) -> None:
    """Raise TimeoutError in the solution after so many seconds; 0 stops the timer."""
    signal.signal(signal.SIGPROF if timer == signal.ITIMER_PROF else signal.SIGALRM, _too_slow)
    signal.setitimer(timer, seconds if seconds == 0 else max(seconds, 0.01))


def _too_slow(*_: Any) -> NoReturn:
    raise TimeoutError("this test takes too long")


class Tests:
    """The parent: objects of the solution for the tests to use."""

    def __init__(self, pipe: Pipe, child: int, cpu: float, wall: float):
        self.pipe = pipe
        self.child = child
        self.cpu, self.wall = cpu, wall  # seconds that all calls may share; 0 where no call is interrupted
        self.functions: list[Callable[..., Any]] = []
        self.calls = 0

    def loaded(self) -> None:
        """Wait for the solution to have run. Raises what it raised."""
        self._value(self.pipe.receive())

    def names(self, names: Iterable[str]) -> dict[str, Any]:
        """Those of `names` that the solution defines."""
        self.pipe.send({"names": sorted(names)})
        return {name: decode(told, self.fetch) for name, told in self.pipe.receive().items()}

    def ask(self, operation: str, target: Remote, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self.calls += 1
        index = object.__getattribute__(target, "_remote_index")
        told = [encode(arg, self.keep) for arg in args]
        named = {name: encode(arg, self.keep) for name, arg in kwargs.items()}
        request = {"do": operation, "on": index, "args": told, "kwargs": named, "cpu": self.cpu, "wall": self.wall}
        self.pipe.send(request)
        reply = self.pipe.receive()
        failed: AssertionError | None = None
        while "call" in reply:
            try:
                result = {"value": perform(self.functions[reply["call"]], reply, self.fetch, self.keep)}
            except Exception as error:
                failed = failed or (error if isinstance(error, AssertionError) else None)
                result = told_error(error)
            self.pipe.send({"result": result})
            reply = self.pipe.receive()
        if failed:
            raise failed  # an assert of the tests, which the solution may not catch
        return performed(self._value(reply), args, kwargs, self.fetch)

    def end(self) -> str:
        """How the child ended that says nothing any more."""
        for _ in range(100):
            pid, status = os.waitpid(self.child, os.WNOHANG)
            if pid:
                by_limit = os.WIFSIGNALED(status) and os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL)
                return "timed out" if by_limit else "the solution ended its process"
            time.sleep(0.005)
        return "the solution says nothing any more"

    def _value(self, reply: dict[str, Any]) -> Any:
        if "error" not in reply:
            return reply["value"]
        raise error_of(reply)

    def keep(self, value: Any) -> Any:
        if isinstance(value, Remote):
            return {"t": "object", "v": object.__getattribute__(value, "_remote_index")}
        module, name = getattr(value, "__module__", None), getattr(value, "__qualname__", "<")
        if module in sys.stdlib_module_names | {"builtins"} and "<" not in name:
            return {"t": "library", "v": [module, name]}
        if isinstance(value, types.FunctionType | types.MethodType):
            self.functions.append(value)
            return {"t": "function", "v": len(self.functions) - 1}
        raise TypeError(f"the tests hand a {type(value).__name__} of their own to the solution, which cannot cross")

    def fetch(self, shape: str, told: Any) -> Any:
        if shape != "object" or not isinstance(told, int):
            raise Ended
        return Remote(self, told)


def wanted(tree: ast.Module) -> tuple[set[str], set[str]]:
    """The names that tests take from the solution, and the modules that they use without importing them.

    What the tests define or import is theirs, and so are the built-in names: a solution that defines its own `abs`
    changes no comparison. Only where the tests would use nothing else of the solution is a built-in name its own.
    """
    nodes = list(ast.walk(tree))
    used = {node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    bound = {node.id for node in nodes if isinstance(node, ast.Name) and not isinstance(node.ctx, ast.Load)}
    bound |= {node.arg for node in nodes if isinstance(node, ast.arg)}
    bound |= {node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef)}
    bound |= {node.name for node in nodes if isinstance(node, ast.ExceptHandler) and node.name}
    imports = [alias for node in nodes if isinstance(node, ast.Import | ast.ImportFrom) for alias in node.names]
    bound |= {(alias.asname or alias.name).split(".")[0] for alias in imports}
    owners = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    modules = {name for name in owners - bound if name in sys.stdlib_module_names}
    free = used - bound - modules
    return {name for name in free if not hasattr(builtins, name)} or free, modules


class Verdict:
    """What is written: `TOKEN fails REASON` or `TOKEN passes`, after one `TOKEN +2` or `TOKEN -2` per assert, and its number,
    where single ones are counted; a `-` counts whatever else the same assert did. `TOKEN of 3` tells their number first,
    and `TOKEN complete` that every statement ran to its end.
    """

    def __init__(self, token: str):
        self.token = token
        self.told: set[str] = set()

    def tell(self, text: str) -> None:
        if text not in self.told:
            self.told.add(text)
            os.write(1, f"{self.token} {' '.join(text.split())}\n".encode("utf-8", "replace"))


class Count(ast.NodeTransformer):
    """Numbers every assert and makes it tell how it went, rather than end the tests."""

    def __init__(self) -> None:
        self.numbers = itertools.count()

    def visit_Assert(self, node: ast.Assert) -> ast.AST:
        number = next(self.numbers)
        text = f"try: pass\nexcept (Exception, SystemExit): __tell__('-{number}')\nelse: __tell__('+{number}')"
        wrapped = ast.parse(text).body[0]
        assert isinstance(wrapped, ast.Try)
        wrapped.body = [node]
        return ast.fix_missing_locations(ast.copy_location(wrapped, node))


def listen(tests: str) -> Callable[[], None]:
    """Watch what unittest runs for the tests, and return what raises Ended if it found no test, or one that fails.

    Its runners only print that, or end the process. doctest is not run: `wanted` does not see the names in its examples.
    """
    results: list[Any] = []
    if "doctest" in tests:
        importlib.import_module("doctest").DocTestRunner.__init__ = _no_doctest
    if "unittest" in tests:
        unittest: Any = importlib.import_module("unittest")
        begin, main = unittest.TestResult.__init__, unittest.main

        def watched(self: Any, *args: Any, **kwargs: Any) -> None:
            results.append(self)
            begin(self, *args, **kwargs)

        unittest.TestResult.__init__ = watched
        unittest.main = lambda *args, **kwargs: main(*args, **kwargs | {"exit": False})

    def check() -> None:
        for result in results:
            for test, trace in result.failures + result.errors:
                last = trace.strip().splitlines()[-1]
                raise Ended("" if last == Ended.__name__ else f"{test.id().removeprefix('__main__.')}: {last[:200]}")
            if not result.wasSuccessful():
                raise Ended("a test that is expected to fail passes")
        if results and not sum(result.testsRun - len(result.skipped) for result in results):
            raise Ended("the tests hold no test that unittest runs")

    return check


def _no_doctest(*_: Any, **__: Any) -> NoReturn:
    raise Ended("doctest is not run: its examples do not see the solution")


def examine(tests: str, peer: Tests, verdict: Verdict, single: bool) -> None:
    """Run the tests and tell how they went."""
    tree = ast.parse(tests, "tests.py")
    names, modules = wanted(tree)
    counter = Count()
    if single:
        tree = counter.visit(tree)
        verdict.tell(f"of {next(counter.numbers)}")
    sys.modules["__main__"] = main = types.ModuleType("__main__")  # where unittest looks for tests
    scope = vars(main)
    scope["__tell__"] = verdict.tell
    scope |= {name: importlib.import_module(name) for name in modules}
    if "random" in tests:
        importlib.import_module("random").seed(0)
    check = listen(tests)
    complete = True
    parts = [ast.Module([statement], []) for statement in tree.body] if single else [tree]
    try:
        peer.loaded()
        scope |= peer.names(names)
        for part in parts:
            try:
                exec(compile(part, "tests.py", "exec"), scope)
            except (Exception, SystemExit) as error:
                if not single:
                    raise
                complete = False
                verdict.tell(f"raises {type(error).__name__}: {error}")
        check()
        if peer.calls == 0:
            raise Ended("the tests never call the solution")
    except Ended as error:
        verdict.tell(f"fails {str(error) or peer.end()}")
    except BaseException as error:
        verdict.tell(f"fails {told(error, tests)}")
    else:
        verdict.tell("complete" if complete else "incomplete")
        verdict.tell("passes")


def told(error: BaseException, tests: str) -> str:
    """What went wrong, with the line of the tests where it did."""
    step, line = error.__traceback__, 0
    while step is not None:
        line = step.tb_lineno if step.tb_frame.f_code.co_filename == "tests.py" else line
        step = step.tb_next
    where = f" at `{tests.splitlines()[line - 1].strip()[:200]}`" if line else ""
    text = str(error)[:200]
    return f"{type(error).__name__}{': ' if text else ''}{text}{where}"


def main() -> None:
    sys.set_int_max_str_digits(0)
    source = read_frame(0).decode("utf-8", "surrogatepass")
    ask_r, ask_w = os.pipe()
    reply_r, reply_w = os.pipe()
    for attempt in range(FORK_TRIES):
        try:
            child = os.fork()
            break
        except BlockingIOError:  # other processes of the same user came up meanwhile
            if attempt == FORK_TRIES - 1:
                raise
            time.sleep(0.05)
    if child == 0:
        try:
            null = os.open("/dev/null", os.O_RDWR)
            for descriptor in (0, 1, 2):
                os.dup2(null, descriptor)
            os.close(ask_w)
            os.close(reply_r)
            Solution(Pipe(ask_r, reply_w)).serve(source)
        finally:
            os._exit(0)
    os.close(ask_r)
    os.close(reply_w)
    given = json.loads(read_frame(0))
    sys.argv = ["tests.py"]
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115 (what the tests print is not the verdict)
    peer = Tests(Pipe(reply_r, ask_w), child, given["cpu"], given["wall"])
    examine(given["tests"], peer, Verdict(given["token"]), given["single"])
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
