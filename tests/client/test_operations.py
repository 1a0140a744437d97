"""Every operation of the API has a method of the SDK, and the method goes to that operation."""

import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import httpx2
import pytest
from miaod_client import Client, UnexpectedResponseError

from server.main import create_app
from server.settings import Settings

CALLS: dict[str, Callable[[Client, Path], object]] = {
    "create_project": lambda c, _: c.projects.create(name="a", classes=["b"]),
    "list_projects": lambda c, _: c.projects.list().first(),
    "get_project": lambda c, _: c.projects.get("x"),
    "get_project_statistics": lambda c, _: c.projects.statistics("x"),
    "update_project": lambda c, _: c.projects.update("x", name="b"),
    "delete_project": lambda c, _: c.projects.delete("x"),
    "upload_images": lambda c, file: c.images.upload(project="x", paths=file),
    "list_images": lambda c, _: c.images.list(project="x").first(),
    "get_image": lambda c, _: c.images.get("x"),
    "update_image": lambda c, _: c.images.update("x", split="val"),
    "review_labels": lambda c, _: c.projects.review("x"),
    "delete_image": lambda c, _: c.images.delete("x"),
    "get_image_content": lambda c, _: c.images.content("x"),
    "get_image_thumbnail": lambda c, _: c.images.thumbnail("x"),
    "get_image_predictions": lambda c, _: c.images.predictions("x"),
    "get_annotation": lambda c, _: c.annotations.get("x"),
    "put_annotation": lambda c, _: c.annotations.put("x", version=0, boxes=[]),
    "delete_annotation": lambda c, _: c.annotations.delete("x"),
    "create_import": lambda c, _: c.imports.create(project="x", path="/srv"),
    "get_import": lambda c, _: c.imports.get("x"),
    "create_cycle": lambda c, _: c.cycles.create(project="x"),
    "list_cycles": lambda c, _: c.cycles.list().first(),
    "get_cycle": lambda c, _: c.cycles.get("x"),
    "watch_cycle": lambda c, _: next(c.cycles.events("x")),
    "resume_cycle": lambda c, _: c.cycles.resume("x"),
    "cancel_cycle": lambda c, _: c.cycles.cancel("x"),
    "get_cycle_metrics": lambda c, _: c.cycles.metrics("x"),
    "list_cycle_scores": lambda c, _: c.cycles.scores("x").first(),
    "get_cycle_histogram": lambda c, _: c.cycles.histogram("x"),
    "list_presets": lambda c, _: c.cycles.presets(),
    "list_cycle_artifacts": lambda c, _: c.cycles.artifacts("x"),
    "get_cycle_artifact": lambda c, file: c.cycles.download_artifact("x", "a", to=file),
    "list_queries": lambda c, _: c.queries.list(project="x").first(),
    "claim_queries": lambda c, _: c.queries.claim(project="x"),
    "get_query": lambda c, _: c.queries.get("x"),
    "heartbeat_query": lambda c, _: c.queries.heartbeat("x", claim_token="t"),
    "release_query": lambda c, _: c.queries.release("x", claim_token="t"),
    "skip_query": lambda c, _: c.queries.skip("x"),
    "get_query_heatmap": lambda c, _: c.queries.heatmap("x"),
    "list_models": lambda c, _: c.models.list().first(),
    "get_model": lambda c, _: c.models.get("x"),
    "update_model": lambda c, _: c.models.update("x", pinned=True),
    "delete_model": lambda c, _: c.models.delete("x"),
    "get_model_checkpoint": lambda c, file: c.models.download("x", to=file),
    "export_labels": lambda c, file: c.exports.download(project="x", to=file),
    "create_key": lambda c, _: c.keys.create(name="a", role="admin"),
    "list_keys": lambda c, _: c.keys.list().first(),
    "get_key": lambda c, _: c.keys.get("x"),
    "update_key": lambda c, _: c.keys.update("x", name="b"),
    "revoke_key": lambda c, _: c.keys.revoke("x"),
    "list_audit": lambda c, _: c.audit.list().first(),
    "get_session": lambda c, _: c.session.get(),
    "list_workers": lambda c, _: c.workers.list().first(),
    "get_liveness": lambda c, _: c.health.live(),
    "get_readiness": lambda c, _: c.health.ready(),
    "get_metrics": lambda c, _: c.health.metrics(),
}

# Programs send their key with each request; only browsers change it for a cookie.
FOR_BROWSERS = {"create_session", "delete_session"}


@pytest.fixture(scope="module")
def operations(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str]]:
    """Operation id -> method and path template, as the OpenAPI document says."""
    app = create_app(Settings(data_dir=tmp_path_factory.mktemp("data")))
    return {
        operation["operationId"]: (method.upper(), path)
        for path, methods in app.openapi()["paths"].items()
        for method, operation in methods.items()
    }


def test_every_operation_has_a_method(operations: dict[str, tuple[str, str]]) -> None:
    assert set(operations) - FOR_BROWSERS == set(CALLS)


@pytest.mark.parametrize("operation", CALLS)
def test_the_method_asks_for_its_operation(
    operation: str,
    operations: dict[str, tuple[str, str]],
    make_client: Callable[..., Client],
    tmp_path: Path,
) -> None:
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        return httpx2.Response(200, json=None)

    file = tmp_path / "a.jpg"
    file.write_bytes(b"a")
    # `null` is no answer of this API; what was asked is what counts here.
    with suppress(UnexpectedResponseError):
        CALLS[operation](make_client(answer), file)
    method, template = operations[operation]
    (request,) = asked
    assert request.method == method
    assert re.fullmatch(re.sub(r"\{\w+\}", "[xa]", template), request.url.path)
