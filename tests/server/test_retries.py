"""A storm of retries against real servers: one POST, one key, a thousand connections."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from sqlalchemy import func, select
from sqlalchemy.orm import Session, sessionmaker

from server.store.ids import new_id
from server.store.models import Cycle, Image, Project, ProjectClass
from tests.server.processes import running_server

RETRIES = 1000
PATIENCE_SECONDS = 240


@pytest.fixture
def project(sessions: sessionmaker[Session]) -> str:
    """A project with images enough for a cycle."""
    project_id = new_id()
    with sessions.begin() as session:
        session.add(Project(id=project_id, name="street", next_ordinal=3))
        session.flush()
        session.add(ProjectClass(project_id=project_id, class_id=0, name="car"))
        session.add_all(
            Image(
                project_id=project_id,
                ordinal=ordinal,
                name=f"{ordinal}.png",
                sha256=f"{ordinal:064}",
                num_bytes=1,
                media_type="image/png",
                width=40,
                height=30,
            )
            for ordinal in range(3)
        )
    return project_id


async def exchange(url: str, request: bytes) -> tuple[int, dict[str, str], bytes]:
    """One request over a connection of its own; status, headers and body of the answer."""
    place = urlsplit(url)
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    writer.write(request)
    head, _, body = (await reader.read()).partition(b"\r\n\r\n")
    writer.close()
    await writer.wait_closed()
    status, *lines = head.decode("latin-1").split("\r\n")
    headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in lines)}
    return int(status.split()[1]), headers, body


def post(path: str, body: object, key: str) -> bytes:
    content = json.dumps(body).encode()
    return (
        f"POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(content)}\r\n"
        f"Idempotency-Key: {key}\r\n\r\n"
    ).encode() + content


def test_a_thousand_retries_of_one_post_on_two_servers_make_one_cycle(
    database_url: str, data_dir: Path, project: str, sessions: sessionmaker[Session]
) -> None:
    storm = post("/cycles", {"project": project, "budget": 2}, "one-key")
    bystander = b"GET /projects HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"

    async def all_at_once(*urls: str) -> tuple[list[tuple[int, dict[str, str], bytes]], list[int]]:
        async with asyncio.timeout(PATIENCE_SECONDS):
            retries = [
                asyncio.create_task(exchange(urls[number % len(urls)], storm))
                for number in range(RETRIES)
            ]
            others = [asyncio.create_task(exchange(url, bystander)) for url in urls * 10]
            return await asyncio.gather(*retries), [
                status for status, _, _ in await asyncio.gather(*others)
            ]

    with (
        running_server(data_dir, database_url) as one,
        running_server(data_dir, database_url) as two,
    ):
        answers, others = asyncio.run(all_at_once(one, two))
    assert Counter(status for status, _, _ in answers) == {202: RETRIES}
    assert len({(headers["location"], body) for _, headers, body in answers}) == 1
    assert sum("idempotency-replayed" not in headers for _, headers, _ in answers) == 1
    assert Counter(others) == {200: 20}
    with sessions() as session:
        assert session.scalar(select(func.count()).select_from(Cycle)) == 1
