"""UUIDv7 identifiers."""

from __future__ import annotations

import time
import uuid

from server.store.ids import new_id


def test_an_id_is_a_uuid_of_version_7_in_canonical_form() -> None:
    value = new_id()
    parsed = uuid.UUID(value)
    assert str(parsed) == value
    assert parsed.variant == uuid.RFC_4122
    assert parsed.version == 7


def test_an_id_made_a_moment_later_sorts_later() -> None:
    ids = []
    for _ in range(5):
        ids.append(new_id())
        time.sleep(0.002)
    assert ids == sorted(ids)


def test_ids_made_at_the_same_moment_differ() -> None:
    assert len({new_id() for _ in range(10_000)}) == 10_000
