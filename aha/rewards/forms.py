"""What kind of thing an answer is: a number, a list, an interval, a relation, a matrix, words, or an expression."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache

from aha.rewards.notation import FUNCTIONS, depth, plain, split_top
from aha.rewards.numbers import UNITS, Quantity, comes_out, read_quantity, value_of

MAX_CHARACTERS = 1000  # of one answer; a longer one is compared letter by letter
MAX_DEPTH = 30  # of nested brackets, the same
MAX_PARTS = 64  # of a list, the same

PLAIN_NUMBER = re.compile(r"[+-]?[0-9]{1,18}(?:\.[0-9]{1,18})?")
LIST_MARK = re.compile(
    r";|,(?:\s*(?:and|or)(?![A-Za-z]))?|\s(?:and|or|ou|und)(?=\s)|(?:and|or)(?=[(\\])|或|和|(?<=[0-9)])or(?=[A-Z(0-9])"
)
UNION_MARK = re.compile(r"\\cup(?![A-Za-z])")
RELATION_MARK = re.compile(r"\\(?:le|ge|ne|in|approx|equiv|notin|subset|subseteq|to)(?![A-Za-z])|<|>|=(?!=)")
RATIO_MARK = re.compile(r":")
FLIPPED = {"<": ">", ">": "<", "\\le": "\\ge", "\\ge": "\\le"}
SYMBOL = r"(?:\\?[A-Za-zα-ω]+|\\[A-Za-z]+)(?:'|_(?:\{[^{}]*\}|\w)|\s*\((?:[A-Za-z]\w*|[0-9]+|,|\s)*\))*"
NAME = re.compile(
    rf"\|?\s*{SYMBOL}\s*\|?(?:\s*[:/]\s*{SYMBOL})*|\\frac\{{{SYMBOL}\}}\{{{SYMBOL}\}}|\(\s*{SYMBOL}(?:\s*,\s*{SYMBOL})*\s*\)"
    r"|\\(?:angle|overline|overrightarrow|vec)\s*\{?\s*[A-Za-z ]+\}?(?:\s*\([A-Za-z]\))?"
)
CHOICE = re.compile(r"\(\s*([A-Ja-j])\s*\)\.?|([A-J])\s*[.):]?|\[\s*([A-J])\s*\]")
CHOICE_AND_TEXT = re.compile(r"(?:\(\s*([A-J])\s*\)\s*|([A-J])\s*[.:)]\s+)(\S.*)", re.DOTALL)
OPEN_CHOICE = re.compile(r"^([A-J])\)(?=\s|$)")
# What stands behind a choice that is one of several, and so is none: "(A) or ...", "A. B. C. D.", "A: B", "A. 12 or B".
OTHER_CHOICE = re.compile(
    r"^(?:[,;/&|]|(?:or|and)\b|[A-J]\s*$|[A-J]\s+[A-J]\b|\(\s*[A-J]\s*\)|[A-J]\s*[.:)](?:\s|$))"
    r"|(?:,|\bor\b)\s*\(?\s*[A-J]\s*\)?\s*[.?]?$"
)
CLOCK = re.compile(r"([0-9]{1,2}:[0-5][0-9](?::[0-5][0-9])?)(?:\s*([ap])\.?\s?m?\.?)?", re.IGNORECASE)
MATRIX = re.compile(r"\\begin\{([pbvBV]?matrix|array)\}(?:\{[lcr| ]*\})?(.*)\\end\{\1\}", re.DOTALL)
WORD_RUN = re.compile(r"(?<![\\A-Za-z])[^\W\d_]{2,}")
NO_WORDS = {*FUNCTIONS, *UNITS, "and", "or"}
ARITHMETIC = re.compile(r"\\(?:frac|sqrt|times|cdot|pi|div)(?![A-Za-z])")
EXCLAMATION = re.compile(r"(?:(?<=(?<!\\)[^\W\d_]{2})|(?<=\*\*)|(?<=\$)|(?<=^[A-J]))!+$")
LETTERS = re.compile(r"[^\W\d_]|\\[A-Za-z]")
INFINITY = re.compile(r"[+-]?\\infty")
ZERO_GROUP = re.compile(r",0[0-9]{2}(?![0-9])")  # of thousands, which are no list
STYLED_WORD = re.compile(r"\$?\s*\\(?:text|textbf|textit|textrm|textsf|mbox)\s*\{\s*([^\W\d_]{2,})\s*\}\s*\$?\.?")
NUMERALS = (
    "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen twenty"
)
SPOKEN = {  # what words alone say
    **{word: str(number) for number, word in enumerate(re.findall(r"\w+", NUMERALS))},
    "infinity": "\\infty", "all real numbers": "\\mathbb{R}", "all reals": "\\mathbb{R}", "no solution": "\\emptyset",
    "no solutions": "\\emptyset", "empty set": "\\emptyset", "the empty set": "\\emptyset",
}  # fmt: skip
FALSE_SUM = "false sum"  # the marks of a literal that says so
SIDE_BY_SIDE = re.compile(r"[0-9.] [0-9.]|[0-9]\)[0-9]")  # (97)1 may be read as a product or a sum
SIGN = r"[-+*/=<>]|\\(?:times|cdot|div|pm|le|ge|ne|approx)(?![A-Za-z])"
GROUPS = r"(?<![0-9.,])[1-9][0-9]{0,2}(?:,[0-9]{3})+(?![0-9]|,[0-9])(?:\.[0-9]+)?"
# A number with commas of thousands beside a sign or a bracket that multiplies: "1,500 + 500", "2(1,500)".
SUMMAND = re.compile(rf"(?:{SIGN}|[0-9]\)?\()\s*[＄$€£]?{GROUPS}|{GROUPS}(?=\s*(?:{SIGN}|\())")
THOUSANDS = re.compile(r"(?<![0-9.])[0-9]{1,3}(?: [0-9]{3})+(?![0-9])")
BASE_DIGITS = re.compile(r"[0-9A-F]+_(?:\{?\(?[0-9]+\)?\}?)")


@dataclass(frozen=True)
class Form:
    """An answer taken apart. What `parts` and `marks` hold depends on the kind.

    list: its elements; "{}" where braces stand around them. tuple: its elements; the two brackets, so that intervals
    and points are both tuples. union: its pieces. relation: both sides; the sign. sum: what is said to be equal, the
    result last. ratio: its terms. matrix: its rows, as tuples. number: `number`. choice, words, infinity, expression,
    literal (only equal to itself): nothing but `text`.

    Example: "[0, 1)" -> Form("tuple", "[0,1)", marks="[)", parts=(Form("number", ...), Form("number", ...)))
    """

    kind: str
    text: str  # in plain notation, without white space that means nothing
    parts: tuple["Form", ...] = ()
    marks: str = ""
    number: Quantity | None = field(default=None, compare=False)

    def told(self) -> str:
        """The form in words that show how it was read."""
        if self.number is not None:
            return self.number.told()
        inner = [part.told() for part in self.parts]
        if self.kind == "list":
            return f"{{{', '.join(inner)}}}"
        if self.kind == "tuple":
            return f"{self.marks[0]}{', '.join(inner)}{self.marks[1]}"
        if self.kind in ("union", "relation", "ratio"):
            mark = {"union": "or", "ratio": ":"}.get(self.kind, self.marks)
            return f" {mark} ".join(inner)
        return f"[{'; '.join(inner)}]" if self.kind == "matrix" else self.text


@lru_cache(maxsize=65536)
def read_forms(text: str) -> tuple[Form, ...]:
    """The ways to read one answer, the likeliest first; none where it is empty.

    There are two where a comma may be part of a number or stand between two.
    """
    if PLAIN_NUMBER.fullmatch(text):
        return (_number_form(text),)
    if (match := STYLED_WORD.fullmatch(text)) and match[1].casefold() not in SPOKEN:
        return (Form("words", _folded(match[1])),)  # and no product of variables
    text = OPEN_CHOICE.sub(r"\1.", plain(text))
    bare = _trim(text)
    bare = SPOKEN.get(bare.casefold(), bare)
    if not bare:
        return (Form("literal", text),) if text else ()
    nested = depth(bare)
    if len(bare) > MAX_CHARACTERS or (nested or 0) > MAX_DEPTH:
        return (Form("literal", bare),)
    if nested is None:  # its brackets say nothing about what belongs together
        return (Form("words", _folded(bare)) if is_prose(bare) else _expression(bare),)
    forms = [form for decimal_comma in (False, True) if (form := _quantity_form(bare, decimal_comma))]
    joined = SUMMAND.sub(lambda match: match[0].replace(",", ""), bare)
    if not forms and joined != bare:
        forms.append(_read(joined))
    other = _read(bare)
    if not forms or (other.kind not in ("number", "expression", "words") and not ZERO_GROUP.search(bare)):
        forms.append(other)
    match = CHOICE_AND_TEXT.fullmatch(bare)
    if match and forms[0].kind != "choice" and not _goes_on(match[1] or match[2], match[3]):
        forms = [Form("choice", match[1] or match[2], marks="with text"), _read(match[3]), *forms]
    return tuple(forms)


def _goes_on(letter: str, rest: str) -> bool:
    """Whether another choice stands behind a choice: at once, at the end, or the letter that comes next, marked as one."""
    following = chr(ord(letter) + 1)
    marked = rf"(?<!\w)\(\s*{following}\s*\)|(?<![\w(]){following}\s*[.:)](?:\s|$)"
    return bool(OTHER_CHOICE.search(rest) or re.search(marked, rest))


def _number_form(text: str) -> Form:
    return Form("number", text, number=read_quantity(text))


def _quantity_form(text: str, decimal_comma: bool = False) -> Form | None:
    number = read_quantity(text, decimal_comma)
    return None if number is None else Form("number", _tight(text), number=number)


def _expression(text: str) -> Form:
    """An expression; two numbers side by side are none, and equal only themselves."""
    text = _tight(text)
    return Form("literal" if SIDE_BY_SIDE.search(text) else "expression", text)


def _tight(text: str) -> str:
    """Without white space, but for that which ends a command or parts two words or two numbers."""
    text = THOUSANDS.sub(lambda match: match[0].replace(" ", ""), text)
    text = re.sub(r"([_^])([0-9]) +(?=[0-9])", r"\1{\2}", text)  # \log_2 8
    return re.sub(r"\s+(?!(?<=[A-Za-z]\s)[A-Za-z]|(?<=[0-9.]\s)[0-9.])", "", text)


def _trim(text: str) -> str:
    """Without what surrounds an answer: white space, final marks, dollar signs, emphasis, a leading equals sign.

    An exclamation mark behind a number, one letter or a bracket is a factorial.
    """
    before = None
    while text != before:
        before = text
        text = text.strip().strip("$").strip().rstrip(".,;:?\\").removeprefix("=").removeprefix(":").strip()
        text = EXCLAMATION.sub("", text)
        if text.startswith("**") and text.endswith("**") and len(text) > 4:
            text = text[2:-2]
        if _encloses(text, "{", "}") or (text.endswith("}") and text.count("}") > text.count("{")):
            text = text.removeprefix("{")[:-1] if _encloses(text, "{", "}") else text[:-1]
        if text.startswith("}") and text.count("}") > text.count("{"):
            text = text[1:]
        for opening, closing in ((r"\(", r"\)"), (r"\[", r"\]")):
            if text.startswith(opening) and text.endswith(closing):
                text = text[2:-2]
        if len(text) > 1 and text[0] == text[-1] and text[0] in "\"'`":
            text = text[1:-1]
    return text


def _encloses(text: str, opening: str, closing: str) -> bool:
    """Whether the first bracket of `text` is closed by its last character."""
    if len(text) < 2 or text[0] not in opening or text[-1] not in closing or text[-2] == "\\":
        return False
    level = 0
    for place, character in enumerate(text):
        level += (character in "([{") - (character in ")]}")
        if level == 0:
            return place == len(text) - 1
    return False


def _read(text: str, inside: bool = False) -> Form:
    text = _trim(text)
    if match := CHOICE.fullmatch(text):
        return Form("choice" if match[0] != match[2] else "letter", next(g for g in match.groups() if g).upper())
    if (match := MATRIX.fullmatch(text)) and "\\begin" not in match[2]:
        return _matrix(text, match[2])
    if match := re.fullmatch(r"\[\s*(\\begin\{array\}.*\\end\{array\})\s*\]", text, re.DOTALL):
        return _read(match[1])
    if match := CLOCK.fullmatch(text):
        terms = tuple(_number_form(part) for part in match[1].split(":"))
        return Form("ratio", match[1] + (match[2] or "").lower(), terms, "time" if match[2] else "clock")
    if BASE_DIGITS.fullmatch(_tight(text)):
        return Form("literal", re.sub(r"[{}()]", "", _tight(text)))
    pieces, marks = split_top(text, LIST_MARK)
    if len(pieces) > 1 and not is_prose(text) and len(pieces) <= MAX_PARTS:
        return _list([piece for piece in pieces if _trim(piece)], marks, text)
    pieces, _ = split_top(text, UNION_MARK)
    if len(pieces) > 1:
        return Form("union", _tight(text), tuple(_read(piece) for piece in pieces))
    pieces, marks = split_top(text, RELATION_MARK)
    if len(pieces) > 1 and not is_prose(text):
        return _relation([piece.strip() for piece in pieces], marks, text)
    if text.startswith(r"\{") and text.endswith(r"\}"):
        return _set(text[2:-2], text)
    text = re.sub(r"^\\langle(.*)\\rangle$", r"(\1)", text)
    text = re.sub(r"^[A-Z](?=\([^()]*[,;][^()]*\)$)", "", text)  # a named point
    if _encloses(text, "([", ")]"):
        elements = [part for part in split_top(text[1:-1], re.compile(r"[,;]"))[0] if part.strip()]
        if 1 < len(elements) <= MAX_PARTS:
            return Form("tuple", _tight(text), tuple(_read(part, True) for part in elements), text[0] + text[-1])
        if text[0] == "(":
            return _read(text[1:-1], inside)
    if INFINITY.fullmatch(_tight(text)):
        return Form("infinity", _tight(text).removeprefix("+"))
    pieces, _ = split_top(text, RATIO_MARK)
    if len(pieces) > 1 and all(piece.strip() and not is_prose(piece) for piece in pieces):
        return Form("ratio", _tight(text), tuple(_read(piece) for piece in pieces))
    if number := _quantity_form(text):
        return number
    if text.count("\\pm") == 1 and (match := re.fullmatch(r"(.*?)\\pm(?![A-Za-z])(.*)", text)):
        ends = [f"{match[1]}{sign}{match[2]}".strip() for sign in "+-"]
        return Form("list", _tight(text), tuple(_read(end) for end in ends))
    if is_prose(text):
        return Form("words", _folded(text))
    return _expression(text)


def is_prose(text: str) -> bool:
    """Whether there are words in `text`: one of four letters, or three of two, which are no functions, units or points."""
    runs = WORD_RUN.findall(re.sub(r"\\(?:begin|end)\s*\{[a-z]*\}|_\{[^{}]*\}", " ", text))
    words = [run for run in runs if not run.isupper() and run.casefold() not in NO_WORDS]
    return len(words) > 2 or any(len(word) > 3 for word in words)


def _folded(text: str) -> str:
    text = re.sub(r"[^\w\s°%<>=+*/^-]", " ", text.casefold())
    return re.sub(r"^(?:the|an?)\s", "", " ".join(text.split()))


def _list(pieces: list[str], marks: list[str], text: str) -> Form:
    """A list; `a = 1, 2` names all of it, and inequalities joined by "or" and "and" are unions and intervals."""
    if ";" in marks and set(marks) != {";"}:
        pieces = split_top(text, re.compile(";"))[0]
    parts = tuple(_read(piece) for piece in pieces)
    if len(parts) < 2:
        return parts[0] if parts else Form("words", text)
    if all(part.kind == "relation" and part.marks == "in" for part in parts):
        if any("or" in mark for mark in marks):
            return _named(parts[0].parts[0], Form("union", _tight(text), tuple(part.parts[1] for part in parts)))
        if len(parts) == 2 and (interval := _overlap(parts[0].parts[1], parts[1].parts[1])):
            return _named(parts[0].parts[0], interval)
    first, rest = parts[0], parts[1:]
    if all(part.kind == "relation" and part.marks == "=" and part.parts[0] == first.parts[0] for part in parts):
        values = Form("list", _tight(text), tuple(part.parts[1] for part in parts))
        return replace(first, text=_tight(text), parts=(first.parts[0], values))
    if first.kind == "relation" and first.marks == "=" and not any(part.kind in ("relation", "words") for part in rest):
        return replace(first, text=_tight(text), parts=(first.parts[0], Form("list", _tight(text), (first.parts[1], *rest))))
    return Form("list", _tight(text), parts)


def _named(name: Form, value: Form) -> Form:
    return Form("relation", f"{name.text}\\in{value.text}", (name, value), "in")


def _overlap(a: Form, b: Form) -> Form | None:
    """(low, oo) and (-oo, high) together: the interval (low, high)."""
    if a.kind != "tuple" or b.kind != "tuple" or len(a.parts) != 2 or len(b.parts) != 2:
        return None
    if b.parts[1].kind == "infinity":
        a, b = b, a
    if a.parts[1].kind != "infinity" or b.parts[0].kind != "infinity":
        return None
    return _interval(a.parts[0], b.parts[1], a.marks[0] + b.marks[1])


def _interval(low: Form, high: Form, marks: str) -> Form:
    return Form("tuple", f"{marks[0]}{low.text},{high.text}{marks[1]}", (low, high), marks)


def _set(inner: str, text: str) -> Form:
    """A set in braces: its elements, or the condition of {x | condition}."""
    pieces, _ = split_top(inner, re.compile(r"\||:(?!=)"))
    if len(pieces) == 2 and re.fullmatch(r"\s*(?:\\?[A-Za-z]+|\([A-Za-z, ]+\))\s*(?:\\in\s*\S+\s*)?", pieces[0]):
        return _read(pieces[1])
    if not inner.strip():
        return Form("expression", "\\emptyset")
    elements = split_top(inner, LIST_MARK)[0]
    parts = tuple(_read(element) for element in elements if element.strip())
    return Form("list", _tight(text), parts, "{}")


def _relation(pieces: list[str], marks: list[str], text: str) -> Form:
    """Both sides of a relation: an inequality about one name is the name in an interval, a chain its first and last.

    A chain of nothing but numbers and sums that are not equal is its text; what is more than sums is kept, result last.
    """
    marks = [mark.strip() for mark in marks]
    if "\\approx" in marks:
        cut = marks.index("\\approx")
        if cut == 0 and NAME.fullmatch(pieces[0]):
            marks = ["=", *marks[1:]]
            cut = marks.index("\\approx") if "\\approx" in marks else len(marks)
        pieces, marks = pieces[: cut + 1], marks[:cut]
        if not marks:
            return _read(pieces[0])
    if set(marks) == {"="}:
        if not pieces[0] or not pieces[-1]:
            return Form("expression", _tight(text))
        if not LETTERS.search(ARITHMETIC.sub("", "".join(pieces))):  # arithmetic and its result
            values = [value for piece in pieces if (value := value_of(piece.strip("= "))) is not None]
            if not all(comes_out(value, values[-1]) for value in values):
                return Form("literal", _tight(text), marks=FALSE_SUM)
            is_told = len(values) == len(pieces)  # else algebra has to say whether it is true
            return _read(pieces[-1]) if is_told else Form("sum", _tight(text), tuple(_read(piece) for piece in pieces))
        if len(pieces) == 2 and NAME.fullmatch(pieces[1]) and not NAME.fullmatch(pieces[0]):
            pieces.reverse()  # 3 = x
        name = next((piece for piece in pieces[:-1] if NAME.fullmatch(piece)), pieces[0])
        return Form("relation", _tight(text), (Form("expression", _tight(name)), _read(pieces[-1])), "=")
    if marks == ["\\in"]:
        return Form("relation", _tight(text), (_read(pieces[0]), _read(pieces[1])), "in")
    if set(marks) <= {"<", ">", "\\le", "\\ge"} and (found := _inequality(pieces, marks)):
        return found
    if marks == ["\\ne"]:
        left, right = _read(pieces[0]), _read(pieces[1])
        if NAME.fullmatch(pieces[0]) and right.kind in ("number", "expression"):
            low, high = Form("infinity", "-\\infty"), Form("infinity", "\\infty")
            return _named(left, Form("union", _tight(text), (_interval(low, right, "()"), _interval(right, high, "()"))))
        return Form("relation", _tight(text), (left, right), "\\ne")
    return Form("expression", _tight(text))


def _inequality(pieces: list[str], marks: list[str]) -> Form | None:
    """`x < 3`, `1 <= x < 3` and `|x| < 3` as a name in an interval, or in two; None for any other."""
    low: Form | None
    high: Form | None
    if len(pieces) == 2:
        if not NAME.fullmatch(pieces[0].removeprefix("-")) and NAME.fullmatch(pieces[1].removeprefix("-")):
            pieces, marks = pieces[::-1], [FLIPPED[marks[0]]]
        name, bound = pieces[0], _read(pieces[1])
        if name.startswith("-"):
            name, bound, marks = name[1:].strip(), _negative(bound), [FLIPPED[marks[0]]]
        ahead = marks[0] in ("<", "\\le")
        low, high = (None, bound) if ahead else (bound, None)
        ends = "(" + ")]"[marks[0] != "<"] if ahead else "(["[marks[0] != ">"] + ")"
    elif len(pieces) == 3:
        if all(mark in (">", "\\ge") for mark in marks):
            pieces, marks = pieces[::-1], [FLIPPED[mark] for mark in reversed(marks)]
        low, name, high = _read(pieces[0]), pieces[1], _read(pieces[2])
        ends = "(["[marks[0] != "<"] + ")]"[marks[1] != "<"]
    else:
        return None
    if not NAME.fullmatch(name) or (len(pieces) == 3 and not set(marks) <= {"<", "\\le"}):
        return None
    above, below = high or Form("infinity", "\\infty"), low or Form("infinity", "-\\infty")
    if not (name.startswith("|") and name.endswith("|")):
        return _named(_read(name), _interval(below, above, ends))
    inner = _read(name.strip("| "))
    if low is None:
        return _named(inner, _interval(_negative(above), above, {")": "()", "]": "[]"}[ends[1]]))
    mirrored = {"(": ")", "[": "]", ")": "(", "]": "["}
    pair = (_interval(_negative(above), _negative(below), mirrored[ends[1]] + mirrored[ends[0]]), _interval(below, above, ends))
    return _named(inner, Form("union", " ".join(part.text for part in pair), pair))


def _negative(form: Form) -> Form:
    if form.kind == "infinity":
        return Form("infinity", "-\\infty")
    if form.number is not None:
        return replace(form, text=f"-{form.text}", number=replace(form.number, value=-form.number.value))
    return Form("expression", f"-({form.text})")


def _matrix(text: str, inner: str) -> Form:
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", inner) if row.strip() and row.strip() != "\\hline"]
    parts = tuple(Form("tuple", _tight(row), tuple(_read(cell) for cell in row.split("&")), "()") for row in rows)
    return Form("matrix", _tight(text), parts)
