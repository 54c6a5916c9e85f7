"""The situations of word problems, each told in English and Chinese, with the sums that answer it.

A question ends in what is asked for, and the last sum is its answer.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
