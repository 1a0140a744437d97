"""The role that a route needs: stated above it, checked before its body is read.

```
@router.post("")
@requires("engineer")
def create_cycle(…)
```

A route that states none cannot be added. FastAPI reads a whole body before dependencies run, so the
check is neither a dependency nor in the route: it stands in front of both.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Literal, TypeVar

import structlog
from fastapi import Depends, Request, Response
from fastapi.params import Depends as Dependency
from fastapi.routing import APIRoute
from fastapi.security import APIKeyCookie, HTTPBearer
from starlette.concurrency import run_in_threadpool

from server.doorkeeper import COOKIE, Doorkeeper
from server.errors import Forbidden
from server.schemas.common import errors
from server.services.identity import Role

Required = Role | Literal["anyone"]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

# For the OpenAPI document only: they look at nothing.
_SECURITY = (
    Depends(HTTPBearer(auto_error=False, description="A key.")),
    Depends(
        APIKeyCookie(
            name=COOKIE,
            auto_error=False,
            description="The cookie of `POST /session`; changes need `X-CSRF-Token` with it.",
        )
    ),
)


def requires(role: Required, *, all_projects: bool = False) -> Callable[[Endpoint], Endpoint]:
    """State who may use a route.

    Args:
        role: the least role; `anyone` needs no key, and knows no caller.
        all_projects: only with a key for all projects.
    """

    def state(endpoint: Endpoint) -> Endpoint:
        endpoint.required_role = role  # type: ignore[attr-defined]
        endpoint.required_all_projects = all_projects  # type: ignore[attr-defined]
        return endpoint

    return state


class RoleRoute(APIRoute):
    """A route that lets in whom it states, before it reads anything of the body."""

    def __init__(
        self,
        path: str,
        endpoint: Callable[..., Any],
        *,
        dependencies: Sequence[Dependency] | None = None,
        responses: dict[int | str, dict[str, Any]] | None = None,
        openapi_extra: dict[str, Any] | None = None,
        **options: Any,
    ) -> None:
        """Write what the route states into its part of the OpenAPI document as well.

        Raises:
            TypeError: it states no role.
        """
        role: Required | None = getattr(endpoint, "required_role", None)
        if role is None:
            raise TypeError(
                f"{path} ({getattr(endpoint, '__name__', endpoint)}) states no role: put "
                "@requires(…) below its route decorator"
            )
        self.required_role: Required = role
        self.required_all_projects: bool = endpoint.required_all_projects  # type: ignore[attr-defined]
        extra: dict[str, Any] = {"x-required-role": role}
        if self.required_all_projects:
            extra["x-required-projects"] = "all"
        if role != "anyone":
            dependencies = [*_SECURITY, *(dependencies or ())]
            responses = {**errors(401, 403, 429), **(responses or {})}
        super().__init__(
            path,
            endpoint,
            dependencies=dependencies,
            responses=responses,
            openapi_extra={**(openapi_extra or {}), **extra},
            **options,
        )

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Let in, then handle."""
        handle = super().get_route_handler()

        async def handle_for_caller(request: Request) -> Response:
            await self._let_in(request)
            return await handle(request)

        return handle_for_caller

    async def _let_in(self, request: Request) -> None:
        # Set in any case: what asks for a caller where no route looked for one fails.
        request.state.caller = None
        if self.required_role == "anyone":
            return
        doorkeeper: Doorkeeper = request.app.state.doorkeeper
        # The settings' key costs no thread: metrics answer when all of them wait for the database.
        caller = doorkeeper.known_at_once(request)
        if caller is None:
            caller = await run_in_threadpool(doorkeeper.caller, request)
        structlog.contextvars.bind_contextvars(caller=caller.name)
        if not caller.may(self.required_role):
            raise Forbidden(
                f"this needs the role {self.required_role}, and the key {caller.name!r} has "
                f"{caller.role}"
            )
        if self.required_all_projects and caller.projects is not None:
            raise Forbidden(
                f"this needs a key for all projects, and {caller.name!r} is for some of them"
            )
        request.state.caller = caller
