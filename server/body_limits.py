"""What the body of a request may be, in bytes, in values and in time."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.handlers import error_response, request_id_of

# 10,000 boxes of six fields have 70,000. Each value becomes an object in memory, and a wrong one an
# error of a kilobyte, so bytes alone would bound neither.
MAX_JSON_COMMAS = 100_000
# A body that stands still, or comes slower than this on average, holds a connection for nothing.
IDLE_SECONDS = 60.0
MIN_BYTES_PER_SECOND = 1000


class BodyLimitMiddleware:
    """Refuses bodies that are too large, by their declared length at once, else on the way; JSON
    of too many values; and bodies that come too slowly.
    """

    def __init__(
        self,
        app: ASGIApp,
        default_bytes: int,
        bytes_by_path: Mapping[str, int],
        idle_seconds: float = IDLE_SECONDS,
    ) -> None:
        """Wraps an application.

        Args:
            app: the application.
            default_bytes: the most that a body may have.
            bytes_by_path: other limits, for paths that take uploads.
            idle_seconds: how long a body may stand still.
        """
        self.app = app
        self.default_bytes = default_bytes
        self.bytes_by_path = bytes_by_path
        self.idle_seconds = idle_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        # Only creating uploads, never the many small requests below the same path.
        limit = self.default_bytes
        if scope["method"] == "POST":
            limit = self.bytes_by_path.get(scope["path"], limit)
        sentence = f"the body is larger than the {limit:,} bytes that are allowed here"
        headers = Headers(scope=scope)
        declared = headers.get("content-length", "")
        if declared.isascii() and declared.isdigit() and int(declared[:20]) > limit:
            answer = error_response(413, sentence, "too_large", request_id_of(scope))
            await answer(scope, receive, send)
            return
        # Whatever is no form is read as JSON, or not at all.
        is_form = headers.get("content-type", "").lower().startswith("multipart/")
        commas = received = 0
        begun = asyncio.get_running_loop().time()
        more = True

        async def receive_limited() -> Message:
            nonlocal commas, received, more
            if not more:  # what comes now is the client's farewell, for which any time is right
                return await receive()
            message = await self._in_time(receive, begun, received)
            more = message.get("more_body", False)
            body = message.get("body", b"")
            received += len(body)
            if received > limit:
                # Of this class because FastAPI lets only it pass while it reads a body.
                raise HTTPException(413, sentence)
            if not is_form:
                commas += body.count(b",")
                if commas > MAX_JSON_COMMAS:
                    raise HTTPException(
                        413, f"the body holds more than the {MAX_JSON_COMMAS:,} values allowed"
                    )
            return message

        await self.app(scope, receive_limited, send)

    async def _in_time(self, receive: Receive, begun: float, received: int) -> Message:
        """The next part of a body.

        Raises:
            HTTPException: it does not come.
        """
        now = asyncio.get_running_loop().time()
        left = begun + self.idle_seconds + received / MIN_BYTES_PER_SECOND - now
        try:
            return await asyncio.wait_for(receive(), max(0.0, min(left, self.idle_seconds)))
        except TimeoutError:
            raise HTTPException(
                400,
                f"the body stood still for {self.idle_seconds:g} s, or comes with less than "
                f"{MIN_BYTES_PER_SECOND} bytes a second; send it anew over a better line",
            ) from None
