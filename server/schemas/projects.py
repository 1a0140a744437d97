"""Projects: a pool of images, its classes, and how its cycles run unless told otherwise."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from server.schemas.common import MAX_INTEGER, FreeText, Name, RequestModel
from server.schemas.cycles import CycleDefaults
from server.services.projects import ProjectCounts, ProjectView


def _without_repeats(names: list[str]) -> list[str]:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            raise ValueError(f"class {name!r} stands twice in the list")
        seen.add(name)
    return names


ClassNames = Annotated[
    list[Name],
    Field(min_length=1, max_length=1000, examples=[["car", "person"]]),
    AfterValidator(_without_repeats),
]

ValidationImages = Annotated[
    int,
    Field(
        ge=0,
        le=MAX_INTEGER,
        description=(
            "How many pool images the first cycle draws at random to be labeled as the validation "
            "set, on top of its budget; their split is `val` from then on. 0 draws none. Without "
            "effect once the project has `val` images."
        ),
    ),
]

Instructions = Annotated[
    FreeText, Field(description="What annotators should know: what to box, and how tightly.")
]


class ProjectIn(RequestModel):
    """A new project."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "name": "street",
                    "classes": ["car", "person"],
                    "instructions": "Box every car of which you see more than a quarter.",
                    "validation_images": 20,
                    "cycle_defaults": {"budget": 50},
                }
            ]
        }
    )

    name: Name = Field(description="Unique among the projects that exist.")
    classes: ClassNames = Field(
        description="Class names in the order of their ids. More can follow later, none can go."
    )
    instructions: Instructions = ""
    validation_images: ValidationImages = 0
    cycle_defaults: CycleDefaults = Field(default_factory=CycleDefaults)


class ProjectPatch(RequestModel):
    """Changes to a project; what is absent stays."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"classes": ["car", "person", "bicycle"]}]}
    )

    name: Name | None = None
    classes: ClassNames | None = Field(
        default=None,
        description="The whole list: the present classes in their order, then the new ones.",
    )
    instructions: Instructions | None = None
    validation_images: ValidationImages | None = None
    cycle_defaults: CycleDefaults | None = Field(
        default=None, description="Replaces the present defaults as a whole."
    )


class ProjectCountsOut(BaseModel):
    """How many images a project has, by split and state; deleted ones do not count."""

    images: int = Field(description="All splits together.")
    labeled: int = Field(description="Pool images with an annotation, negatives included.")
    unlabeled: int = Field(description="Pool images without one, skipped ones included.")
    skipped: int = Field(description="Unlabeled pool images that an annotator skipped.")
    val: int
    val_labeled: int
    test: int
    test_labeled: int
    boxes: int = Field(description="Boxes of all current annotations.")

    @classmethod
    def of(cls, counts: ProjectCounts) -> Self:
        """From the service's counts."""
        return cls.model_validate(counts, from_attributes=True)


class ProjectOut(BaseModel):
    """A project."""

    id: str
    name: str
    classes: list[str] = Field(description="In the order of their ids.")
    instructions: str
    validation_images: int
    cycle_defaults: dict[str, Any]
    created_at: datetime

    @classmethod
    def of(cls, view: ProjectView) -> Self:
        """From the service's view."""
        project = view.project
        return cls(
            id=project.id,
            name=project.name,
            classes=list(view.class_names),
            instructions=project.instructions,
            validation_images=project.validation_images,
            cycle_defaults=project.cycle_defaults,
            created_at=project.created_at,
        )


class ProjectDetailOut(ProjectOut):
    """A project with its counts."""

    counts: ProjectCountsOut

    @classmethod
    def detail(cls, view: ProjectView, counts: ProjectCounts) -> Self:
        """From the service's view and counts."""
        base = ProjectOut.of(view).model_dump()
        return cls(**base, counts=ProjectCountsOut.of(counts))
