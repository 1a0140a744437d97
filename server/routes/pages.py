"""The pages under `/app/`: shells without any data, which fetch what they show through the API.

A shell is the same for everybody, so it is served without a key; what it may load is its own
files and nothing else.
"""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.templating import Jinja2Templates

from server.access import RoleRoute, requires

router = APIRouter(include_in_schema=False, route_class=RoleRoute)

_TEMPLATES = Jinja2Templates(Path(__file__).parent.parent / "templates")
_STATIC = Path(__file__).parent.parent / "static"

# Named in the shell, so that a browser fetches them at once and not import by import.
_TEMPLATES.env.globals["dashboard_modules"] = sorted(
    path.name for path in (_STATIC / "app" / "dashboard").glob("*.js")
)

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "font-src 'self'",
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _POLICY,
    "Referrer-Policy": "same-origin",
    # A shell names the files of its own version: an old one must not meet new files.
    "Cache-Control": "no-cache",
}


@router.get("/")
@requires("anyone")
def show_start() -> Response:
    """Lead to the pages."""
    return RedirectResponse("/app/")


@router.get("/app/")
@requires("anyone")
def show_projects(request: Request) -> Response:
    """All projects."""
    return _shell(request, "projects.html")


@router.get("/app/sign-in")
@requires("anyone")
def show_sign_in(request: Request) -> Response:
    """Where a key is entered."""
    return _shell(request, "sign_in.html")


@router.get("/app/projects/{project_id}")
@requires("anyone")
def show_project(request: Request, project_id: str) -> Response:
    """One project: what it has and what its cycles found."""
    return _shell(request, "project.html", project_id=project_id)


@router.get("/app/projects/{project_id}/annotate")
@requires("anyone")
def show_annotate(request: Request, project_id: str) -> Response:
    """Where boxes are drawn."""
    return _shell(request, "annotate.html", project_id=project_id)


@router.get("/app/{_rest:path}")
@requires("anyone")
def show_no_page(request: Request) -> Response:
    """Any other address below `/app/`."""
    return _shell(request, "not_found.html", status=404)


def _shell(request: Request, template: str, *, status: int = 200, **values: str) -> Response:
    return _TEMPLATES.TemplateResponse(
        request, template, values, status_code=status, headers=_HEADERS
    )
