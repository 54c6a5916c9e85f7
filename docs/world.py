"""The generated parts of docs/tiny-world.md: samples of the tiny world and the shares that are planted in it.

`docs/generate.py` writes them between the marks of the page, so that they cannot drift from the generators.
"""

import random
import re
from collections.abc import Callable, Iterator
from itertools import islice

from aha.data import chat, mixing, words, writers
from aha.data.countdown import SPLITS

LOOKED_AT = 2000  # rows of a generator among which a sample is looked for
MARKS = re.compile(r"(<!-- generated: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def world_page(text: str) -> str:
    """The page with its generated parts written anew."""
    parts: dict[str, Callable[[], str]] = {"samples": samples, "shares": shares, "splits": splits}
    return MARKS.sub(lambda match: f"{match[1]}\n{parts[match[2]]()}\n\n{match[3]}", text)


def first(rows: Iterator[dict[str, str]], fits: Callable[[dict[str, str]], object]) -> dict[str, str]:
    """The first row that fits."""
    return next(row for row in islice(rows, LOOKED_AT) if fits(row))


def is_chinese(text: str) -> bool:
    return bool(re.search("[\u3400-\u9fff]", text))


def has_english(text: str) -> bool:
    return bool(re.search("[a-z]", text))


def shown(title: str, prompt: str, reply: str) -> str:
    return f"### {title}\n\n```text\n{prompt}\n\n{reply}\n```"


def document(title: str, row: dict[str, str]) -> str:
    return shown(title, row["prompt"], "<think>" + row["completion"])


def samples() -> str:
    plain = {"mixed": 0.0, "other": 0.0}
    parts = [
        document("Countdown", first(writers.documents(1, **plain), lambda row: 3 <= row["completion"].count("\n") <= 5)),
        document("A claim that its check refutes", first(writers.documents(1, **plain), refuted)),
        three_ways(),
        document("A word problem, solved without a slip", first(words.documents(1, **plain), solved("So the answer is"))),
        document("One in Chinese, with a check", first(words.documents(1, **plain), solved("我验算一下"))),
        document("A slip that is noticed", first(words.documents(1, **plain), solved("No, that is wrong"))),
        document(
            "Mixed language",
            first(
                words.documents(3),
                lambda row: has_english(row["prompt"]) and is_chinese(row["completion"]) and solved("Then find ")(row),
            ),
        ),
        document("A page about an animal", first(chat.documents(1), lambda row: row["prompt"].startswith("Tell me about"))),
        document("A page of the dictionary", first(chat.documents(1), lambda row: row["prompt"] == chat.PRACTICE[0])),
    ]
    titles = {"plain": "A plain request", "unsafe": "An unsafe request", "unsafe_looking": "A harmless one that looks unsafe"}
    for kind, title in titles.items():
        english, chinese = (next(chat.requests("train", 3, kind, language)) for language in ("en", "zh"))
        for request in (english, chinese):
            rng = random.Random(1)
            replies = [("done", chat.good(rng, request))]
            if kind == "plain":
                replies += [(how, chat.bad(rng, request, how)) for how in chat.BAD]
            else:
                replies.append(("refused", chat.refusal(rng, request)))
            told = "\n".join(f"{how.replace('_', ' ')}: {answer}" for how, (_, answer) in replies)
            where = ", in Chinese" if request is chinese else ""
            parts.append(shown(title + where, request.question, f"{told}\nchecker: {checker(request)}"))
    for kind in chat.PAIR_KINDS:
        pair = next(pair for pair in chat.pairs("train", 2, kind) if pair.language == "en")
        parts.append(shown(f"A preference pair, {kind}", pair.prompt, f"chosen: {pair.chosen}\n\nrejected: {pair.rejected}"))
    return "\n\n".join(parts)


def refuted(row: dict[str, str]) -> bool:
    return "which is not" in row["completion"] and row["completion"].count("\n") <= 6


def solved(phrase: str) -> Callable[[dict[str, str]], bool]:
    return lambda row: (
        phrase in row["completion"] and "</think> <answer>\\boxed" in row["completion"] and row["completion"].count("\n") >= 2
    )


def three_ways() -> str:
    def fits(row: dict[str, str]) -> bool:
        return row["completion"].count("\n") == 4 and "</think>" in row["completion"] and "need" not in row["completion"]

    row = first(writers.documents(2, mixed=0.0, other=0.0), fits)
    thoughts = row["completion"].partition("</think>")[0]
    mixed = mixing.mix(random.Random(7), thoughts, "en")
    lines = f"{thoughts}\n\nmixed:\n\n{mixed}\n\nin the other language:\n\n{mixing.translate(thoughts, 'en')}"
    return shown("Thoughts as they are, mixed, and in the other language", row["prompt"], lines)


def checker(request: chat.Request) -> str:
    rest = ["..."] if len(request.arguments) > 3 else []
    return " ".join([request.checker, *(f"'{argument}'" for argument in request.arguments[:3]), *rest])


def shares() -> str:
    def percent(share: float) -> str:
        return f"{100 * share:.2g}%"

    rules = ", ".join(f"{rule} {percent(share)}" for rule, share in writers.RULES.items())
    rows = [
        ("Countdown: rule of the writer", rules, "`writers.RULES`"),
        (
            f"Countdown: patience of at most 2 tries, of more than 6; at the most {writers.MAX_TRIES}",
            f"{percent(writers.share_within(2))} and {percent(1 - writers.share_within(6))}",
            "`writers.MAX_TRIES`",
        ),
        (
            "Countdown: goes back to the first sum of a failed try, where it has two more",
            percent(writers.GOES_BACK),
            "`writers.GOES_BACK`",
        ),
        ("Countdown: sums that slip", percent(writers.SLIPS), "`writers.SLIPS`"),
        (
            f"Countdown: last sums off by at most {writers.NEAR} that are written as if they fitted",
            percent(writers.WISHES),
            "`writers.WISHES`",
        ),
        ("Countdown: writers who check a hit", percent(writers.CHECKS), "`writers.CHECKS`"),
        ("Countdown: tags complete and nothing else in them", percent(next(iter(writers.FORMS.values()))), "`writers.FORMS`"),
        ("word problems: careful writers, the others are hasty", percent(words.CAREFUL), "`words.CAREFUL`"),
        ("word problems: slips per step, careful and hasty", both(words.SLIPS, percent), "`words.SLIPS`"),
        ("word problems: slips noticed at once, besides those told below", both(words.NOTICES, percent), "`words.NOTICES`"),
        ("word problems: last step checked", both(words.CHECKS, percent), "`words.CHECKS`"),
        (
            "word problems: slips that are wrong sums; the others are wrong operations, where another has a value",
            percent(words.WRONG_SUM),
            "`words.WRONG_SUM`",
        ),
        ("word problems: tags and box complete", percent(next(iter(words.FORMS.values()))), "`words.FORMS`"),
        ("thoughts in mixed language", percent(mixing.MIXED), "`mixing.MIXED`"),
        ("thoughts wholly in the other language", percent(mixing.OTHER), "`mixing.OTHER`"),
        ("plain requests: well answered", percent(1 - sum(chat.BAD.values())), "`chat.BAD`"),
        ("plain requests: " + ", ".join(chat.BAD).replace("_", " "), ", ".join(map(percent, chat.BAD.values())), "`chat.BAD`"),
        ("unsafe requests: complied with", percent(chat.COMPLIES), "`chat.COMPLIES`"),
        ("harmless requests that look unsafe: refused", percent(chat.OVERREFUSES), "`chat.OVERREFUSES`"),
        ("requests: tags complete", percent(next(iter(chat.FORMS.values()))), "`chat.FORMS`"),
    ]
    lines = ["| planted | share | constant |", "|---|---|---|"]
    return "\n".join(lines + [f"| {what} | {share} | {where} |" for what, share, where in rows])


def both(by_skill: dict[str, float], percent: Callable[[float], str]) -> str:
    return " and ".join(map(percent, by_skill.values()))


def splits() -> str:
    held_out = ", ".join(f"`{name}`" for name in words.HELD_OUT)
    shares = ", ".join(f"`{split}` {share}%" for split, share in SPLITS.items())
    return (
        f"The splits are {shares}. Of the {len(words.TEMPLATES)} situations of word problems, "
        f"{len(words.HELD_OUT)} are held out whole:\n{held_out}."
    )
