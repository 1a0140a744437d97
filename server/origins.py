"""Where a request comes from, as far as its headers tell: to which host it was sent, by which page.

A browser sends a cookie, and reaches a server on loopback, for any page that asks it to.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection
from typing import Literal
from urllib.parse import urlsplit

from starlette.datastructures import Headers

_DEFAULT_PORTS = {"http": 80, "https": 443}
_OF_PROXIES = (
    "forwarded",
    "via",
    "x-forwarded-for",
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-real-ip",
)

Sender = Literal["own page", "another page", "no page"]


def is_loopback(host: str) -> bool:
    """Whether a name or address means this machine and no other."""
    host = host.rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_sent_to_loopback(headers: Headers) -> bool:
    """Whether the request was addressed to this machine by one of its local names.

    A page whose own name was made to point at 127.0.0.1 (DNS rebinding) still says its name here.
    """
    try:
        host = urlsplit(f"//{headers.get('host', '')}").hostname
    except ValueError:
        return False
    return host is not None and is_loopback(host)


def is_forwarded(headers: Headers, http_version: str) -> bool:
    """Whether a proxy passed the request on, so that its user may be anywhere.

    HTTP/1.0 is spoken by no browser and by no program of ours, but by a proxy (nginx) that is told
    nothing else, and which then sets none of the headers.
    """
    return http_version == "1.0" or any(name in headers for name in _OF_PROXIES)


def sender(headers: Headers, allowed: Collection[str] = ()) -> Sender:
    """Which kind of page sent the request; programs and typed addresses are no page.

    Args:
        headers: of the request. `Sec-Fetch-Site`, which no page can forge, counts before `Origin`;
            browsers leave it out where the connection is neither TLS nor local.
        allowed: origins that count as our own.
    """
    origin = headers.get("origin")
    if origin is not None and origin in allowed:
        return "own page"
    site = headers.get("sec-fetch-site")
    if site == "none":
        return "no page"
    if site is not None:
        return "own page" if site == "same-origin" else "another page"
    if origin is None:
        return "no page"
    return "own page" if _is_own(origin, headers.get("host", "")) else "another page"


def is_navigation(method: str, headers: Headers) -> bool:
    """Whether somebody follows a link to here: the page that has the link reads no answer."""
    return (
        method in ("GET", "HEAD")
        and headers.get("sec-fetch-mode") == "navigate"
        and headers.get("sec-fetch-dest") == "document"
    )


def _is_own(origin: str, host: str) -> bool:
    # By host and port alone: behind a proxy that ends TLS our own scheme may look like http.
    try:
        page, own = urlsplit(origin), urlsplit(f"{urlsplit(origin).scheme}://{host}")
        if page.scheme not in _DEFAULT_PORTS or not page.hostname:
            return False
        default = _DEFAULT_PORTS[page.scheme]
        return (page.hostname, page.port or default) == (own.hostname, own.port or default)
    except ValueError:
        return False
