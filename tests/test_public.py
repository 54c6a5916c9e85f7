"""What of a run anybody may see."""

import pytest

from aha.public import UNTOLD, public, public_text


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("/home/me/models/base", "base"),
        ("~/data/rows.jsonl", "rows.jsonl"),
        ("~bob/rows.jsonl", "rows.jsonl"),
        ("//nas/share/rows.jsonl", "rows.jsonl"),
        ("file:///home/me/rows.jsonl", "rows.jsonl"),
        ("http://10.1.2.3:8000/v1", UNTOLD),
        ("10.1.2.3:8000", UNTOLD),
        ("judge.example:80/v1", UNTOLD),
        ("rows.jsonl", "rows.jsonl"),
        ("runs/mine/base", "runs/mine/base"),
        ("Qwen/Qwen2.5-0.5B", "Qwen/Qwen2.5-0.5B"),
        ("my_grader:even", "my_grader:even"),
        ("/no_think", "/no_think"),
        ("<think>a</think>", "<think>a</think>"),
        ({"api_key": "k", "Authorization": "b", "extra_body": {}, "num_key_value_heads": 2}, {"num_key_value_heads": 2}),
        ([{"url": None, "base_url": "here"}], [{"url": None, "base_url": UNTOLD}]),
        (0.5, 0.5),
    ],
)
def test_values_are_shown_without_paths_addresses_and_keys(value, shown):
    assert public(value) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("http://a.example/v1: timed out", f"{UNTOLD}: timed out"),
        ("no such file: /home/me/rows.jsonl, nor ~/x/y", "no such file: rows.jsonl, nor y"),
        ("3/4 of </think> <answer>", "3/4 of </think> <answer>"),
    ],
)
def test_messages_are_shown_without_paths_and_addresses(text, shown):
    assert public_text(text) == shown
