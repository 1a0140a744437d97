"""What every resource shares: strict request bodies, text and id types, pages, the error form."""

from __future__ import annotations

import re
from typing import Annotated, Any, Generic, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    model_validator,
)
from pydantic_core import PydanticCustomError

# Postgres integers have 32 bits; a larger one would be an error of the database, not a 422.
MAX_INTEGER = 2**31 - 1

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
EXAMPLE_ID = "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"
EXAMPLE_TOKEN = "hB3yQ0nZs5Vd1uKc8TgRw2XeJ7LmPa4f"


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("the text holds a NUL character, which no database stores")
    return value


def _without_controls(value: str) -> str:
    if any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError("the name holds a control character")
    return value


def _entity_id(value: str) -> str:
    # By hand, because pydantic would answer with the pattern instead of a sentence.
    if re.fullmatch(_UUID, value) is None:
        raise PydanticCustomError(
            "no_id",
            "{value} is no id: ids look like {example}",
            {"value": repr(value[:100]), "example": EXAMPLE_ID},
        )
    return value.lower()


EntityId = Annotated[
    str,
    AfterValidator(_entity_id),
    Field(json_schema_extra={"pattern": f"^{_UUID}$"}, examples=[EXAMPLE_ID]),
]
"""An id as clients send it: a UUID in its 36-character form."""

Name = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_without_controls),
]
"""A short name: 1 to 200 characters, no control characters, trimmed."""

FreeText = Annotated[str, StringConstraints(max_length=20_000), AfterValidator(_without_nul)]
"""A longer text for people, of at most 20,000 characters."""

Author = Annotated[
    str,
    StringConstraints(min_length=1, max_length=200, strip_whitespace=True),
    AfterValidator(_without_controls),
    Field(description="Who does this. Stored with the work.", examples=["ana"]),
]

ClaimToken = Annotated[
    str,
    StringConstraints(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_-]+$"),
    Field(
        description="The token that `POST /queries/claim` answered with.",
        examples=[EXAMPLE_TOKEN],
    ),
]


# Every unknown field is an error of a kilobyte in memory; nothing here has as many known ones.
MAX_FIELDS = 200


class LimitedFields(BaseModel):
    """An object of a request, which may not have any number of fields."""

    @model_validator(mode="before")
    @classmethod
    def _few_fields(cls, data: Any) -> Any:
        if isinstance(data, dict) and len(data) > MAX_FIELDS:
            raise PydanticCustomError(
                "too_many_fields",
                "the object has {number} fields; none here has more than {most}",
                {"number": len(data), "most": MAX_FIELDS},
            )
        return data


class RequestModel(LimitedFields):
    """A request body. A field that it does not know is an error, not a silent no-op.

    Strict: `"5"` is no number and `1` is no boolean, as the OpenAPI document says.
    """

    model_config = ConfigDict(extra="forbid", strict=True)


Item = TypeVar("Item")


class Page(BaseModel, Generic[Item]):
    """One page of a list."""

    items: list[Item]
    next_cursor: str | None = Field(
        description="Give it as `cursor` to get the next page; null on the last page."
    )
    total: int | None = Field(
        default=None, description="How many there are in all; only with `count=true`."
    )


class FieldProblem(BaseModel):
    """One malformed field of a request."""

    loc: list[str | int] = Field(
        description="Where: body, query or path, then the names and positions inside it.",
        examples=[["body", "boxes", 0, "x1"]],
    )
    msg: str = Field(description="What is wrong with it.")
    type: str = Field(description="A stable word for the kind of problem.")


class ErrorOut(BaseModel):
    """The one form of every error."""

    detail: str | list[FieldProblem] = Field(
        description="A sentence, or (422 of a malformed request) a list of fields.",
        examples=["no project 019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e"],
    )
    code: str = Field(description="A stable word to branch on.", examples=["not_found"])
    request_id: str = Field(description="Also in the log and in the header X-Request-ID.")
    current: dict[str, Any] | None = Field(
        default=None,
        description="With a 409 of an outdated version: what is stored now.",
    )


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route for the OpenAPI document: these errors, in the common form."""
    return {
        status: {
            "model": ErrorOut,
            "description": _MEANING[status],
            "content": {"application/json": {"example": _example(status)}},
        }
        for status in statuses
    }


def stored(*media_types: str) -> dict[int | str, dict[str, Any]]:
    """The `responses` of a route that serves a stored file, whole or a range of it."""
    content: dict[str, Any] = {media_type: {} for media_type in media_types}
    return {
        200: {"content": content, "description": "The file."},
        206: {"content": content, "description": "The part that Range asked for."},
        304: {"description": "The client has it already (If-None-Match)."},
        **errors(404, 416),
    }


def _example(status: int) -> dict[str, Any]:
    detail, code = _EXAMPLES[status]
    return {"detail": detail, "code": code, "request_id": "3f1c9a7be0d24c58a6b1f0e2d4c79b83"}


_MEANING = {
    400: "The body cannot be read.",
    401: "No key, or one that opens nothing.",
    403: "The key has another role, or is for other projects; or another page sent the request.",
    404: "There is no such thing, or no longer.",
    409: "The state of things forbids it now; the sentence says why.",
    413: "More bytes or files than allowed.",
    415: "Not a kind of body that is read here.",
    416: "The range lies outside the file; Content-Range says its size.",
    422: "Malformed (a list of fields) or without sense (a sentence).",
    429: "Too many wrong keys came from the address: wait as `Retry-After` says.",
    503: "The database or the storage is away; try again later.",
    507: "The storage is full.",
}

_EXAMPLES: dict[int, tuple[str | list[dict[str, Any]], str]] = {
    400: ("the body is no JSON that can be read: Expecting value", "bad_request"),
    401: (
        "send a key as `Authorization: Bearer KEY`, or sign in with one (POST /session)",
        "unauthorized",
    ),
    403: ("this needs the role engineer, and the key 'ana' has annotator", "forbidden"),
    404: (f"no project {EXAMPLE_ID}", "not_found"),
    409: ("there is already a project named 'street'", "name_taken"),
    413: ("the body has more bytes than are taken here", "too_large"),
    416: ("Range Not Satisfiable", "range_not_satisfiable"),
    415: ("send the body as application/json, not text/plain", "unsupported_media"),
    422: (
        [
            {
                "loc": ["body", "budget"],
                "msg": "Input should be greater than or equal to 1",
                "type": "greater_than_equal",
            }
        ],
        "invalid_request",
    ),
    429: (
        "10 wrong keys came from your address within a minute: try again in 42 s",
        "too_many_failures",
    ),
    503: ("the database does not answer just now; try again in some seconds", "unavailable"),
    507: ("the server's storage is full; nothing of this was kept", "storage_full"),
}
