"""Projects."""

import builtins
from collections.abc import Mapping, Sequence
from typing import Any

from miaod_client._paging import DEFAULT_PAGE_SIZE, Pager
from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import parse
from miaod_client._types import Doubt, Project, Review, Statistics


class Projects(Resource):
    """Pools of images with their classes: `client.projects`."""

    def create(
        self,
        *,
        name: str,
        classes: Sequence[str],
        instructions: str | None = None,
        validation_images: int | None = None,
        cycle_defaults: Mapping[str, Any] | None = None,
    ) -> Project:
        """Make a project.

        Args:
            name: unique among the projects that exist.
            classes: class names in the order of their ids; more can follow, none can go.
            instructions: what annotators should know.
            validation_images: pool images that the first cycle draws to become the validation set.
            cycle_defaults: `budget`, `strategy`, `training`, `min_labeled` of its cycles.

        Raises:
            ConflictError: the name is taken.
        """
        body = without_none(
            name=name,
            classes=list(classes),
            instructions=instructions,
            validation_images=validation_images,
            cycle_defaults=cycle_defaults,
        )
        return self._transport.post(Project, "/projects", json=body, keyed=True)

    def list(
        self,
        *,
        name: str | None = None,
        limit: int | None = None,
        page_size: int = DEFAULT_PAGE_SIZE,
    ) -> Pager[Project]:
        """All projects, oldest first; with `name` only the one of this name."""
        return Pager(
            self._transport,
            Project,
            "/projects",
            params={"name": name},
            limit=limit,
            page_size=page_size,
        )

    def get(self, project_id: str) -> Project:
        """One project, with its counts.

        Raises:
            NotFoundError: there is none of this id.
        """
        return self._transport.get(Project, path_to("projects", project_id))

    def find(self, *, name: str) -> Project | None:
        """The project of this name, with its counts; `None` if there is none."""
        project = self.list(name=name).first()
        return None if project is None else self.get(project.id)

    def update(
        self,
        project_id: str,
        *,
        name: str | None = None,
        classes: Sequence[str] | None = None,
        instructions: str | None = None,
        validation_images: int | None = None,
        cycle_defaults: Mapping[str, Any] | None = None,
    ) -> Project:
        """Change what is given; `classes` is the whole list, the present ones first."""
        body = without_none(
            name=name,
            classes=None if classes is None else list(classes),
            instructions=instructions,
            validation_images=validation_images,
            cycle_defaults=cycle_defaults,
        )
        response = self._transport.request("PATCH", path_to("projects", project_id), json=body)
        return parse(Project, response)

    def statistics(self, project_id: str) -> Statistics:
        """What its labels amount to: boxes per class, who annotated how much and how fast."""
        return self._transport.get(Statistics, path_to("projects", project_id, "statistics"))

    def delete(self, project_id: str) -> None:
        """Delete a project with all it holds; a cycle of it that runs is cancelled."""
        self._transport.request("DELETE", path_to("projects", project_id))

    def review(self, project_id: str, *, limit: int = 100) -> builtins.list[Doubt]:
        """The labeled images where label and newest model disagree most, those first.

        Raises:
            NotFoundError: there is no such project.
        """
        path = path_to("projects", project_id, "review")
        return self._transport.get(Review, path, params={"limit": limit}).items
