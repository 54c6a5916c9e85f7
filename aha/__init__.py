"""aha: how DeepSeek-R1 was trained, on a two-core laptop or on a GPU."""

__version__ = "0.1.0"
