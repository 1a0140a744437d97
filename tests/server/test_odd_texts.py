"""Texts that a database may not be able to store, in every place where the API takes one."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from tests.server.conftest import Pool

# A NUL, halves of surrogate pairs, a number that is none, one that no column holds.
ODD = ("a\x00b", "\ud800", "\udc00x", "1e999", str(2**70))


def queries(document: Any) -> Iterator[tuple[str, str]]:
    """Each path that can be read without naming anything in it, with each of its parameters."""
    for path, operations in document["paths"].items():
        for parameter in operations.get("get", {}).get("parameters", ()):
            if "{" not in path and parameter["in"] == "query":
                yield path, parameter["name"]


def places(value: Any) -> Iterator[Any]:
    """The same value again and again, each time with another of its texts taken for `...`."""
    if isinstance(value, str):
        yield ...
    elif isinstance(value, dict):
        for key, inner in value.items():
            for odd in places(inner):
                yield {**value, key: odd}
            yield {**value, "...": inner}
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            for odd in places(inner):
                yield [*value[:number], odd, *value[number + 1 :]]


def filled(value: Any, text: str) -> str:
    """As JSON, with the text in the place of `...`."""
    written = json.dumps(value, default=lambda _: "...")
    return written.replace('"..."', json.dumps(text))


def test_no_query_parameter_breaks_the_server(client: TestClient, pool: Pool) -> None:
    pool.upload(1)
    for path, name in queries(client.get("/openapi.json").json()):
        for text in ODD:
            raw = quote(text, safe="", errors="surrogatepass")
            project = "" if name == "project" else f"&project={pool.project}"
            answer = client.get(f"{path}?{name}={raw}{project}")
            assert answer.status_code < 500, (path, name, text)


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/projects", {"name": "p", "classes": ["a", "b"], "instructions": "text"}),
        ("PATCH", "/projects/{project}", {"name": "p", "classes": ["car", "person", "b"]}),
        (
            "PATCH",
            "/projects/{project}",
            {"cycle_defaults": {"strategy": {"name": "random"}, "training": {"preset": "cpu"}}},
        ),
        (
            "POST",
            "/cycles",
            {"project": "{project}", "budget": 1, "strategy": {"name": "mi-aod"}},
        ),
        ("POST", "/cycles", {"project": "{project}", "budget": 1, "training": {"preset": "cpu"}}),
        ("POST", "/queries/claim", {"project": "{project}", "author": "ana", "limit": 1}),
        (
            "PUT",
            "/images/{image}/annotations",
            {
                "version": 0,
                "author": "ana",
                "claim_token": "t",
                "source": "human",
                "boxes": [{"class": "car", "x1": 1, "y1": 1, "x2": 9, "y2": 9}],
            },
        ),
        ("PATCH", "/images/{image}", {"split": "val"}),
        ("POST", "/imports", {"project": "{project}", "path": "/x", "author": "ana"}),
    ],
)
def test_no_text_in_a_body_breaks_the_server(
    client: TestClient, pool: Pool, method: str, path: str, body: Any
) -> None:
    (image,) = pool.upload(1)
    known = {"{project}": pool.project, "{image}": image}
    for odd in places(body):
        for text in ODD:
            content, url = filled(odd, text), path
            for name, value in known.items():
                content, url = content.replace(name, value), url.replace(name, value)
            headers = {"content-type": "application/json"}
            answer = client.request(method, url, content=content, headers=headers)
            assert answer.status_code < 500, (content, answer.text)
            if "\x00" in text or text.startswith(("\ud800", "\udc00")):
                assert answer.status_code in (400, 404, 409, 422), content
