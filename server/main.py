"""The application: what it is made of, and what runs beside it."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from os import PathLike
from pathlib import Path
from typing import Any

import structlog
from fastapi import FastAPI, Response
from fastapi.responses import FileResponse
from fastapi.routing import APIRoute
from fastapi.staticfiles import StaticFiles
from starlette.middleware.cors import CORSMiddleware

from server import __version__, handlers
from server.access import RoleRoute, requires
from server.body_limits import BodyLimitMiddleware
from server.deps import Context
from server.doorkeeper import Doorkeeper
from server.metrics import ProcessFigures, RequestMetricsMiddleware
from server.middleware import ErrorFormMiddleware, RequestContextMiddleware
from server.routes import (
    audit,
    cycle_events,
    cycles,
    exports,
    images,
    imports,
    keys,
    models,
    operations,
    pages,
    presets,
    projects,
    queries,
    session,
    uploads,
)
from server.routes.annotations import router as annotation_router
from server.schemas.common import errors
from server.services.feed import Feed
from server.services.figures import Figures
from server.services.health import Health
from server.services.imports import ImportRunner
from server.settings import Settings
from server.store.blobs import BlobStore
from server.store.database import limit_statements, make_engine, session_factory
from server.store.sweep import sweep
from server.unread_bodies import UnreadBodyMiddleware

log = structlog.get_logger(__name__)

STATIC = Path(__file__).with_name("static")
SWEEP_SECONDS = 3600.0
# A request's statement that Postgres works on for longer is given up: a 503, and no lock kept.
STATEMENT_SECONDS = 60.0
# A JSON body is held in memory. The largest honest one, 10,000 boxes, has about 1.5 MB.
MAX_JSON_BYTES = 4_000_000
# Boundaries, names and fields of a form, besides its files.
_FORM_BYTES = 2_000_000
_KEY_BYTES = 10_000

# The documentation runs beside pages that are signed in: its own files, and nothing else.
_DOCS_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self' 'unsafe-inline'",
        "img-src 'self' data: blob:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)

_DESCRIPTION = """
Active learning for object detection: upload images, start a cycle, label what it asks for, start
the next one.

* Lists answer `{"items", "next_cursor"}`: give `next_cursor` back as `cursor`; `count=true` adds
  `total`.
* Every error answers `{"detail", "code", "request_id"}`; branch on `code`.
* Every POST but `/keys` and `/session` takes an `Idempotency-Key`: repeated under the same one it
  has one effect and gets one answer.
* Boxes are corners in absolute pixels of the upright image (EXIF rotation applied), origin at the
  top left.
* Where the server has keys, send one as `Authorization: Bearer KEY`. `x-required-role` is the least
  role that an operation needs; `anyone` needs no key.
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
    limit_statements(engine, STATEMENT_SECONDS)
    reading = session_factory(engine, read_only=True)
    blobs = BlobStore(settings.data_dir)
    own_figures = ProcessFigures()
    context = Context(
        settings=settings,
        engine=engine,
        sessions=session_factory(engine),
        reading=reading,
        blobs=blobs,
        feed=Feed(reading),
        health=Health(engine, blobs),
        figures=Figures(own_figures.registry, reading, blobs),
        own_figures=own_figures,
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
        responses=errors(400, 413, 415, 422, 503, 507),
        generate_unique_id_function=_operation_id,
    )
    app.router.route_class = RoleRoute  # a route without a role cannot be added here either
    app.state.context = context
    app.state.doorkeeper = Doorkeeper(context)
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
        session.router,
        keys.router,
        audit.router,
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
    # The last one added is the outermost: figures, then id, then form, then size and speed of the
    # body. Keys and roles are looked at by the routes, before they read a body (see access.py).
    app.add_middleware(
        BodyLimitMiddleware,
        default_bytes=MAX_JSON_BYTES,
        bytes_by_path={
            "/images": settings.max_upload_files * settings.max_upload_bytes + _FORM_BYTES,
            "/imports": settings.max_archive_bytes + _FORM_BYTES,
            "/session": _KEY_BYTES,  # anyone may send one
        },
    )
    if settings.cors_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", "POST", "PUT", "PATCH", "DELETE"],
            # Other sites send a key; the cookie is for our own pages.
            allow_credentials=False,
            allow_headers=[
                "Authorization",
                "Content-Type",
                "Idempotency-Key",
                "If-None-Match",
                "Range",
                "X-Request-ID",
            ],
            expose_headers=[
                "Content-Disposition",
                "ETag",
                "Idempotency-Replayed",
                "Location",
                "Retry-After",
                "X-Request-ID",
            ],
        )
    app.add_middleware(ErrorFormMiddleware)
    app.add_middleware(UnreadBodyMiddleware)
    app.add_middleware(RequestContextMiddleware)
    app.add_middleware(RequestMetricsMiddleware, figures=app.state.context.own_figures)


def _add_pages(app: FastAPI) -> None:
    app.mount("/static", _Static(directory=STATIC), name="static")

    # The same for everyone, and of nobody's data.
    @app.get("/docs", include_in_schema=False)
    @requires("anyone")
    def show_docs() -> FileResponse:
        return FileResponse(STATIC / "docs.html", headers={"Content-Security-Policy": _DOCS_POLICY})


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
                context.own_figures.sweeps_failed.inc()
                continue
            context.own_figures.sweeps_done.inc()
            if swept:
                log.info("swept", action="swept", removed=str(swept))

    thread = threading.Thread(target=run, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        stopped.set()
        thread.join(timeout=10)
