"""Where the server is and which key to show it."""

import os

import httpx2

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "MIAOD_URL"
API_KEY_VARIABLE = "MIAOD_API_KEY"


def resolve_url(url: str | None) -> str:
    """`url`, else `MIAOD_URL`, else the address of a server started on this machine.

    Raises:
        ValueError: it is not an http or https URL.
    """
    resolved = url or os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if not resolved.startswith(("http://", "https://")):
        raise ValueError(f"server URL {resolved!r} must begin with http:// or https://")
    try:
        host = httpx2.URL(resolved).host
    except httpx2.InvalidURL as error:
        raise ValueError(f"server URL {resolved!r} is malformed: {error}") from error
    if not host:
        raise ValueError(f"server URL {resolved!r} names no host")
    return resolved.rstrip("/")


def resolve_api_key(api_key: str | None) -> str | None:
    """`api_key`, else `MIAOD_API_KEY`, else none: a server without keys needs none.

    Raises:
        ValueError: it has characters that cannot stand in a header.
    """
    resolved = (api_key or os.environ.get(API_KEY_VARIABLE) or "").strip()
    if not resolved.isascii() or not resolved.isprintable():
        raise ValueError("the API key has characters that no key has (line breaks, accents)")
    return resolved or None
