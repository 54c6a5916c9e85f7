"""When two answers are the same. Everything that needs algebra is asked of the caller."""

import re
from collections.abc import Callable
from dataclasses import replace

from aha.rewards.forms import NAME, Form
from aha.rewards.numbers import same_quantity

Ask = Callable[[str, str], bool]  # whether two expressions, in plain notation, are the same
LETTERS_ONLY = re.compile(r"[^\W\d_]{2,}")
NO_VOWELS = re.compile(r"[b-df-hj-np-tv-xz]{3}|[xyz]{3}")
ROMAN = set("ivxlcdm")
PLAIN_KINDS = {"number", "words", "literal", "letter", "choice", "infinity"}  # which differ where their kinds do


def same_answer(gold: tuple[Form, ...], answer: tuple[Form, ...], ask: Ask) -> bool:
    """Whether any way to read one is any way to read the other. The order of the two does not matter.

    Two sentences are compared as sentences, not by the numbers in them.
    """
    if gold[0].kind == answer[0].kind == "words":
        gold, answer = gold[:1], answer[:1]
    pairs = [(a, b) for a in gold for b in answer]
    return any(_same_text(a, b) for a, b in pairs) or any(same(a, b, ask) for a, b in pairs)


def _same_text(a: Form, b: Form) -> bool:
    """Whether two forms are written alike. Numbers are never compared as texts."""
    if a.number is not None and b.number is not None:
        return False
    return a.text == b.text and a.kind == b.kind and a.marks == b.marks != "with text"


def same(a: Form, b: Form, ask: Ask) -> bool:
    """Whether two forms are the same, element by element."""
    if _same_text(a, b):
        return True
    a, b = _unwrapped(a, b), _unwrapped(b, a)
    if _same_text(a, b):
        return True
    if "literal" in (a.kind, b.kind):
        return False
    for chain, other in ((a, b), (b, a)):
        if chain.kind == "sum":
            *pieces, result = chain.parts
            return same(result, other, ask) and all(same(piece, result, ask) for piece in pieces)
    if a.number is not None and b.number is not None:
        return same_quantity(a.number, b.number)
    kinds = {a.kind, b.kind}
    if kinds == {"relation"}:
        return _same_relation(a, b, ask)
    if kinds == {"list", "relation"}:
        listed, relation = (a, b) if a.kind == "list" else (b, a)
        return _same_list(listed, _by_name(relation), ask)
    if a.kind == b.kind == "list":
        return _same_list(a, b, ask)
    if a.kind == b.kind == "union":
        return _matched(a.parts, b.parts, ask)
    if a.kind == b.kind == "tuple":
        is_pair = len(a.parts) == 2
        return (a.marks == b.marks or not is_pair) and _in_order(a.parts, b.parts, ask)
    if kinds == {"list", "tuple"}:
        listed, bracketed = (a, b) if a.kind == "list" else (b, a)
        return not listed.marks and bracketed.marks == "()" and _in_order(listed.parts, bracketed.parts, ask)
    if a.kind == b.kind == "matrix":
        return _in_order(a.parts, b.parts, ask)
    if kinds == {"matrix", "tuple"}:
        matrix, vector = (a, b) if a.kind == "matrix" else (b, a)
        if all(part.kind == "tuple" and part.marks == "[]" for part in (vector, *vector.parts)):  # [[1, 2], [3, 4]]
            return _in_order(matrix.parts, [replace(row, marks="()") for row in vector.parts], ask)
        cells = [cell for row in matrix.parts for cell in row.parts]
        return min(len(matrix.parts), *(len(row.parts) for row in matrix.parts)) == 1 and _in_order(cells, vector.parts, ask)
    if a.kind == b.kind == "ratio":
        return _same_ratio(a, b, ask)
    if a.kind == b.kind == "choice" and a.marks and b.marks:
        return False  # both say what stands there, which decides
    if a.kind == b.kind == "letter" or kinds == {"choice"} or kinds == {"choice", "letter"}:
        return a.text == b.text
    if kinds <= PLAIN_KINDS:
        return a.text.casefold() == b.text.casefold() and "number" not in kinds
    if "ratio" in kinds:
        ratio, other = (a, b) if a.kind == "ratio" else (b, a)
        is_quotient = len(ratio.parts) == 2 and ratio.marks != "time" and other.kind in ("number", "expression")
        return is_quotient and ask(f"\\frac{{{ratio.parts[0].text}}}{{{ratio.parts[1].text}}}", other.text)
    if "words" in kinds or "choice" in kinds:
        return _letters(a.text) == _letters(b.text)
    if kinds == {"list", "expression"}:
        listed, text = (a, b) if a.kind == "list" else (b, a)
        if all(part.kind == "letter" for part in listed.parts):  # several choices
            return "".join(part.text for part in listed.parts) == text.text
    if _are_words(left := a.text.replace(" ", ""), right := b.text.replace(" ", "")):
        return left.casefold() == right.casefold()
    if kinds <= {"number", "expression", "letter"} or ("expression" in kinds and kinds & {"list", "tuple", "union", "matrix"}):
        return ask(a.text, b.text)
    return False


def _are_words(a: str, b: str) -> bool:
    """Whether two texts are nothing but letters, and name something rather than multiply."""
    return all(map(LETTERS_ONLY.fullmatch, (a, b))) and not (_are_factors(a) and _are_factors(b))


def _are_factors(letters: str) -> bool:
    """Whether letters are variables that are multiplied: two small ones, or three different ones that make no word.

    That is: without a vowel, which y is but in xyz, and not all of them Roman numerals.
    """
    if len(letters) == 2:
        return letters.islower()
    return bool(NO_VOWELS.fullmatch(letters)) and len(set(letters)) == 3 and not set(letters) <= ROMAN


def _letters(text: str) -> str:
    return re.sub(r"\W", "", text).casefold()


def _unwrapped(form: Form, other: Form) -> Form:
    """Without the name of an assignment, of a membership, or braces around one element, where the other has none."""
    value = other.parts[1] if other.kind == "relation" and len(other.parts) == 2 else other
    if value.kind not in ("tuple", "matrix") or len(form.parts) == 1:  # 2, 2 may be the point (2, 2)
        form = _only_element(form)
    if form.kind == "relation" and form.marks in ("=", "in") and other.kind != "relation":
        if other.kind == "list" and any(part.kind == "relation" for part in other.parts):
            return form
        if form.marks == "in" or NAME.fullmatch(form.parts[0].text):
            return _only_element(form.parts[1])
    return form


def _only_element(form: Form) -> Form:
    """The one element of a list that has no other, else the form itself."""
    return form.parts[0] if form.kind == "list" and len(_distinct(form.parts)) == 1 else form


def _same_relation(a: Form, b: Form, ask: Ask) -> bool:
    if "in" in (a.marks, b.marks):
        return _same_name(a.parts[0], b.parts[0]) and same(a.parts[1], b.parts[1], ask)
    is_assignment = [NAME.fullmatch(form.parts[0].text) is not None for form in (a, b)]
    if a.marks == b.marks == "=" and all(is_assignment) and _same_name(a.parts[0], b.parts[0]):
        return same(a.parts[1], b.parts[1], ask)
    if all(is_assignment) and not (_occurs(a.parts[0], b.parts[1]) or _occurs(b.parts[0], a.parts[1])):
        return False
    if any(form.parts[1].kind in ("list", "tuple", "union", "matrix") for form in (a, b)):
        return False
    return a.marks == b.marks and ask(a.text, b.text)


def _by_name(relation: Form) -> Form:
    """(x, y) = (1, 2) as the list x = 1, y = 2; empty where it is anything else."""
    names, values = relation.parts[0].text.strip("()").split(","), relation.parts[1].parts
    if relation.marks != "=" or not relation.parts[0].text.startswith("(") or len(names) != len(values):
        return Form("list", "")
    pairs = [(Form("expression", name), value) for name, value in zip(names, values, strict=True)]
    return Form("list", "", tuple(Form("relation", f"{n.text}={v.text}", (n, v), "=") for n, v in pairs))


def _occurs(name: Form, value: Form) -> bool:
    return _letters(name.text) in _letters(value.text)


def _same_name(a: Form, b: Form) -> bool:
    """Whether two names are the same, whatever the argument of a function is called."""
    left, right = (re.sub(r"\([A-Za-z]\)$|[\s{}\\]", "", form.text) for form in (a, b))
    return left == right


def _same_list(a: Form, b: Form, ask: Ask) -> bool:
    return _matched(_distinct(a.parts), _distinct(b.parts), ask)


def _distinct(parts: tuple[Form, ...]) -> tuple[Form, ...]:
    return tuple({part.text: part for part in parts}.values())


def _in_order(ours: tuple[Form, ...] | list[Form], theirs: tuple[Form, ...] | list[Form], ask: Ask) -> bool:
    return len(ours) == len(theirs) and all(same(a, b, ask) for a, b in zip(ours, theirs, strict=True))


def _matched(ours: tuple[Form, ...], theirs: tuple[Form, ...], ask: Ask) -> bool:
    """Whether every element of one has its own equal in the other, in any order."""
    if len(ours) != len(theirs):
        return False
    left = list(theirs)
    for a in ours:
        partner = next((b for b in left if _same_text(a, b)), None) or next((b for b in left if same(a, b, ask)), None)
        if partner is None:
            return False
        left.remove(partner)
    return True


def _same_ratio(a: Form, b: Form, ask: Ask) -> bool:
    """Terms in proportion; times of the day only where they are written alike."""
    if (a.marks and b.marks) or "time" in (a.marks, b.marks):
        return False
    if len(a.parts) != len(b.parts):
        return False
    first, second = a.parts, b.parts
    numbers = [part.number for part in (*first, *second)]
    if all(number is not None and number.value for number in numbers):
        values = [number.value for number in numbers if number is not None]
        n = len(first)
        return all(values[i] * values[n] == values[n + i] * values[0] for i in range(n))
    quotients = [(f"\\frac{{{x.text}}}{{{parts[0].text}}}") for parts in (first, second) for x in parts[1:]]
    half = len(quotients) // 2
    return all(ask(x, y) for x, y in zip(quotients[:half], quotients[half:], strict=True))
