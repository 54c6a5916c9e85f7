"""Completions from any OpenAI-compatible server: text in, text out.

Every answer is kept as it comes, so that nothing is asked, or paid for, twice: a stage that was cut off goes on with the
same texts, whatever the server would say the second time.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from aha.config import ServerConfig
from aha.engine.sampling import Sampling
from aha.remote import Reply, Request, ask
from aha.rewards.kept import Kept
from aha.types import UserError


@dataclass(frozen=True)
class ServerEngine:
    """Asks `server`; without a file, `kept` lasts as long as the process."""

    server: ServerConfig
    kept: Path | None = None

    def generate(
        self,
        requests: Sequence[Request],
        n: int,
        sampling: Sampling,
        problem_ids: Sequence[str] | None = None,
        stop: Sequence[str] = (),
    ) -> list[list[Reply]]:
        """`n` replies to each request, one request to the server for each; those without text have failed.

        Every one has a seed of its own, a function of that of the sampling, the problem's id and the number of the
        sample. top_k and min_p, which OpenAI's interface lacks, are sent where they are set. Raises UserError where more
        than the share `max_failed` of the requests fails.
        """
        ids = problem_ids or [str(i) for i in range(len(requests))]
        settings: dict[str, Any] = {"max_tokens": sampling.max_tokens, "temperature": sampling.temperature}
        if sampling.top_p < 1:
            settings["top_p"] = sampling.top_p
        more = {name: value for name, value in (("top_k", sampling.top_k), ("min_p", sampling.min_p)) if value}
        if more:
            settings["extra_body"] = more
        if stop:
            settings["stop"] = list(stop)
        replies = self._ask(
            [
                (request, {**settings, "seed": _seed(sampling.seed, problem, sample)})
                for request, problem in zip(requests, ids, strict=True)
                for sample in range(n)
            ]
        )
        return [replies[i * n : (i + 1) * n] for i in range(len(requests))]

    def _ask(self, asked: Sequence[tuple[Request, Mapping[str, Any]]]) -> list[Reply]:
        """A reply to each; failures are not kept, so that they are asked for again."""
        kept = Kept.of(str(self.kept) if self.kept else None, f"replies of {self.server.base_url}")
        keys = [self._key(*pair) for pair in asked]
        missing = {key: pair for key, pair in zip(keys, asked, strict=True) if key not in kept.known}
        failed: dict[str, Reply] = {}
        pool = ThreadPoolExecutor(self.server.concurrency)
        try:
            work = {key: partial(ask, self.server, request, **own) for key, (request, own) in missing.items()}
            kept.begin(pool, work, lambda reply: reply.text is not None)
            futures = {kept.begun.pop(key): key for key in missing}
            for future in as_completed(futures):
                reply = future.result()
                if reply.text is not None:
                    continue
                failed[futures[future]] = reply
                if len(failed) > self.server.max_failed * len(asked):
                    raise UserError(
                        f"{self.server.base_url}: {len(failed)} requests failed, of {len(asked)}, the last: {reply.failure}; "
                        "what was answered is kept: run again to ask for the rest, or raise max_failed"
                    )
        finally:
            pool.shutdown(cancel_futures=True)  # those under way end first, and what they bring is kept as well
        return [failed[key] if key in failed else Reply(**kept.known[key]) for key in keys]

    def _key(self, request: Request, settings: Mapping[str, Any]) -> str:
        parts = [self.server.model, self.server.extra_body, request, settings]
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()


def _seed(seed: str, problem: str, sample: int) -> int:
    """31 bits, which every server takes."""
    return int.from_bytes(hashlib.sha256(f"{seed}|{problem}|{sample}".encode()).digest()[:4], "big") >> 1
