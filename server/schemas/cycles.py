"""Cycles: one round of train, evaluate, score, select."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field

from server.schemas.common import EXAMPLE_ID, MAX_INTEGER, EntityId, RequestModel
from server.services.cycles import CycleView, ScoreView
from server.store.models import Artifact, CycleEvent

CycleState = Literal["queued", "running", "succeeded", "failed", "cancelled"]


class UncertaintyOptions(RequestModel):
    """What may be weighed besides uncertainty when images are selected."""

    class_balance: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description=(
            "Move images up that seem to show classes with few labels: the weight of that against "
            "the uncertainty's rank. 1 is a good start; null turns it off."
        ),
    )
    diversity: float | None = Field(
        default=None,
        ge=1,
        le=100,
        description=(
            "Spread the selection out over so many times the budget of candidates, at most 10,000 "
            "in all, by what is detected in them, so that it does not show one thing again and "
            "again. 4 is a good start; null turns it off."
        ),
    )


class MiAodStrategy(UncertaintyOptions):
    """Select the images with the highest instance-level uncertainty (MI-AOD)."""

    name: Literal["mi-aod"]


class EntropyStrategy(UncertaintyOptions):
    """Select the images with the highest entropy of the classifier; training is the same."""

    name: Literal["entropy"]


class CoreSetStrategy(RequestModel):
    """Select images unlike those that are labeled, by the backbone's features (k-centre greedy)."""

    name: Literal["core-set"]


class RandomStrategy(RequestModel):
    """Select at random, by the cycle's seed: the baseline. Training is the same."""

    name: Literal["random"]


Strategy = Annotated[
    MiAodStrategy | EntropyStrategy | CoreSetStrategy | RandomStrategy,
    Field(
        discriminator="name",
        examples=[{"name": "mi-aod"}, {"name": "mi-aod", "class_balance": 1.0}],
    ),
]

Budget = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_INTEGER,
        description="How many images to select; more than the pool holds means all of it.",
    ),
]

MinLabeled = Annotated[
    int,
    Field(
        ge=1,
        le=MAX_INTEGER,
        description=(
            "The cycle trains when at least so many labeled pool images have a box; otherwise it "
            "is `initial` and selects at random."
        ),
    ),
]

Training = Annotated[
    dict[str, Any],
    Field(
        description=(
            "`preset` and overrides of its fields; an unknown field or a value out of range is "
            "refused. Without a preset the server's default one is taken."
        ),
        examples=[{"preset": "cpu", "image_long_side": 320}],
    ),
]


class CycleDefaults(RequestModel):
    """What `POST /cycles` takes when the request does not say; each may be absent."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"budget": 50, "strategy": {"name": "mi-aod"}}]}
    )

    budget: Budget | None = None
    strategy: Strategy | None = None
    training: Training | None = None
    min_labeled: MinLabeled | None = None


class CycleIn(RequestModel):
    """A new cycle. What is absent comes from the project's `cycle_defaults`."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "project": EXAMPLE_ID,
                    "budget": 50,
                    "strategy": {"name": "mi-aod"},
                    "training": {"preset": "cpu"},
                    "seed": 1,
                }
            ]
        }
    )

    project: EntityId
    budget: Budget | None = None
    strategy: Strategy | None = None
    training: Training | None = Field(
        default=None, description="Merged over the project's defaults, field by field."
    )
    seed: int | None = Field(
        default=None,
        ge=0,
        le=MAX_INTEGER,
        description="Of every random choice in the cycle; drawn and stored when absent.",
    )
    min_labeled: MinLabeled | None = None


class ClassMetrics(BaseModel):
    """Average precision of one class; null where the validation set has no box of it."""

    model_config = ConfigDict(populate_by_name=True, serialize_by_alias=True, extra="allow")

    class_name: str = Field(alias="class")
    ap50: float | None = Field(default=None, description="Area under the curve, IoU 0.5.")
    ap50_voc07: float | None = Field(default=None, description="11-point, IoU 0.5.")
    ap: float | None = Field(default=None, description="COCO's mean over IoU 0.5 to 0.95.")
    num_boxes: int | None = Field(
        default=None, description="Boxes in the validation set that count (not difficult)."
    )


class Metrics(BaseModel):
    """How good the cycle's model is on the validation set."""

    model_config = ConfigDict(extra="allow")

    map50: float | None = Field(
        default=None,
        description="Mean over classes of area-under-the-curve AP at IoU 0.5, difficult ignored.",
    )
    map50_voc07: float | None = Field(default=None, description="The 11-point form of VOC 2007.")
    map: float | None = Field(default=None, description="COCO's mean over IoU 0.5 to 0.95.")
    per_class: list[ClassMetrics] = Field(default_factory=list)
    validation_images: int | None = Field(
        default=None, description="How many labeled validation images it was measured on."
    )
    validation_sha256: str | None = Field(
        default=None, description="Changes when the validation set or its labels change."
    )


class SnapshotCounts(BaseModel):
    """What the cycle saw when it started."""

    model_config = ConfigDict(extra="allow")

    labeled_images: int | None = Field(
        default=None, description="Labeled pool images, which it trains on."
    )
    boxes: int | None = Field(default=None, description="Their boxes.")
    pool_images: int | None = Field(default=None, description="Unlabeled pool images.")
    validation_images: int | None = Field(default=None, description="Labeled validation images.")


class RunningStage(BaseModel):
    """Where the stage is that a running cycle is at; all null while no stage runs."""

    step: int | None = Field(
        default=None, description="Steps of the stage that are done: training steps, or images."
    )
    steps: int | None = Field(default=None, description="Steps of the stage in all.")
    losses: dict[str, float] | None = Field(
        default=None, description="Each loss by name, the mean over the last training steps."
    )
    seconds_left: float | None = Field(
        default=None,
        description=(
            "How long the cycle will still take, by the speed of its stage and what is left to do; "
            "null until that is known."
        ),
    )


class CycleEventOut(RunningStage):
    """What an event of a cycle carries: the moving part of the cycle just after."""

    cycle: str
    seq: int = Field(description="The event's number in its cycle; rises, 1 is the first.")
    kind: Literal["state", "progress"] = Field(
        description="`state`: queued, taken, lost, given back, to be cancelled, ended, resumed."
    )
    at: datetime
    state: CycleState
    progress: float = Field(description="0 to 1; never falls, however often the cycle is resumed.")
    stage: str | None
    message: str = Field(description="What it does, or what it waits for.")
    error: str | None = Field(description="Why it failed.")
    attempts: int = Field(description="How often a worker was lost since the last checkpoint.")
    worker: str | None = Field(description="The worker that has or had it.")
    cancel_requested: bool

    @classmethod
    def of(cls, event: CycleEvent) -> Self:
        """From the row."""
        return cls.model_validate(
            {
                **event.data,
                "cycle": event.cycle_id,
                "seq": event.seq,
                "kind": event.kind,
                "at": event.created_at,
            }
        )


class CycleOut(RunningStage):
    """A cycle."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "019ab3a2-1b7c-7e4f-9c3d-0f8a6d2b4c55",
                    "project": EXAMPLE_ID,
                    "number": 2,
                    "kind": "trained",
                    "state": "running",
                    "budget": 50,
                    "strategy": {"name": "mi-aod"},
                    "training": {"preset": "cpu", "image_long_side": 320},
                    "seed": 1,
                    "min_labeled": 1,
                    "progress": 0.4,
                    "stage": "train",
                    "message": "label 2/3, step 40/60, loss 0.412",
                    "step": 140,
                    "steps": 240,
                    "losses": {"total": 0.412, "classification": 0.287, "box": 0.125},
                    "seconds_left": 341.0,
                    "metrics": None,
                    "error": None,
                    "snapshot": {
                        "labeled_images": 50,
                        "boxes": 212,
                        "pool_images": 930,
                        "validation_images": 20,
                    },
                    "num_selected": None,
                    "model": None,
                    "worker": "019ab39f-02d8-7a61-b1c4-7e5f3a8d9c20",
                    "attempts": 0,
                    "cancel_requested": False,
                    "created_at": "2026-11-23T08:00:00Z",
                    "started_at": "2026-11-23T08:00:01Z",
                    "finished_at": None,
                }
            ]
        }
    )

    id: str
    project: str
    number: int = Field(description="1 for the project's first cycle.")
    kind: Literal["initial", "trained"] = Field(
        description="`initial` selects at random, because too little is labeled to train on."
    )
    state: CycleState
    budget: int
    strategy: dict[str, Any]
    training: dict[str, Any] = Field(description="The resolved configuration, every field.")
    seed: int
    min_labeled: int
    progress: float = Field(description="0 to 1.")
    stage: str | None = Field(description="What it does or did last, such as `train` or `score`.")
    message: str = Field(description="What it does, or what it waits for.")
    metrics: Metrics | None = Field(
        description=(
            "Null until a trained cycle has been evaluated; `map50` in it is null where no "
            "validation image is labeled (the message says so)."
        )
    )
    error: str | None = Field(description="Why it failed.")
    snapshot: SnapshotCounts | None
    num_selected: int | None = Field(description="How many images became queries.")
    model: str | None = Field(description="The model it trained.")
    worker: str | None = Field(description="The worker that has or had it.")
    attempts: int = Field(description="How often a worker was lost while it ran.")
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None

    @classmethod
    def of(cls, view: CycleView) -> Self:
        """From the service's view."""
        cycle = view.cycle
        return cls.model_validate(
            {
                "id": cycle.id,
                "project": cycle.project_id,
                "number": cycle.number,
                "kind": cycle.kind,
                "state": cycle.state,
                "budget": cycle.budget,
                "strategy": cycle.strategy,
                "training": cycle.training,
                "seed": cycle.seed,
                "min_labeled": cycle.min_labeled,
                "progress": cycle.progress,
                "stage": cycle.stage,
                "message": view.message,
                **(cycle.detail or {}),
                "metrics": cycle.metrics,
                "error": cycle.error,
                "snapshot": cycle.snapshot,
                "num_selected": cycle.num_selected,
                "model": view.model_id,
                "worker": cycle.worker_id,
                "attempts": cycle.attempts,
                "cancel_requested": cycle.cancel_requested,
                "created_at": cycle.created_at,
                "started_at": cycle.started_at,
                "finished_at": cycle.finished_at,
            }
        )


class CycleMetricsOut(BaseModel):
    """A cycle's metrics, or why it has none."""

    cycle: str
    state: CycleState
    metrics: Metrics | None
    message: str


class ScoredImage(BaseModel):
    """The image of a score."""

    id: str
    name: str
    ordinal: int


class ScoreOut(BaseModel):
    """What a cycle thinks of an unlabeled image."""

    rank: int = Field(description="1 is the image it would have labeled first.")
    uncertainty: float | None = Field(description="Null: selected at random, or not a number.")
    image: ScoredImage

    @classmethod
    def of(cls, view: ScoreView) -> Self:
        """From the service's view."""
        return cls(
            rank=view.rank,
            uncertainty=view.uncertainty,
            image=ScoredImage(id=view.image_id, name=view.image_name, ordinal=view.ordinal),
        )


class ArtifactOut(BaseModel):
    """A file that a cycle left behind."""

    name: str = Field(examples=["scores.npz"])
    num_bytes: int
    media_type: str
    sha256: str
    url: str

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """From the row."""
        return cls(
            name=artifact.name,
            num_bytes=artifact.num_bytes,
            media_type=artifact.media_type,
            sha256=artifact.sha256,
            url=f"/cycles/{artifact.cycle_id}/artifacts/{artifact.name}",
        )
