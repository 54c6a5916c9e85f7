"""One notation for what LaTeX, Unicode and keyboards write in many ways, so that graders read only one."""

import re
import unicodedata

CHARACTERS = {
    **dict.fromkeys("−–—‐‑﹣－", "-"), "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "÷": "/", "⁄": "/",
    "≤": r"\le ", "⩽": r"\le ", "≥": r"\ge ", "⩾": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∞": r"\infty ", "π": r"\pi ",
    "θ": r"\theta ", "α": r"\alpha ", "β": r"\beta ", "λ": r"\lambda ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "±": r"\pm ", "º": "°", "˚": "°", "√": r"\sqrt ", "ℝ": r"\mathbb{R}", "ℤ": r"\mathbb{Z}",
    "½": " 1/2", "⅓": " 1/3", "⅔": " 2/3", "¼": " 1/4", "¾": " 3/4", "⅕": " 1/5", "⅛": " 1/8", "²": "^2", "³": "^3",
    "⁴": "^4", "⁻¹": "^{-1}", "′": "'", "’": "'", "‘": "'", "“": '"', "”": '"', "，": ", ", "、": ", ", "；": "; ",
    "！": ".", "。": ".", "（": "(", "）": ")", "：": ":", "\u200b": "", "\ufeff": "", "\u2009": " ", "\u202f": " ",
    "\xa0": " ",
}  # fmt: skip
CHARACTER = re.compile("|".join(map(re.escape, sorted(CHARACTERS, key=len, reverse=True))))
NAMES = {  # what stands for which commands of LaTeX
    "": "left right bigl bigr Bigl Bigr big Big bigg Bigg displaystyle textstyle limits nolimits",
    " ": "quad qquad space hspace thinspace",
    r"\frac": "dfrac tfrac cfrac",
    r"\le ": "leq leqslant", r"\ge ": "geq geqslant", r"\ne ": "neq", "<": "lt", ">": "gt", r"\approx ": "simeq",
    "|": "mid vert lvert rvert", "[": "lbrack", "]": "rbrack", r"\{": "lbrace", r"\}": "rbrace", ":": "colon",
    "°": "degree", r"\circ ": "circ textcirc", r"\emptyset ": "varnothing", r"\infty ": "infin",
    " and ": "land wedge", " or ": "lor vee", "£": "pounds", "€": "euro", "＄": "dollar", "%": "percent percnt",
}  # fmt: skip
COMMANDS = {name: meaning for meaning, names in NAMES.items() for name in names.split()}
COMMAND = re.compile(r"\\(" + "|".join(sorted(COMMANDS, key=len, reverse=True)) + r")(?![A-Za-z])\s?")
STYLED = re.compile(
    r"\\(text|textbf|textit|textrm|textsf|textnormal|mbox|hbox|mathrm|mathbf|mathit|mathsf|operatorname)\s*\{([^{}]*)\}"
)
SPACES = re.compile(r"(?<!\\)\\[,;: ]|~")
SQRT = re.compile(r"\\sqrt\s*(?:([0-9]+|[A-Za-z])|\(([^()]*)\))")
FRAC = re.compile(r"\\frac\s*([0-9A-Za-z]|\{[^{}]*\}|\\[A-Za-z]+)\s*([0-9A-Za-z]|\{[^{}]*\}|\\[A-Za-z]+)")
ENVIRONMENT = re.compile(
    r"\\begin\{(?:align|aligned|equation|gather|split)\*?\}|\\end\{(?:align|aligned|equation|gather|split)\*?\}"
)
FUNCTIONS = frozenset(
    re.findall(r"\w+", "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln lg exp sqrt max min")
)
BARE_FUNCTION = re.compile(r"(?<![\\A-Za-z])(sin|cos|tan|cot|sec|csc|arcsin|arccos|arctan|log|ln|exp)(?=[\s(\\0-9^{]|[a-z]\b)")
BARE_GREEK = re.compile(r"(?<![\\A-Za-z])(pi|theta|alpha|beta|gamma|lambda|sigma|omega)(?![A-Za-z])")
# `5!=120`: a factorial and an equals sign, where no letter stands in the member of the chain before it, and a digit behind.
FACTORIAL_EQUALS = re.compile(
    r"((?:^|[=<>,;])(?:\\(?:frac|times|cdot|div)(?![A-Za-z])|(?![^\W\d_])[^\\=<>,;])*[0-9)]!)(?==\s*[＄$]?[0-9])"
)
BARE_SQRT = re.compile(r"(?<![\\A-Za-z])sqrt\s*(?=[({0-9])")


def plain(text: str) -> str:
    """`text` in one notation: LaTeX without delimiters, styles, sizes and spacing, ASCII where there is an equivalent.

    Example: plain(r"\\(\\dfrac12\\,\\text{cm}\\)") == r"\\frac{1}{2} cm"
    """
    text = unicodedata.normalize("NFC", text)
    text = CHARACTER.sub(lambda match: CHARACTERS[match[0]], text)
    text = "".join(unicodedata.normalize("NFKC", c) if "\uff01" <= c <= "\uff5e" and c != "＄" else c for c in text)
    if "\\\\" in text and "\\begin" not in text:
        text = re.sub(r"\\\\(?=[A-Za-z{}(),;!%$])", r"\\", text)  # escaped twice, as JSON in JSON is
    text = text.replace("\x0crac", r"\frac")  # a backslash and an f that were read as a form feed
    text = (
        text.replace(r"\$", "＄")
        .replace(r"\%", "%")
        .replace(r"\#", "#")
        .replace(r"\&", "&")
        .replace("\\_", "_")
        .replace(r"\"", '"')
    )
    if text.count("$") == 1:
        text = re.sub(r"\$(?=\s?-?[.0-9])|(?<=[0-9])\s?\$", "＄", text)
    text = ENVIRONMENT.sub(" ", text)
    text = re.sub(r"(?<=[0-9])\s*(?:\{,\}|,\\!)\s*(?=[0-9]{3})|\\!", lambda m: "," if m[0] != r"\!" else "", text)
    text = SPACES.sub(" ", text)
    text = COMMAND.sub(lambda match: COMMANDS[match[1]], text)
    for _ in range(3):  # styles inside styles
        text, changed = STYLED.subn(_unstyled, text)
        if not changed:
            break
    text = re.sub(r"\\(?:text|mbox|mathrm)\s*\{", " ", text)  # never closed
    text = re.sub(r"\s*\^\s*(?:\{\s*\\circ\s*\}|\\circ\b|\{°\}|°)", "°", text)
    text = re.sub(r"(?<=\.)([0-9]*)\\dot\s*\{?([0-9])\}?(?![0-9\\])", r"\1\\overline{\2}", text)
    text = re.sub(r"<=|=<", r"\\le ", text)
    text = re.sub(r">=", r"\\ge ", text)
    text = FACTORIAL_EQUALS.sub(r"\1 ", text)
    text = re.sub(r"!=|\\not\s*=", r"\\ne ", text)
    text = re.sub(r"(?<=[\w)}])\s*\*\*\s*(?=[\w({-])", "^", text)
    text = re.sub(r"\^\s*(-?[0-9]{2,}|-[0-9a-zA-Z])", r"^{\1}", text)  # on a keyboard, 2^10 is two to the ten
    text = BARE_SQRT.sub(r"\\sqrt ", text)
    text = BARE_FUNCTION.sub(r"\\\1 ", text)
    text = BARE_GREEK.sub(r"\\\1 ", text)
    for _ in range(4):  # inner roots first, then what holds them
        text = SQRT.sub(lambda m: rf"\sqrt{{{m[1] or m[2]}}}", text)
        text, changed = FRAC.subn(lambda m: rf"\frac{_braced(m[1])}{_braced(m[2])}", text)
    text = re.sub(r"\\mathbb\s*\{?\s*([A-Z])\s*\}?", r"\\mathbb{\1}", text)
    return " ".join(text.split())


def _unstyled(match: re.Match[str]) -> str:
    """The text of a styled piece, with a space around words, so that a unit does not become a variable."""
    inner = match[2].strip()
    if match[1] == "operatorname" and inner in FUNCTIONS:
        return f"\\{inner} "
    is_variable = match[1] in ("mathbf", "mathit") or (match[1] == "mathrm" and inner in ("e", "i", "d"))
    return inner if is_variable else f" {inner} "


def _braced(piece: str) -> str:
    return piece if piece.startswith("{") else f"{{{piece}}}"


def depth(text: str) -> int | None:
    """How deep brackets of any kind are nested; None where some are not closed, or closed without having been opened.

    A square bracket may be closed by a parenthesis and the other way round, as in a half-open interval.
    """
    deepest = level = 0
    for character in text:
        level += (character in "([{") - (character in ")]}")
        if level < 0:
            return None
        deepest = max(deepest, level)
    return deepest if level == 0 else None


def split_top(text: str, separators: re.Pattern[str]) -> tuple[list[str], list[str]]:
    """The pieces between the matches of `separators` that stand outside of all brackets, and those matches."""
    pieces, marks, level, start, place = [], [], 0, 0, 0
    while place < len(text):
        character = text[place]
        if level == 0 and (match := separators.match(text, place)) and match.end() > place:
            pieces.append(text[start:place])
            marks.append(match[0])
            start = place = match.end()
            continue
        if character == "\\" and text[place + 1 : place + 2] in ("{", "}"):
            level += 1 if text[place + 1] == "{" else -1
            place += 2
            continue
        if character == "\\" and text.startswith(("\\begin", "\\langle"), place):
            level += 1
        elif character == "\\" and text.startswith(("\\end", "\\rangle"), place):
            level -= 1
        level += (character in "([{") - (character in ")]}")
        place += 1
    return [*pieces, text[start:]], marks
