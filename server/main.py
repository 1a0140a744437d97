"""The application: what it is made of, and what runs beside it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import structlog
from fastapi import Depends, FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.security import HTTPBearer
from fastapi.staticfiles import StaticFiles

from server import __version__, handlers
from server.deps import Context
from server.middleware import AdminKeyMiddleware, BodyLimitMiddleware, RequestContextMiddleware
from server.routes import (
    cycle_events,
    cycles,
    exports,
    images,
    imports,
    models,
    operations,
    pages,
    presets,
    projects,
    queries,
    uploads,
)
from server.routes.annotations import router as annotation_router
from server.schemas.common import errors
from server.services.feed import Feed
from server.services.imports import ImportRunner
from server.settings import Settings
from server.store.blobs import BlobStore
from server.store.database import make_engine, session_factory
from server.store.sweep import sweep

log = structlog.get_logger(__name__)

STATIC = Path(__file__).with_name("static")
SWEEP_SECONDS = 3600.0
# A JSON body is held in memory. The largest honest one, 10,000 boxes, has about 1.5 MB.
MAX_JSON_BYTES = 4_000_000
# Boundaries, names and fields of a form, besides its files.
_FORM_BYTES = 2_000_000

_DESCRIPTION = """
Active learning for object detection: upload images, start a cycle, label what it asks for, start
the next one.

* Lists answer `{"items", "next_cursor"}`: give `next_cursor` back as `cursor`; `count=true` adds
  `total`.
* Every error answers `{"detail", "code", "request_id"}`; branch on `code`.
* Boxes are corners in absolute pixels of the upright image (EXIF rotation applied), origin at the
  top left.
* Where the server has a key, send `Authorization: Bearer KEY`.
"""


def create_app(settings: Settings | None = None, *, background: bool = False) -> FastAPI:
    """The application on one database and one data folder.

    Args:
        settings: from the environment unless given.
        background: also run imports and the hourly sweep, in threads of this process, for as long
            as the application's lifespan.
    """
    settings = settings or Settings()
    engine = make_engine(settings.resolved_database_url)
    reading = session_factory(engine, read_only=True)
    context = Context(
        settings=settings,
        engine=engine,
        sessions=session_factory(engine),
        reading=reading,
        blobs=BlobStore(settings.data_dir),
        feed=Feed(reading),
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with ExitStack() as running:
            running.callback(engine.dispose)
            running.callback(context.feed.stop)
            if background:
                running.enter_context(_importing(context))
                running.enter_context(_sweeping(context))
            yield

    app = FastAPI(
        title="MI-AOD service",
        version=__version__,
        description=_DESCRIPTION,
        lifespan=lifespan,
        docs_url=None,
        redoc_url=None,
        # For the OpenAPI document only; the key is checked before a body is read, in middleware.
        dependencies=[Depends(HTTPBearer(auto_error=False, description="The admin key."))],
        responses=errors(400, 401, 413, 415, 422, 503, 507),
        generate_unique_id_function=_operation_id,
    )
    app.state.context = context
    handlers.install(app)
    _add_middleware(app, settings)
    for router in (
        projects.router,
        uploads.router,
        images.router,
        annotation_router,
        imports.router,
        cycles.router,
        cycle_events.router,
        queries.router,
        models.router,
        exports.router,
        presets.router,
        operations.router,
        pages.router,
    ):
        app.include_router(router)
    _add_pages(app)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name


def _add_middleware(app: FastAPI, settings: Settings) -> None:
    # The last one added is the outermost: id, then key, then size.
    app.add_middleware(
        BodyLimitMiddleware,
        default_bytes=MAX_JSON_BYTES,
        bytes_by_path={
            "/images": settings.max_upload_files * settings.max_upload_bytes + _FORM_BYTES,
            "/imports": settings.max_archive_bytes + _FORM_BYTES,
        },
    )
    if settings.admin_key is not None:
        app.add_middleware(AdminKeyMiddleware, key=settings.admin_key.get_secret_value())
    app.add_middleware(RequestContextMiddleware)


def _add_pages(app: FastAPI) -> None:
    app.mount("/static", _Static(directory=STATIC), name="static")

    @app.get("/docs", include_in_schema=False)
    def show_docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html")


class _Static(StaticFiles):
    """Our own files are asked for anew each time (mostly a 304): pages and modules of two versions
    must not mix. Vendored ones have their version in the name and never change.
    """

    def file_response(self, full_path: str | PathLike[str], *args: Any, **more: Any) -> Response:
        response = super().file_response(full_path, *args, **more)
        vendored = Path(full_path).is_relative_to(STATIC / "vendor")
        response.headers["Cache-Control"] = (
            "public, max-age=31536000, immutable" if vendored else "no-cache"
        )
        return response


@contextmanager
def _importing(context: Context) -> Iterator[None]:
    runner = ImportRunner(context.sessions, context.blobs, context.settings)
    runner.start()
    try:
        yield
    finally:
        runner.stop()


@contextmanager
def _sweeping(context: Context) -> Iterator[None]:
    stopped = threading.Event()

    def run() -> None:
        while not stopped.wait(SWEEP_SECONDS):
            try:
                swept = sweep(context.sessions, context.blobs)
            except Exception:  # noqa: BLE001 (whatever it was, the next sweep tries again)
                log.exception("sweep failed", action="sweep_failed")
                continue
            if swept:
                log.info("swept", action="swept", removed=str(swept))

    thread = threading.Thread(target=run, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=10)
