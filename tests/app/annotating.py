"""An annotator at the Annotate page, and projects for one to work on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from miaod_client import Annotation
from miaod_client import Image as ClientImage
from PIL import Image as Pillow
from PIL import ImageFilter
from playwright.sync_api import Locator, Page, expect
from sqlalchemy import insert, inspect, select, update
from sqlalchemy.orm import Session, sessionmaker

from server.store.database import make_engine, session_factory
from server.store.ids import new_id
from server.store.models import Cycle, Image, Json, Prediction, Project, ProjectClass, Query
from tests.app.conftest import Service
from worker.scenes import CLASS_NAMES, draw_scene

WIDTH, HEIGHT = 320, 240
SEED = 11


def make_project(
    service: Service,
    folder: Path,
    *,
    name: str,
    images: int = 4,
    budget: int | None = None,
    classes: Sequence[str] = CLASS_NAMES,
    size: tuple[int, int] = (WIDTH, HEIGHT),
) -> str:
    """A project of drawn scenes whose first cycle has selected `budget` (all, unless given)."""
    client = service.client
    project = client.projects.create(
        name=name,
        classes=list(classes),
        instructions="Box every piece of hardware of which you see more than a third.\n\nTightly.",
    )
    paths = []
    for number in range(images):
        path = folder / f"scene-{number:02}.jpg"
        picture = Pillow.fromarray(draw_scene(SEED, number, size).image)
        # Without the sensor's noise, which would make up most of a picture of the page.
        picture.filter(ImageFilter.MedianFilter(5)).save(path, quality=92)
        paths.append(path)
    client.images.upload(project=project.id, paths=paths)
    if budget != 0:
        cycle = client.cycles.create(project=project.id, budget=budget or images, seed=1)
        cycle = client.cycles.wait(cycle.id, timeout=120, poll_seconds=0.1)
        assert cycle.state == "succeeded", cycle
    return project.id


def copy_project(service: Service, source: str, name: str) -> str:
    """A project as fresh as this one, its selection included, without another cycle's seconds."""
    parts = (
        select(Project).where(Project.id == source),
        select(ProjectClass).where(ProjectClass.project_id == source),
        select(Image).where(Image.project_id == source),
        select(Cycle).where(Cycle.project_id == source),
        select(Query).where(Query.project_id == source),
    )
    renamed: dict[object, str] = {}
    with _sessions(service).begin() as session:
        found = [list(session.scalars(part)) for part in parts]
        for row in chain.from_iterable(found):
            if hasattr(row, "id"):
                renamed[row.id] = new_id()
        for rows in found:
            model = type(rows[0])
            columns = [column.key for column in inspect(model).column_attrs]
            copies = [{key: getattr(row, key) for key in columns} for row in rows]
            for values in copies:
                for key, value in values.items():
                    if isinstance(value, str):
                        values[key] = renamed.get(value, value)
                if model is Project:
                    values["name"] = name
            session.execute(insert(model), copies)
    return renamed[source]


def predict(
    service: Service, project: str, detections: Sequence[Json] | Mapping[str, Sequence[Json]]
) -> None:
    """Have the newest cycle see this on every image, or on each of these names: what a trained one
    leaves in the database.
    """
    with _sessions(service).begin() as session:
        newest = select(Project.scored_cycle_id).where(Project.id == project).scalar_subquery()
        cycle = session.scalars(select(Cycle).where(Cycle.id == newest)).one()
        for image in service.client.images.list(project=project):
            seen = detections[image.name] if isinstance(detections, Mapping) else detections
            session.add(
                Prediction(
                    cycle_id=cycle.id, fence=cycle.fence, image_id=image.id, boxes=list(seen)
                )
            )


def detections_of(number: int, size: tuple[int, int]) -> list[Json]:
    """What a decent model would see in a scene: most things, a little off, more or less sure."""
    scene = draw_scene(SEED, number, size)
    found = []
    for place, (name, corners) in enumerate(zip(scene.class_names, scene.boxes, strict=True)):
        x1, y1, x2, y2 = (float(corner) for corner in corners)
        off = 2.0 + place % 3
        score = 0.93 - 0.13 * (place % 6)
        box = {"x1": max(0.0, x1 - off), "y1": y1, "x2": x2, "y2": min(size[1], y2 + off)}
        found.append({"class_id": CLASS_NAMES.index(name), "score": score, **box})
    return found


def lapse_claims(service: Service, project: str) -> None:
    """As if their time had run out."""
    with _sessions(service).begin() as session:
        session.execute(
            update(Query)
            .where(Query.project_id == project, Query.state == "claimed")
            .values(claimed_until=1.0)
        )


def _sessions(service: Service) -> sessionmaker[Session]:
    return session_factory(make_engine(f"sqlite:///{service.data_dir / 'miaod.db'}"))


def labeled(service: Service, project: str) -> dict[str, Annotation]:
    """The annotations that the server holds, by name of the image."""
    client = service.client
    images: list[ClientImage] = list(client.images.list(project=project, state="labeled"))
    return {image.name: client.annotations.get(image.id) for image in images}


@dataclass
class Annotator:
    """Somebody at the page, in image pixels where a place is meant."""

    page: Page
    project: str

    def open(self, name: str = "ada", *, query: str = "") -> None:
        """Open the page, give a name if it is asked for, and wait for a picture."""
        self.page.goto(f"/app/projects/{self.project}/annotate{query}")
        field = self.page.get_by_label("Your name")
        expect(field.or_(self.stage)).to_be_visible()
        if field.is_visible():
            field.fill(name)
            self.page.keyboard.press("Enter")
        self.see()

    def see(self, image: str | None = None) -> None:
        """Wait until a picture is there and has the keyboard; one of this name, if given."""
        expect(self.page.locator(".picture.ready")).to_be_visible()
        expect(self.stage).to_be_focused()
        if image is not None:
            expect(self.page.locator(".image-name")).to_have_text(image)

    @property
    def stage(self) -> Locator:
        return self.page.get_by_role("application")

    @property
    def image(self) -> str:
        return self.page.locator(".image-name").inner_text()

    @property
    def boxes(self) -> Locator:
        return self.page.locator(".boxes li")

    @property
    def status(self) -> Locator:
        return self.page.locator("#header-status .status")

    def press(self, *keys: str) -> None:
        for key in keys:
            self.page.keyboard.press(key)

    def go_on(self, *keys: str) -> str:
        """Press keys of which the last one leaves the image; gives the name of the next one."""
        before = self.image
        self.press(*keys)
        expect(self.page.locator(".image-name")).not_to_have_text(before)
        self.see()
        return self.image

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where an image's pixel is on the screen."""
        frame: dict[str, float] = self.page.locator(".picture").evaluate(
            "element => element.getBoundingClientRect().toJSON()"
        )
        return frame["x"] + x * frame["width"] / WIDTH, frame["y"] + y * frame["height"] / HEIGHT

    def drag(self, start: tuple[float, float], end: tuple[float, float], **options: Any) -> None:
        """Press at one place, let go at another."""
        self.page.mouse.move(*self.at(*start))
        self.page.mouse.down(**options)
        self.page.mouse.move(*self.at(*end), steps=4)
        self.page.mouse.up(**options)

    def click(self, x: float, y: float) -> None:
        self.page.mouse.click(*self.at(x, y))

    def wait_saved(self) -> None:
        expect(self.status).to_have_text("All saved")
