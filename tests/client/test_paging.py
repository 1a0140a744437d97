"""Lists that are longer than a page."""

from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from miaod_client import Client

MakeClient = Callable[..., Client]


class ListServer:
    """Serves numbered projects by keyset pages."""

    def __init__(self, template: dict[str, Any], count: int) -> None:
        self.items = [{**template, "id": f"p{number}"} for number in range(count)]
        self.queries: list[dict[str, str]] = []

    def __call__(self, request: httpx2.Request) -> httpx2.Response:
        query = dict(request.url.params)
        self.queries.append(query)
        start, limit = int(query.get("cursor", "0")), int(query["limit"])
        more = start + limit < len(self.items)
        page: dict[str, Any] = {
            "items": self.items[start : start + limit],
            "next_cursor": str(start + limit) if more else None,
        }
        if query.get("count") == "true":
            page["total"] = len(self.items)
        return httpx2.Response(200, json=page)


def test_iterating_walks_through_every_page(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = ListServer(project_json, 7)
    projects = make_client(server).projects.list(page_size=3)
    assert [project.id for project in projects] == [f"p{number}" for number in range(7)]
    assert [query.get("cursor") for query in server.queries] == [None, "3", "6"]


def test_a_list_can_be_walked_through_again(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    projects = make_client(ListServer(project_json, 3)).projects.list(page_size=2)
    assert list(projects) == list(projects)


def test_nothing_is_asked_before_the_first_item_is_wanted(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = ListServer(project_json, 5)
    walk = iter(make_client(server).projects.list(page_size=2))
    assert server.queries == []
    next(walk)
    assert len(server.queries) == 1


@pytest.mark.parametrize(("limit", "sizes"), [(5, ["3", "2"]), (2, ["2"]), (0, [])])
def test_limit_bounds_items_and_asks_for_no_more(
    limit: int, sizes: list[str], make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = ListServer(project_json, 9)
    assert len(list(make_client(server).projects.list(limit=limit, page_size=3))) == limit
    assert [query["limit"] for query in server.queries] == sizes


def test_total_counts_without_reading_the_list(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    server = ListServer(project_json, 9)
    assert make_client(server).projects.list().total() == 9
    assert server.queries == [{"limit": "1", "count": "true"}]


def test_first_of_an_empty_list_is_none(
    make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    assert make_client(ListServer(project_json, 0)).projects.list().first() is None


@pytest.mark.parametrize("page_size", [0, 1001])
def test_a_page_size_outside_the_servers_range_is_refused(
    page_size: int, make_client: MakeClient, project_json: dict[str, Any]
) -> None:
    with pytest.raises(ValueError, match="page_size"):
        make_client(ListServer(project_json, 1)).projects.list(page_size=page_size)
