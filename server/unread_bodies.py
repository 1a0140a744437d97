"""Connections whose body was not read to its end: cut, rather than read for nothing.

A request may be answered before its body has come: a stranger's, or one that is too large. To use
the connection again the server would have to read the rest, 300 MB perhaps, and throw it away.
"""

from __future__ import annotations

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send


class UnreadBodyMiddleware:
    """Closes the connection after an answer that came before the end of the request."""

    def __init__(self, app: ASGIApp) -> None:
        """Wraps an application; stands outside of all that may refuse a request."""
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handles one connection."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        unread = "transfer-encoding" in headers or headers.get("content-length", "0") != "0"

        async def receive_watched() -> Message:
            nonlocal unread
            message = await receive()
            if not message.get("more_body", False):
                unread = False
            return message

        async def send_closing(message: Message) -> None:
            if message["type"] == "http.response.start" and unread:
                MutableHeaders(scope=message)["Connection"] = "close"
            await send(message)

        await self.app(scope, receive_watched, send_closing)
