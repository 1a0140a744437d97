"""A cycle's events as they come, over as many connections as it takes."""

import time
from collections.abc import Iterator

import httpx2
from pydantic import ValidationError

from miaod_client._errors import (
    BadGatewayError,
    ConnectionFailedError,
    GatewayTimeoutError,
    UnavailableError,
    UnexpectedResponseError,
)
from miaod_client._transport import Transport
from miaod_client._types import CycleEvent
from miaod_client._waiting import FINAL_STATES, OUTAGE_SECONDS

# Between two tries to come back, at most.
MAX_PAUSE_SECONDS = 5.0

AWAY = (ConnectionFailedError, UnavailableError, BadGatewayError, GatewayTimeoutError)


def follow(transport: Transport, path: str, after: int) -> Iterator[CycleEvent]:
    """Events in order, up to the cycle's end; a broken connection is taken up where it broke.

    Args:
        transport: sends the requests.
        path: of the stream.
        after: number of the last event that is known; 0 for none.

    Raises:
        ApiError: the server refused, as it does when the cycle was deleted meanwhile.
        ConnectionFailedError, ServerError: it could not be reached, or was away for
            `OUTAGE_SECONDS` after it had been.
        UnexpectedResponseError: what came is no event of this API.
    """
    has_ended = False
    was_reached = False
    heard_at = time.monotonic()
    attempt = 0
    while True:
        is_connected = False
        headers = {"Last-Event-ID": str(after)} if after else None
        try:
            with transport.stream(path, headers=headers) as response:
                was_reached = is_connected = True
                if response.status_code == 204:
                    return
                for event in read_events(response):
                    after, attempt = event.seq, 0
                    has_ended = event.kind == "state" and event.state in FINAL_STATES
                    yield event
        except AWAY:
            if is_connected:
                # The line was good until just now, however long nothing happened.
                heard_at = time.monotonic()
            elif not was_reached or time.monotonic() - heard_at > OUTAGE_SECONDS:
                raise
        else:
            heard_at = time.monotonic()
        if has_ended:
            return
        time.sleep(min(transport.retry.seconds_after_error(attempt), MAX_PAUSE_SECONDS))
        attempt += 1


def read_events(response: httpx2.Response) -> Iterator[CycleEvent]:
    """The events of one connection, up to its end."""
    media_type = response.headers.get("content-type", "nothing").partition(";")[0]
    if media_type != "text/event-stream":
        raise UnexpectedResponseError(
            f"{response.url} did not answer with a stream of events, but with {media_type}"
        )
    for sent in httpx2.EventSource(response):
        if not sent.data:
            continue
        try:
            yield CycleEvent.model_validate_json(sent.data)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"]) or "data"
            raise UnexpectedResponseError(
                f"{response.url} sent what is no event of a cycle: {place}: {first['msg']}"
            ) from error
