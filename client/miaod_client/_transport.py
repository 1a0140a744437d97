"""Requests over HTTP: the key, retries, errors, and answers as typed objects.

One loop sends everything. What may be sent twice decides what is retried: reading, replacing and
deleting always; a POST if it carries an `Idempotency-Key`, the same one each time, or is harmless
to repeat; any other only where nothing can have happened yet (no connection, 429, 503).
"""

import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, BinaryIO, TypeVar

import httpx2
from pydantic import BaseModel, ValidationError

from miaod_client._errors import (
    ConnectionFailedError,
    IncompleteDownloadError,
    MiaodError,
    ResponseTimeoutError,
    UnexpectedResponseError,
    error_from_response,
)
from miaod_client._retries import (
    NOT_DONE_STATUSES,
    NOT_SENT_ERRORS,
    RETRIED_STATUSES,
    RetryPolicy,
)

ModelT = TypeVar("ModelT", bound=BaseModel)
Params = Mapping[str, str | int | float | bool | None]
# (field, (file name, open file, media type)), as multipart wants them.
FileParts = Sequence[tuple[str, tuple[str, BinaryIO, str]]]

# PATCH belongs here because every PATCH of this API sets fields to given values.
REPEATABLE_METHODS = frozenset({"GET", "PUT", "PATCH", "DELETE"})


def user_agent() -> str:
    """How this package introduces itself to the server."""
    try:
        version = metadata.version("miaod-client")
    except metadata.PackageNotFoundError:  # run from a checkout that is not installed
        version = "0"
    return f"miaod-client/{version}"


class Transport:
    """Sends requests for the resources of a `Client`.

    Args:
        http: the HTTP client to send with.
        base_url: root of the server, without a trailing slash.
        api_key: sent as `Authorization: Bearer`; `None` sends nothing.
        retry: when to send again.
    """

    def __init__(
        self, *, http: httpx2.Client, base_url: str, api_key: str | None, retry: RetryPolicy
    ) -> None:
        self._http = http
        self.base_url = base_url
        self.retry = retry
        self._headers = {"User-Agent": user_agent(), "Accept": "application/json, */*"}
        if api_key is not None:
            self._headers["Authorization"] = f"Bearer {api_key}"

    def get(self, model: type[ModelT], path: str, *, params: Params | None = None) -> ModelT:
        """GET a JSON document as `model`."""
        return parse(model, self.request("GET", path, params=params))

    def post(
        self,
        model: type[ModelT],
        path: str,
        *,
        json: Any = None,
        keyed: bool = False,
        repeatable: bool = False,
    ) -> ModelT:
        """POST a JSON body; what must not happen twice is `keyed`."""
        return parse(
            model, self.request("POST", path, json=json, keyed=keyed, repeatable=repeatable)
        )

    def request(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: FileParts | None = None,
        keyed: bool = False,
        repeatable: bool = False,
        expected: frozenset[int] = frozenset(),
    ) -> httpx2.Response:
        """Send a request, again where that is safe, and return the answer with its body read.

        Args:
            method: HTTP method.
            path: begins with a slash, below the server's root.
            params: query; those that are `None` are left out.
            json: body, or
            form: fields of a multipart body, with
            files: its files, read from disk while they are sent.
            keyed: send an `Idempotency-Key`, by which the server knows a repetition and answers it
                as it did the first time; so it may be sent twice.
            repeatable: a POST that may safely be sent twice as it is.
            expected: statuses from 400 up that are an answer here and not an error.

        Raises:
            ApiError: the server refused.
            ConnectionFailedError: no answer, after all retries.
        """
        return self._send(
            method,
            path,
            params=params,
            json=json,
            form=form,
            files=files,
            keyed=keyed,
            repeatable=repeatable,
            expected=expected,
        )

    @contextmanager
    def stream(
        self,
        path: str,
        *,
        params: Params | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[httpx2.Response]:
        """GET a body to be read piece by piece within the block.

        Raises:
            ApiError: the server refused.
            ConnectionFailedError: no answer after all retries.
            IncompleteDownloadError: the line broke within the block.
        """
        response = self._send("GET", path, params=params, headers=headers, streamed=True)
        try:
            yield response
        except httpx2.RequestError as error:
            reason = str(error) or type(error).__name__
            raise IncompleteDownloadError(f"{response.url} broke off: {reason}") from error
        finally:
            response.close()

    def _send(
        self,
        method: str,
        path: str,
        *,
        params: Params | None = None,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        files: FileParts | None = None,
        keyed: bool = False,
        repeatable: bool = False,
        expected: frozenset[int] = frozenset(),
        headers: Mapping[str, str] | None = None,
        streamed: bool = False,
    ) -> httpx2.Response:
        query = {key: value for key, value in (params or {}).items() if value is not None}
        repeatable = repeatable or keyed or method in REPEATABLE_METHODS
        sent = {**self._headers, **(headers or {})}
        if keyed:
            sent["Idempotency-Key"] = str(uuid.uuid4())
        attempt = 0
        while True:
            # Built anew each time: a multipart body rewinds its files when it is rendered.
            request = self._http.build_request(
                method,
                self.base_url + path,
                params=query or None,
                json=json,
                data=form,
                files=files,
                headers=sent,
            )
            retries_left = attempt < self.retry.max_retries
            try:
                response = self._http.send(request, stream=streamed)
            except httpx2.TransportError as error:
                if not retries_left or not may_repeat(error, repeatable):
                    raise translate(error, self.base_url) from error
                time.sleep(self.retry.seconds_after_error(attempt))
            except httpx2.RequestError as error:
                raise translate(error, self.base_url) from error
            else:
                if response.is_success or response.status_code in expected:
                    return response
                retried = RETRIED_STATUSES if repeatable else NOT_DONE_STATUSES
                wait = self.retry.seconds_after_response(response, attempt)
                if not retries_left or response.status_code not in retried or wait is None:
                    raise self._refusal(response)
                response.close()
                time.sleep(wait)
            attempt += 1

    def _refusal(self, response: httpx2.Response) -> MiaodError:
        try:
            response.read()
        except httpx2.RequestError as error:
            return translate(error, self.base_url)
        finally:
            response.close()
        if response.status_code >= 400:
            return error_from_response(response)
        return UnexpectedResponseError(
            f"{response.url} answered {response.status_code} (to "
            f"{response.headers.get('location', 'nowhere')}): is {self.base_url} the server's "
            "own address, scheme included?"
        )


def may_repeat(error: httpx2.TransportError, repeatable: bool) -> bool:
    """Whether a request that ended in `error` may be sent again."""
    if isinstance(error, httpx2.UnsupportedProtocol):
        return False
    return repeatable or isinstance(error, NOT_SENT_ERRORS)


def parse(model: type[ModelT], response: httpx2.Response) -> ModelT:
    """The JSON body of an answer as `model`; unknown fields are kept, missing ones refused."""
    try:
        return model.model_validate_json(response.content)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "body"
        raise UnexpectedResponseError(
            f"{response.url} did not answer with a {model.__name__}: {place}: {first['msg']}"
        ) from error


def translate(error: httpx2.RequestError, base_url: str) -> ConnectionFailedError:
    """This package's error for one of the HTTP library."""
    reason = str(error) or type(error).__name__
    if isinstance(error, NOT_SENT_ERRORS):
        return ConnectionFailedError(f"cannot reach {base_url}: {reason}")
    if isinstance(error, httpx2.TimeoutException):
        return ResponseTimeoutError(f"{base_url} did not answer in time: {reason}")
    return ConnectionFailedError(f"connection to {base_url} broke: {reason}")
