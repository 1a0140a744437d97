"""Bytes that are no HTTP are refused in the common form too, before there is any request."""

from __future__ import annotations

import json
from uuid import uuid4

import h11
import structlog
from uvicorn.protocols.http.h11_impl import H11Protocol

log = structlog.get_logger(__name__)


class CommonFormProtocol(H11Protocol):
    """uvicorn's protocol for HTTP/1.1, with a 400 that looks like every other."""

    def send_400_response(self, msg: str) -> None:
        """Refuse what came and close the connection."""
        request_id = uuid4().hex
        log.info("no HTTP came", action="bad_http", request_id=request_id)
        detail = "this is no HTTP/1.1 request that can be read: check its first line and headers"
        body = {"detail": detail, "code": "bad_request", "request_id": request_id}
        content = json.dumps(body).encode()
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(content))),
            ("X-Content-Type-Options", "nosniff"),
            ("X-Request-ID", request_id),
            ("Connection", "close"),
        ]
        # With an answer on its way already, to the request whose body broke, there is no second.
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            for event in (
                h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
                h11.Data(data=content),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
