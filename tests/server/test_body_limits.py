from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import Message, Receive, Scope, Send

from server.body_limits import MAX_JSON_COMMAS, BodyLimitMiddleware
from server.handlers import error_response
from server.unread_bodies import UnreadBodyMiddleware


async def read_all(scope: Scope, receive: Receive, send: Send) -> None:
    """An application that reads its body, and answers as ours does where it may not."""
    from starlette.exceptions import HTTPException

    try:
        body = await Request(scope, receive).body()
        answer: Any = PlainTextResponse(str(len(body)))
    except HTTPException as error:
        answer = error_response(error.status_code, error.detail, "x", "")
    await answer(scope, receive, send)


def answered(
    parts: AsyncIterator[bytes] | Sequence[bytes], idle_seconds: float = 60, **headers: str
) -> list[Message]:
    app = UnreadBodyMiddleware(BodyLimitMiddleware(read_all, 1_000_000, {}, idle_seconds))
    scope: Scope = {
        "type": "http",
        "method": "PUT",
        "path": "/",
        "headers": [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()],
    }
    sent: list[Message] = []

    async def run() -> None:
        async def listed() -> AsyncIterator[bytes]:
            for part in parts:  # type: ignore[union-attr]
                yield part

        source = listed() if isinstance(parts, Sequence) else parts

        async def receive() -> Message:
            try:
                body = await anext(source)
            except StopAsyncIteration:
                return {"type": "http.request", "body": b"", "more_body": False}
            return {"type": "http.request", "body": body, "more_body": True}

        async def send(message: Message) -> None:
            sent.append(message)

        await app(scope, receive, send)

    asyncio.run(run())
    return sent


def closes(messages: list[Message]) -> bool:
    return (b"connection", b"close") in messages[0]["headers"]


def test_a_body_that_is_read_to_its_end_leaves_the_connection_open() -> None:
    messages = answered([b"abc", b"def"], content_length="6")
    assert messages[0]["status"] == 200
    assert messages[1]["body"] == b"6"
    assert not closes(messages)


@pytest.mark.parametrize("length", ["1000001", "9" * 30])
def test_a_body_refused_by_its_length_closes_the_connection(length: str) -> None:
    messages = answered([], content_length=length)
    assert messages[0]["status"] == 413
    assert closes(messages)


def test_a_body_that_grows_too_large_on_the_way_closes_the_connection() -> None:
    messages = answered([bytes(400_000)] * 5, transfer_encoding="chunked")
    assert messages[0]["status"] == 413
    assert closes(messages)


def test_json_of_too_many_values_is_refused_and_a_form_of_many_commas_is_not() -> None:
    commas = b"," * (MAX_JSON_COMMAS + 1)
    assert answered([commas], content_type="application/json")[0]["status"] == 413
    assert answered([commas])[0]["status"] == 413
    assert answered([commas], content_type="Multipart/form-data; boundary=x")[0]["status"] == 200


def test_a_body_that_stands_still_is_given_up() -> None:
    async def stalling() -> AsyncIterator[bytes]:
        yield b"abc"
        await asyncio.Event().wait()

    messages = answered(stalling(), idle_seconds=0.05, transfer_encoding="chunked")
    assert messages[0]["status"] == 400
    assert b"stood still for 0.05 s" in messages[1]["body"]
    assert closes(messages)


def test_a_body_that_drips_is_given_up() -> None:
    async def dripping() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.02)
            yield b"x"

    messages = answered(dripping(), idle_seconds=0.3, transfer_encoding="chunked")
    assert messages[0]["status"] == 400
    assert b"less than 1000 bytes a second" in messages[1]["body"]
