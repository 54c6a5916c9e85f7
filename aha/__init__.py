"""aha: how DeepSeek-R1 was trained, from a two-core laptop to a cluster."""

__version__ = "0.1.0"
