"""What the resources share."""

from typing import Any
from urllib.parse import quote

from miaod_client._transport import Transport


class Resource:
    """A part of the API; made by `Client`."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport


def path_to(*parts: str) -> str:
    """An address from its parts, each escaped.

    Raises:
        ValueError: a part is empty, so that the address would be that of something else.
    """
    if not all(parts):
        raise ValueError(f"an id or name is empty in {'/'.join(parts)!r}")
    return "/" + "/".join(quote(part, safe="") for part in parts)


def without_none(**fields: Any) -> dict[str, Any]:
    """A request body of the fields that were given; the server fills in the others."""
    return {key: value for key, value in fields.items() if value is not None}
