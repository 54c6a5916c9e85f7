"""One request to a model behind an OpenAI-compatible server. The client is an extra and is imported where it is used."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from pydantic import BaseModel, Field, ValidationError

from aha.config import ServerConfig
from aha.types import UserError

Request = str | Sequence[Mapping[str, str]]  # a text to continue, or the messages of a chat


@dataclass(frozen=True)
class Reply:
    """What came back, or why nothing did.

    Example: Reply("</think> 5", "stop", prompt_tokens=312, completion_tokens=48)
    """

    text: str | None  # None where no answer came
    finish_reason: str = "stop"  # "stop", or "length" for whatever else cut it off
    thoughts: str = ""  # where the server keeps the reasoning apart
    failure: str = ""
    prompt_tokens: int = 0
    completion_tokens: int = 0  # thoughts included


# What servers say of an answer that its model ended: OpenAI's word, those of Together and of text-generation-inference, and
# nothing. All others, such as content_filter, are of answers that were cut off.
ENDED = {"stop", "eos", "eos_token", "stop_sequence", None}
NOT_READABLE = Reply(None, failure="the reply is no completion in the form of the OpenAI interface")


def ask(server: ServerConfig, request: Request, **settings: Any) -> Reply:
    """Send one request, again up to `max_retries` times where that may help; `settings` are keys of the interface.

    What failed for good is a reply without text. Raises UserError where no request of this kind will be answered: no
    client installed, no such path or model, wrong key.
    """
    client = _client(server.base_url, server.api_key_env, server.timeout, server.max_retries)
    import openai

    is_chat = not isinstance(request, str)
    endpoint = client.chat.completions if is_chat else client.completions
    asked = {"messages": list(request)} if is_chat else {"prompt": request}
    body = {**settings.pop("extra_body", {}), **server.extra_body}
    try:
        raw = endpoint.with_raw_response.create(model=server.model, **asked, **settings, extra_body=body or None)
        return _read(raw.content)
    except (openai.AuthenticationError, openai.PermissionDeniedError, openai.NotFoundError) as error:
        raise UserError(f"{server.base_url}: {error}") from error
    except openai.APIError as error:
        return Reply(None, failure=str(error))
    except ValidationError:
        return NOT_READABLE


@lru_cache(maxsize=8)
def _client(base_url: str, api_key_env: str, timeout: float, max_retries: int) -> Any:
    try:
        from openai import OpenAI
    except ImportError as error:
        raise UserError(
            f"{base_url}: asking a server needs the extra `server`: .venv/bin/pip install -e '.[server]'"
        ) from error
    key = os.environ.get(api_key_env) or "none"  # local servers want none, the client wants some text
    return OpenAI(base_url=base_url, api_key=key, timeout=timeout, max_retries=max_retries)


class _Message(BaseModel):
    content: str | None = None
    reasoning_content: str | None = None  # of DeepSeek and SGLang
    reasoning: str | None = None  # of vLLM and OpenRouter


class _Choice(BaseModel):
    message: _Message | None = None
    text: str | None = None
    finish_reason: str | None = None


class _Usage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Completion(BaseModel):
    """What is used of a reply to either kind of request."""

    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def _read(body: bytes) -> Reply:
    completion = _Completion.model_validate_json(body)
    choice, usage = completion.choices[0], completion.usage or _Usage()
    if choice.message is None and choice.text is None:
        return NOT_READABLE
    message = choice.message or _Message(content=choice.text)
    return Reply(
        message.content or "",
        "stop" if choice.finish_reason in ENDED else "length",
        thoughts=message.reasoning_content or message.reasoning or "",
        prompt_tokens=usage.prompt_tokens,
        completion_tokens=usage.completion_tokens,
    )
