r"""The boxes of mathematical answers, \boxed{...}: where they stand and what is in them."""

import re

MAX_BOXES = 16  # that are looked at, from the last
BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")


def find_boxes(text: str) -> list[tuple[int, int, str]]:
    """Start, end and content of the boxes of a text.

    A box inside a box is part of its content; one that is never closed ends with its line.
    """
    boxes: list[tuple[int, int, str]] = []
    for match in list(BOX.finditer(text))[-MAX_BOXES:]:
        if boxes and match.start() < boxes[-1][1]:
            continue
        end = closing(text, match.end())
        if end is None:
            line_end = text.find("\n", match.end())
            end = len(text) if line_end < 0 else line_end
        boxes.append((match.start(), end, text[match.end() : end]))
    return boxes


def last_boxed(text: str) -> str | None:
    r"""What stands in the last \boxed{...} that is closed; of boxes in one another in the innermost."""
    for match in reversed(list(re.finditer(r"\\boxed\s*\{", text))):
        end = closing(text, match.end())
        if end is not None:
            return text[match.end() : end].strip()
    return None


def closing(text: str, start: int) -> int | None:
    """Where the brace is closed whose content begins at `start`."""
    level = 1
    for place in range(start, len(text)):
        level += {"{": 1, "}": -1}.get(text[place], 0)
        if level == 0:
            return place
    return None
