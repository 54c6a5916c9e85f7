r"""Word problems of one to four steps, in English and Chinese, and the people who solve them.

A template is one situation told in both languages. Names, things and numbers are drawn; every number on the way is
whole, positive and at most MAX_VALUE. A problem belongs to one split by the hash of its template and numbers, so the
same sum with other names, other things or in the other language is in the same split. The templates of HELD_OUT are
in no text that a model learns from.

Those who solve them write a line for every step, a few words and an equation, and box the answer. They are of uneven
skill: the hasty slip often, the careful seldom; some slips are noticed and mended, others are carried to the end. The
shares below are planted.
"""

import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aha.data.countdown import SPLITS
from aha.data.lexicon import LANGUAGES, NAMES, say
from aha.data.mixing import MIXED, OTHER, speak
from aha.data.splits import split_of

MAX_VALUE = 999  # the tiny tokenizer holds 0 to 999 as single tokens
MAX_DRAWS = 100_000  # draws without a new problem after which the generator gives up

CAREFUL = 0.6  # share of writers who are careful; the others are hasty
SLIPS = {"careful": 0.03, "hasty": 0.2}  # chance of a slip in a step
NOTICES = {"careful": 0.8, "hasty": 0.3}  # chance that a slip is noticed at once
CHECKS = {"careful": 0.4, "hasty": 0.05}  # chance that the last step is checked
WRONG_SUM = 0.5  # share of slips that are wrong sums; the others are wrong operations
FORMS = {  # how the thoughts and the answer are closed
    "{thoughts}</think> <answer>\\boxed{{{answer}}}</answer>": 0.84,
    "{thoughts}</think> \\boxed{{{answer}}}": 0.05,
    "{thoughts} <answer>\\boxed{{{answer}}}</answer>": 0.05,
    "{thoughts}</think> <answer>{answer}</answer>": 0.06,
}

OPENINGS = ("First find ", "Then find ", "Next find ", "Last find ")
ENDINGS = ("So the answer is {}.", "That makes {} as the answer.", "The answer must be {}.")
OPERATIONS = {"+": "Wait, I have to add: ", "-": "Wait, I have to take away: ", "*": "Wait, I have to multiply: "}
OPERATIONS["/"] = "Wait, I have to divide: "
UNDOING = {"+": "-", "-": "+", "*": "/", "/": "*"}

THINGS = (  # plural, singular, Chinese, its measure word
    ("apples", "apple", "苹果", "个"),
    ("pears", "pear", "梨", "个"),
    ("eggs", "egg", "鸡蛋", "个"),
    ("cakes", "cake", "蛋糕", "个"),
    ("balls", "ball", "球", "个"),
    ("books", "book", "书", "本"),
    ("pencils", "pencil", "铅笔", "支"),
    ("cards", "card", "卡片", "张"),
    ("stamps", "stamp", "邮票", "张"),
    ("flowers", "flower", "花", "朵"),
    ("candles", "candle", "蜡烛", "根"),
    ("ribbons", "ribbon", "丝带", "条"),
)
BOXES = (("boxes", "盒"), ("bags", "袋"), ("baskets", "篮"), ("parcels", "包"))


@dataclass(frozen=True)
class Step:
    """One sum of a template over its letters and whole numbers.

    Example: Step("the change: ", "y", "c", "-", "x"), or Step("what {} has: ", "x", "a", "+", "b", who="other")
    """

    label: str  # a phrase of the lexicon; its "{}" is the person `who`
    result: str
    left: str
    op: str
    right: str
    who: str = ""

    def operands(self, values: Mapping[str, int]) -> tuple[int, int]:
        """The two numbers of this sum."""
        left, right = (values[x] if x in values else int(x) for x in (self.left, self.right))
        return left, right


@dataclass(frozen=True)
class Template:
    """A situation in both languages; `numbers` says how its letters are drawn, in order: a range, or a product.

    Example: Template("share", "{name} shares {a} {things} ...", "{name}把{a}{m}{thing}...",
                      numbers={"b": (2, 12), "q": (2, 20), "a": "b*q"}, steps=(Step("the share of each: ", ...),))
    """

    name: str
    en: str
    zh: str
    numbers: Mapping[str, tuple[int, int] | str]
    steps: tuple[Step, ...]


@dataclass(frozen=True)
class WordProblem:
    """A question, its right answer and the way to it.

    Example: WordProblem("Tom has 12 apples. Anna gives Tom 5 more. How many apples does Tom have now?", gold=17,
                         language="en", template="gain", numbers={"a": 12, "b": 5}, people={"name": "Tom", ...},
                         steps=(Step("the total: ", "x", "a", "+", "b"),))
    """

    question: str
    gold: int
    language: str
    template: str
    numbers: Mapping[str, int]
    people: Mapping[str, str]
    steps: tuple[Step, ...]


def _template(name: str, en: str, zh: str, numbers: str, *steps: str) -> Template:
    """A template from short writing: numbers "b=2..12 q=2..20 a=b*q", steps "the total: x=a+b" or "... @other"."""
    drawn: dict[str, tuple[int, int] | str] = {}
    for item in numbers.split():
        letter, _, how = item.partition("=")
        low, _, high = how.partition("..")
        drawn[letter] = (int(low), int(high)) if high else how
    parsed = []
    for text in steps:
        match = re.fullmatch(r"(.*: )(\w)=(\w+)([-+*/])(\w+)(?: @(\w+))?", text)
        assert match, text
        label, result, left, op, right, who = match.groups()
        parsed.append(Step(label, result, left, op, right, who or ""))
    return Template(name, en, zh, drawn, tuple(parsed))


# Every question ends in what is asked for; the last step is its answer.
TEMPLATES = {
    template.name: template
    for template in (
        # One step.
        _template(
            "gain",
            "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} does {name} have now?",
            "{name}有{a}{m}{thing}，{other}又给了{name}{b}{m}。{name}现在有多少{m}{thing}？",
            "a=2..200 b=2..99",
            "the total: x=a+b",
        ),
        _template(
            "loss",
            "{name} has {a} {things} and gives {b} of them to {other}. How many {things} does {name} have left?",
            "{name}有{a}{m}{thing}，给了{other}{b}{m}。{name}还剩多少{m}{thing}？",
            "b=2..99 x=2..200 a=b+x",
            "what is left: x=a-b",
        ),
        _template(
            "packed",
            "There are {a} {boxes} with {b} {things} in each. How many {things} are there in all?",
            "有{a}{box}{thing}，每{box}有{b}{m}。一共有多少{m}{thing}？",
            "a=2..20 b=2..40",
            "the total: x=a*b",
        ),
        _template(
            "share",
            "{name} shares {a} {things} equally among {b} children. How many {things} does each child get?",
            "{name}把{a}{m}{thing}平均分给{b}个孩子。每个孩子得到多少{m}{thing}？",
            "b=2..12 x=2..40 a=b*x",
            "the share of each: x=a/b",
        ),
        _template(
            "more",
            "{name} has {a} {things}. {other} has {b} more than {name}. How many {things} does {other} have?",
            "{name}有{a}{m}{thing}，{other}比{name}多{b}{m}。{other}有多少{m}{thing}？",
            "a=2..200 b=2..99",
            "what {} has: x=a+b @other",
        ),
        _template(
            "fewer",
            "{name} has {a} {things}. {other} has {b} fewer than {name}. How many {things} does {other} have?",
            "{name}有{a}{m}{thing}，{other}比{name}少{b}{m}。{other}有多少{m}{thing}？",
            "b=2..99 x=2..200 a=b+x",
            "what {} has: x=a-b @other",
        ),
        _template(
            "difference",
            "{name} has {a} {things} and {other} has {b}. How many more {things} does {name} have than {other}?",
            "{name}有{a}{m}{thing}，{other}有{b}{m}。{name}比{other}多多少{m}{thing}？",
            "b=2..150 x=2..99 a=b+x",
            "the difference: x=a-b",
        ),
        _template(
            "times",
            "{name} has {a} {things}. {other} has {b} times as many. How many {things} does {other} have?",
            "{name}有{a}{m}{thing}，{other}的{thing}是{name}的{b}倍。{other}有多少{m}{thing}？",
            "a=2..60 b=2..9",
            "what {} has: x=a*b @other",
        ),
        _template(
            "older",
            "{name} is {a} years old. {other} is {b} years older than {name}. How old is {other}?",
            "{name}今年{a}岁，{other}比{name}大{b}岁。{other}今年多少岁？",
            "a=3..60 b=2..30",
            "the age of {}: x=a+b @other",
        ),
        _template(
            "train",
            "A train goes {a} km in one hour. How many km does it go in {b} hours?",
            "一列火车每小时行{a}千米。{b}小时行多少千米？",
            "a=20..160 b=2..6",
            "the way: x=a*b",
        ),
        # Two steps.
        _template(
            "change",
            "{name} buys {a} {things} for {b} dollars each and pays with {c} dollars. How many dollars does {name} get back?",
            "{name}买了{a}{m}{thing}，每{m}{b}元，付了{c}元。应找回多少元？",
            "a=2..15 b=2..20 x=a*b y=2..60 c=x+y",
            "the cost: x=a*b",
            "the change: y=c-x",
        ),
        _template(
            "gain_and_loss",
            "{name} has {a} {things}, finds {b} more and then loses {c}. How many {things} does {name} have left?",
            "{name}有{a}{m}{thing}，又找到{b}{m}，后来丢了{c}{m}。{name}还剩多少{m}{thing}？",
            "a=5..150 b=2..99 x=a+b c=2..99",
            "the total: x=a+b",
            "what is left: y=x-c",
        ),
        _template(
            "more_together",
            "{name} has {a} {things}. {other} has {b} more than {name}. How many {things} do they have together?",
            "{name}有{a}{m}{thing}，{other}比{name}多{b}{m}。他们一共有多少{m}{thing}？",
            "a=2..150 b=2..60",
            "what {} has: x=a+b @other",
            "the total: y=a+x",
        ),
        _template(
            "times_together",
            "{name} has {a} {things}. {other} has {b} times as many. How many {things} do they have together?",
            "{name}有{a}{m}{thing}，{other}的{thing}是{name}的{b}倍。他们一共有多少{m}{thing}？",
            "a=2..60 b=2..9",
            "what {} has: x=a*b @other",
            "the total: y=a+x",
        ),
        _template(
            "taken_from_boxes",
            "There are {a} {boxes} with {b} {things} in each. {name} takes {c} {things}. How many {things} are left?",
            "有{a}{box}{thing}，每{box}有{b}{m}。{name}拿走了{c}{m}。还剩多少{m}{thing}？",
            "a=2..15 b=3..30 c=2..60",
            "the total: x=a*b",
            "what is left: y=x-c",
        ),
        _template(
            "packing",
            "{name} has {a} {things} and buys {b} more. {name} puts {c} into each box. How many boxes does {name} need?",
            "{name}有{a}{m}{thing}，又买了{b}{m}，每{c}{m}装一盒。一共需要多少盒？",
            "c=2..12 y=3..25 x=c*y b=2..40 a=x-b",
            "the total: x=a+b",
            "the boxes: y=x/c",
        ),
        _template(
            "trip",
            "A bus drives {a} km an hour for {b} hours. The whole way is {c} km. How many km are left?",
            "一辆汽车每小时行{a}千米，行了{b}小时。全程{c}千米，还剩多少千米？",
            "a=20..99 b=2..6 x=a*b y=5..150 c=x+y",
            "the way: x=a*b",
            "what is left: y=c-x",
        ),
        _template(
            "laps",
            "{name} runs {a} laps of {b} minutes each and then rests for {c} minutes. How many minutes is that in all?",
            "{name}跑了{a}圈，每圈{b}分钟，然后休息了{c}分钟。一共用了多少分钟？",
            "a=2..15 b=2..12 c=3..40",
            "the time: x=a*b",
            "the total: y=x+c",
        ),
        _template(
            "half",
            "{name} has {a} {things}, gives half of them to {other} and then buys {b} more. "
            "How many {things} does {name} have now?",
            "{name}有{a}{m}{thing}，把一半给了{other}，后来又买了{b}{m}。{name}现在有多少{m}{thing}？",
            "x=2..100 a=x+x b=2..60",
            "the half: x=a/2",
            "the total: y=x+b",
        ),
        _template(
            "tank",
            "A tank holds {a} litres. Every minute {b} litres flow in and {c} litres flow out. "
            "How many minutes does it take to fill the empty tank?",
            "一个水箱能装{a}升水，每分钟流进{b}升，流出{c}升。把空水箱装满要多少分钟？",
            "c=2..20 x=2..20 b=c+x y=2..40 a=x*y",
            "more water in a minute: x=b-c",
            "the time: y=a/x",
        ),
        _template(
            "rest_shared",
            "{name} has {a} {things}, keeps {b} and shares the rest equally among {c} friends. "
            "How many {things} does each friend get?",
            "{name}有{a}{m}{thing}，自己留{b}{m}，剩下的平均分给{c}个朋友。每个朋友得到多少{m}{thing}？",
            "c=2..9 y=2..25 x=c*y b=2..60 a=x+b",
            "what is left: x=a-b",
            "the share of each: y=x/c",
        ),
        _template(
            "both_work",
            "{name} packs {a} {boxes} an hour and {other} packs {b} {boxes} an hour. "
            "How many {boxes} do they pack together in {c} hours?",
            "{name}每小时装{a}{box}，{other}每小时装{b}{box}。两人{c}小时一共装多少{box}？",
            "a=2..40 b=2..40 c=2..8",
            "both in an hour: x=a+b",
            "the total: y=x*c",
        ),
        _template(
            "pages",
            "A book has {a} pages. {name} reads {b} pages a day for {c} days. How many pages are left?",
            "一本书有{a}页，{name}每天看{b}页，看了{c}天。还剩多少页？",
            "b=3..40 c=2..12 x=b*c y=2..150 a=x+y",
            "the pages: x=b*c",
            "what is left: y=a-x",
        ),
        # Three steps.
        _template(
            "two_kinds",
            "One {thing} costs {a} dollars and one {thing2} costs {b} dollars. {name} buys {c} {things} and {d} {things2}. "
            "How many dollars does {name} pay?",
            "一{m}{thing}{a}元，一{m2}{thing2}{b}元。{name}买了{c}{m}{thing}和{d}{m2}{thing2}。{name}要付多少元？",
            "a=2..20 b=2..20 c=2..12 d=2..12",
            "the first part: x=a*c",
            "the second part: y=b*d",
            "the total: z=x+y",
        ),
        _template(
            "two_walks",
            "{name} walks {a} km a day for {b} days and then {c} km a day for {d} days. How many km does {name} walk in all?",
            "{name}先每天走{a}千米，走了{b}天，再每天走{c}千米，走了{d}天。{name}一共走了多少千米？",
            "a=3..30 b=2..9 c=3..30 d=2..9",
            "the first part: x=a*b",
            "the second part: y=c*d",
            "the total: z=x+y",
        ),
        _template(
            "coupon",
            "{name} and {other} buy {a} {things} for {b} dollars each. A coupon saves them {c} dollars. "
            "They share the cost equally. How many dollars does each of them pay?",
            "{name}和{other}买了{a}{m}{thing}，每{m}{b}元。优惠券减{c}元，两人平均付钱。每人付多少元？",
            "a=2..15 b=2..20 c=2..30",
            "the cost: x=a*b",
            "what is left: y=x-c",
            "the share of each: z=y/2",
        ),
        _template(
            "wages",
            "{name} works {a} hours a day for {b} days and earns {c} dollars an hour. {name} spends {d} dollars. "
            "How many dollars are left?",
            "{name}每天工作{a}小时，工作了{b}天，每小时挣{c}元，花了{d}元。还剩多少元？",
            "a=2..9 b=2..6 c=5..20 d=5..99",
            "the hours: x=a*b",
            "the money: y=x*c",
            "what is left: z=y-d",
        ),
        _template(
            "hall",
            "A hall has {a} rows of {b} seats. {c} people sit down and then {d} more. How many seats are left?",
            "一个大厅有{a}排座位，每排{b}个。先坐了{c}人，又坐了{d}人。还剩多少个座位？",
            "a=5..25 b=6..30 c=5..99 d=5..99",
            "the seats: x=a*b",
            "the total: y=c+d",
            "what is left: z=x-y",
        ),
        # Four steps.
        _template(
            "farm",
            "A farm has {a} cows, {b} times as many hens as cows and {c} fewer pigs than cows. "
            "How many animals are there in all?",
            "农场有{a}头牛，鸡的数量是牛的{b}倍，猪比牛少{c}头。一共有多少只动物？",
            "c=2..20 y=2..40 a=y+c b=2..8",
            "the hens: x=a*b",
            "the pigs: y=a-c",
            "the first part: z=a+x",
            "the total: w=z+y",
        ),
        _template(
            "change_of_two",
            "{name} buys {a} {things} for {b} dollars each and {c} {things2} for {d} dollars each and pays with {e} dollars. "
            "How many dollars does {name} get back?",
            "{name}买了{a}{m}{thing}，每{m}{b}元，又买了{c}{m2}{thing2}，每{m2}{d}元，付了{e}元。应找回多少元？",
            "a=2..12 b=2..15 c=2..12 d=2..15 x=a*b y=c*d z=x+y w=2..99 e=z+w",
            "the first part: x=a*b",
            "the second part: y=c*d",
            "the cost: z=x+y",
            "the change: w=e-z",
        ),
    )
}
HELD_OUT = ("fewer", "pages", "rest_shared", "both_work", "two_walks", "change_of_two")
SEEN = tuple(name for name in TEMPLATES if name not in HELD_OUT)


def compute(a: int, op: str, b: int) -> int | None:
    """The value of a sum; None where it is not whole, not positive or above MAX_VALUE."""
    if op == "/" and (b == 0 or a % b):
        return None
    value = a + b if op == "+" else a - b if op == "-" else a * b if op == "*" else a // b
    return value if 0 < value <= MAX_VALUE else None


def work_out(steps: Sequence[Step], numbers: Mapping[str, int]) -> dict[str, int] | None:
    """All letters after `steps`; None where a sum on the way has no value."""
    values = dict(numbers)
    for step in steps:
        value = compute(values[step.left], step.op, values[step.right] if step.right in values else int(step.right))
        if value is None:
            return None
        values[step.result] = value
    return values


def _draw_numbers(rng: random.Random, template: Template) -> dict[str, int] | None:
    """The letters that the question shows; None where the draw has no positive value up to MAX_VALUE."""
    values: dict[str, int] = {}
    for letter, how in template.numbers.items():
        if isinstance(how, str):
            value = compute(values[how[0]], how[1], values[how[2]])
            if value is None or value < 2:
                return None
            values[letter] = value
        else:
            low, high = how
            values[letter] = low + int(rng.random() * (high - low + 1))
    return {letter: value for letter, value in values.items() if letter < "q"}


def problems(split: str, seed: int = 0, language: str | None = None, held_out: bool = False) -> Iterator[WordProblem]:
    """Endless distinct problems of one split, from the templates that are learned from or, `held_out`, from the others.

    Without `language`, half are English and half Chinese. Raises ValueError for an unknown split or language, and where
    no new problem is found for a long time.
    """
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; known: {', '.join(SPLITS)}")
    if language not in (None, *LANGUAGES):
        raise ValueError(f"no language {language!r}; known: {', '.join(LANGUAGES)}")
    rng = random.Random(f"words/{split}/{seed}/{language}/{held_out}")
    names = HELD_OUT if held_out else SEEN
    seen: set[str] = set()
    while True:
        for _ in range(MAX_DRAWS):
            template = TEMPLATES[names[int(rng.random() * len(names))]]
            numbers = _draw_numbers(rng, template)
            if numbers is None or split_of(key(template.name, numbers)) != split:
                continue
            values = work_out(template.steps, numbers)
            if values is None:
                continue
            problem = _told(rng, template, numbers, values, language or LANGUAGES[rng.random() < 0.5])
            if problem.question not in seen:
                break
        else:
            raise ValueError(f"no new problem in {MAX_DRAWS} draws after {len(seen)}")
        seen.add(problem.question)
        yield problem


def key(template: str, numbers: Mapping[str, int]) -> str:
    """What decides the split of a problem.

    Example: key("gain", {"a": 12, "b": 5}) == "words/gain/a=12,b=5"
    """
    return f"words/{template}/" + ",".join(f"{letter}={numbers[letter]}" for letter in sorted(numbers))


def _told(
    rng: random.Random, template: Template, numbers: Mapping[str, int], values: Mapping[str, int], language: str
) -> WordProblem:
    spoken = LANGUAGES.index(language)
    first, second = rng.sample(NAMES, 2)
    thing, thing2 = rng.sample(THINGS, 2)
    boxes, box = rng.choice(BOXES)
    people = {"name": first[spoken], "other": second[spoken]}
    if language == "en":
        words = {"things": thing[0], "thing": thing[1], "things2": thing2[0], "thing2": thing2[1], "boxes": boxes}
    else:
        words = {"thing": thing[2], "m": thing[3], "thing2": thing2[2], "m2": thing2[3], "box": box}
    question = (template.en if language == "en" else template.zh).format(**people, **words, **numbers)
    gold = values[template.steps[-1].result]
    return WordProblem(question, gold, language, template.name, numbers, people, template.steps)


def solution(rng: random.Random, problem: WordProblem, slips: bool = True) -> tuple[str, int]:
    """Thoughts in the problem's language and the answer at their end, right or wrong; right without `slips`.

    Every line follows from what stands above it. A slip is a wrong sum or a wrong operation; one that would leave a
    later step without a whole positive value is noticed.
    """
    language = problem.language
    writer = "careful" if rng.random() < CAREFUL else "hasty"
    values = dict(problem.numbers)
    lines: list[str] = []
    for i, step in enumerate(problem.steps):
        is_last = i == len(problem.steps) - 1
        opening = "Last find " if is_last and i > 1 else OPENINGS[min(i, 2)]
        label = say(step.label, language, problem.people.get(step.who, ""))
        a, b = step.operands(values)
        op, right = step.op, compute(a, step.op, b)
        assert right is not None
        op_written, value = op, right
        if slips and rng.random() < SLIPS[writer]:
            op_written, value = _slip(rng, a, op, b, right)
        lines.append(f"{say(opening, language)}{label}{a}{op_written}{b}={value}")
        if value != right:
            carried = work_out(problem.steps[i + 1 :], {**values, step.result: value})
            if carried is None or rng.random() < NOTICES[writer]:
                remark = "No, that is wrong: " if op_written == op else OPERATIONS[op]
                lines.append(f"{say(remark, language)}{a}{op}{b}={right}")
                op_written, value = op, right
        if is_last and rng.random() < CHECKS[writer]:
            value = _check(lines, a, op_written, b, value, language)
        values[step.result] = value
    lines.append(say(rng.choice(ENDINGS), language, value))
    return "\n".join(lines), value


def _slip(rng: random.Random, a: int, op: str, b: int, right: int) -> tuple[str, int]:
    """Another (operation, value) than the right one: a wrong sum or a wrong operation."""
    if rng.random() >= WRONG_SUM:
        others = [(other, compute(a, other, b)) for other in OPERATIONS if other != op]
        wrong = [(other, value) for other, value in others if value is not None and value != right]
        if wrong:
            return rng.choice(wrong)
    near = [right + off for off in (-10, -2, -1, 1, 2, 10) if 0 < right + off <= MAX_VALUE]
    return op, rng.choice(near)


def _check(lines: list[str], a: int, op: str, b: int, value: int, language: str) -> int:
    """Undo the last sum on the page; where that does not fit, do the sum again. The value after that.

    A right sum of the wrong operation passes.
    """
    undone = compute(value, UNDOING[op], b)
    if undone is None:  # a wrong product that cannot be divided, a wrong sum too small: there is nothing to compare
        return value
    line = f"{say('I check: ', language)}{value}{UNDOING[op]}{b}={undone}"
    if undone == a:
        lines.append(line + say(", it fits.", language))
        return value
    right = compute(a, op, b)
    assert right is not None
    lines.append(line + say(", which is not {}.", language, a))
    lines.append(f"{say('Once more: ', language)}{a}{op}{b}={right}")
    return right


def documents(seed: int = 0, mixed: float = MIXED, other: float = OTHER) -> Iterator[dict[str, str]]:
    """Endless rows of `prompt` and `completion` (thoughts, which follow an opened `<think>`, and the answer).

    Problems are those of split `base`; shares of the thoughts are mixed, or in the `other` language (`mixing.py`).
    """
    rng = random.Random(f"words/documents/{seed}")
    forms, shares = list(FORMS), list(FORMS.values())
    for problem in problems("base", seed):
        thoughts, answer = solution(rng, problem)
        form = rng.choices(forms, shares)[0]
        spoken = speak(rng, thoughts, problem.language, mixed, other)
        yield {"prompt": problem.question, "completion": form.format(thoughts=spoken, answer=answer)}
