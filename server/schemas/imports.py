"""Imports: a folder or an archive being read into a project."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints

from server.schemas.common import Author, EntityId, Name, RequestModel
from server.schemas.cycles import CycleState
from server.schemas.images import Split
from server.services.imports import ImportView

ImportFormat = Literal["auto", "images", "voc", "coco"]
ImportSplit = Literal["pool", "val", "test", "auto"]


def _without_nul(value: str) -> str:
    if "\x00" in value:
        raise ValueError("the path holds a NUL character")
    return value


class ImportOptions(RequestModel):
    """How to read the folder or archive. With an uploaded archive these are form fields."""

    project: EntityId
    format: ImportFormat = Field(
        default="auto",
        description="`images`: pictures without labels; `auto` looks at what is there.",
    )
    split: ImportSplit = Field(
        default="pool",
        description=(
            "The split of every image. `auto`: lists decide (VOC's `ImageSets/Main/*.txt`, one "
            "COCO file per split, top folders named `train` or `val`): `train` and `trainval` are "
            "the pool, `val` is val, `test` is test, or val where there is no `val`."
        ),
    )
    splits: dict[Name, Split] | None = Field(
        default=None,
        max_length=100,
        description=(
            "Name of a list -> split, instead of `auto`; images that none of these lists names "
            "are left out. In a form: the same as JSON."
        ),
        examples=[{"trainval": "pool", "test": "val"}],
    )
    corners: Literal["voc", "zero-based"] = Field(
        default="voc",
        description=(
            "VOC corners: `voc` are 1-based and inclusive (x1 = xmin - 1, x2 = xmax), "
            "`zero-based` are taken as they stand."
        ),
    )
    empty: Literal["unlabeled", "negative"] = Field(
        default="unlabeled",
        description="What a COCO image without annotations is. An empty VOC file is a negative.",
    )
    labels: bool = Field(
        default=True, description="`false` takes the pictures only, as if there were no labels."
    )
    add_classes: bool = Field(
        default=False,
        description=(
            "Append classes that the project lacks. Without it, labels of an unknown class are "
            "refused by name; their image is kept, unlabeled."
        ),
    )
    author: Author = "import"


class ImportIn(ImportOptions):
    """An import of a folder that the server can read itself."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "project": "019ab3a1-5f0e-7cc2-9d5b-3a9d2f0c1b7e",
                    "path": "/srv/images/street",
                    "format": "voc",
                }
            ]
        }
    )

    path: Annotated[
        str, StringConstraints(min_length=1, max_length=4096), AfterValidator(_without_nul)
    ] = Field(description="A folder (or archive) below one of the server's MIAOD_IMPORT_ROOTS.")


class ImportRefusalOut(BaseModel):
    """One item that was refused, and why."""

    name: str
    reason: str


class ImportCounts(BaseModel):
    """What an import has done so far."""

    total: int = Field(default=0, description="Images found.")
    created: int = 0
    duplicate: int = 0
    rejected: int = 0
    labeled: int = Field(default=0, description="Images that got an annotation.")
    boxes: int = 0


class ImportOut(BaseModel):
    """An import: where it is, and what it refused."""

    id: str
    project: str
    state: CycleState
    progress: float = Field(description="0 to 1.")
    message: str
    error: str | None
    format: ImportFormat
    split: ImportSplit
    counts: ImportCounts
    num_refused: int
    refused: list[ImportRefusalOut] = Field(
        description="A page of the refused items, by name; `limit` and `cursor` turn the pages."
    )
    next_cursor: str | None = Field(description="Of `refused`.")
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, view: ImportView) -> Self:
        """From the service's view."""
        job = view.job
        return cls(
            id=job.id,
            project=job.project_id,
            state=job.state,
            progress=job.progress,
            message=job.message,
            error=job.error,
            format=job.options["format"],
            split=job.options["split"],
            counts=ImportCounts.model_validate(job.counts),
            num_refused=job.counts.get("refused", 0),
            refused=[
                ImportRefusalOut(name=item.name, reason=item.reason) for item in view.refused.items
            ],
            next_cursor=view.refused.next_cursor,
            created_at=job.created_at,
            started_at=job.started_at,
            finished_at=job.finished_at,
        )
