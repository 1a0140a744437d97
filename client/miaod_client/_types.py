"""What the server answers with, as frozen typed objects.

Fields that a newer server adds are kept as attributes, and states and reasons are plain strings,
so that an older client goes on working. Times are aware datetimes in UTC. Boxes are absolute-pixel
corners of the upright image (EXIF rotation applied), origin top left.
"""

from datetime import datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

Split = Literal["pool", "val", "test"]
ImageState = Literal["unlabeled", "labeled"]
CycleState = Literal["queued", "running", "succeeded", "failed", "cancelled"]
QueryState = Literal["open", "claimed", "labeled", "skipped", "withdrawn"]
AnnotationSource = Literal["human", "import", "suggestion"]
ImportFormat = Literal["auto", "images", "voc", "coco"]
ImportSplit = Literal["pool", "val", "test", "auto"]
ExportFormat = Literal["coco", "voc"]
Rendition = Literal["original", "display"]
Role = Literal["viewer", "annotator", "engineer", "admin"]


class Record(BaseModel):
    """Base of every answer: frozen, tolerant of fields it does not know."""

    model_config = ConfigDict(
        frozen=True, extra="allow", populate_by_name=True, serialize_by_alias=True
    )


class ProjectCounts(Record):
    """How many images a project has, deleted ones left out.

    `labeled`, `unlabeled` and `skipped` are those of the pool; skipped ones are unlabeled too.
    """

    images: int
    labeled: int
    unlabeled: int
    skipped: int
    val: int
    val_labeled: int
    test: int
    test_labeled: int
    boxes: int


class Project(Record):
    """A pool of images, its classes in the order of their ids, and how its cycles run.

    `counts` is filled in by `client.projects.get` and `find`, and `None` elsewhere.
    """

    id: str
    name: str
    classes: list[str]
    instructions: str
    validation_images: int
    cycle_defaults: dict[str, Any]
    created_at: datetime
    counts: ProjectCounts | None = None


class ClassCount(Record):
    """How often a class stands in the current annotations of a project."""

    class_name: str = Field(alias="class")
    boxes: int
    images: int


class AuthorWork(Record):
    """What somebody annotated; `images` and `boxes` count what of it is current.

    `seconds_median` and `seconds_mean` are `None` where no client told how long it took.
    """

    author: str
    annotations: int
    images: int
    boxes: int
    seconds_median: float | None
    seconds_mean: float | None
    last_at: datetime


class Statistics(Record):
    """The labels of a project; `imported` images have theirs from an import."""

    classes: list[ClassCount]
    authors: list[AuthorWork]
    imported: int


class Image(Record):
    """An image; `width` and `height` are those of the upright picture."""

    id: str
    project: str
    ordinal: int
    name: str
    split: str
    state: str
    width: int
    height: int
    media_type: str
    num_bytes: int
    sha256: str
    annotation_version: int
    num_boxes: int
    uncertainty: float | None
    skipped: bool
    skip_reason: str | None
    created_at: datetime
    labeled_at: datetime | None
    content_url: str
    thumbnail_url: str


class Doubt(Record):
    """A labeled image, and how many things only one of its label and the newest model sees."""

    image: Image
    disagreement: float


class Review(Record):
    """Labeled images, those of the most disagreement first."""

    items: list[Doubt]


class UploadedFile(Record):
    """What became of one file: `created`, `duplicate` or `rejected`, with the reason.

    `id` is the image's, for a duplicate that of the one already there, and `None` when rejected.
    """

    name: str
    status: str
    id: str | None = None
    reason: str | None = None


class UploadReport(Record):
    """What became of every file of an upload, in the order sent."""

    items: list[UploadedFile]

    @property
    def created(self) -> list[UploadedFile]:
        """The files that became new images."""
        return [item for item in self.items if item.status == "created"]

    @property
    def duplicates(self) -> list[UploadedFile]:
        """The files that the project had already."""
        return [item for item in self.items if item.status == "duplicate"]

    @property
    def rejected(self) -> list[UploadedFile]:
        """The files that were refused; `reason` says why."""
        return [item for item in self.items if item.status == "rejected"]


class Box(Record):
    """A labeled box. In JSON the class stands under `class`."""

    class_name: str = Field(alias="class")
    x1: float
    y1: float
    x2: float
    y2: float
    difficult: bool = False


class Prediction(Record):
    """A detection of a model; `score` is its confidence, 0 to 1."""

    class_name: str = Field(alias="class")
    score: float
    x1: float
    y1: float
    x2: float
    y2: float

    def as_box(self) -> Box:
        """The same corners and class as a label: for accepting a suggestion."""
        return Box(class_name=self.class_name, x1=self.x1, y1=self.y1, x2=self.x2, y2=self.y2)


class ImagePredictions(Record):
    """What a project's newest model sees on an image; both `None` where nothing was kept."""

    image: str
    cycle: str | None
    predictions: list[Prediction] | None


class Annotation(Record):
    """The full set of boxes of an image.

    `boxes` is `None` while it is unlabeled; an empty list says that there is nothing to box.
    `version` rises with each revision; `seconds` is the time spent on this one.
    """

    state: str
    version: int
    boxes: list[Box] | None
    author: str | None = None
    source: str | None = None
    seconds: float | None = None
    updated_at: datetime | None = None


class ImportRefusal(Record):
    """One item that an import refused."""

    name: str
    reason: str


class ImportCounts(Record):
    """What an import has done so far, in images; `boxes` in boxes."""

    total: int = 0
    created: int = 0
    duplicate: int = 0
    rejected: int = 0
    labeled: int = 0
    boxes: int = 0


class Import(Record):
    """A folder or archive being read into a project; `refused` is the first page only."""

    id: str
    project: str
    state: str
    progress: float
    message: str
    error: str | None
    format: str
    split: str
    counts: ImportCounts
    num_refused: int
    refused: list[ImportRefusal]
    next_cursor: str | None = None
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class ClassMetrics(Record):
    """Average precision of one class; `None` where the validation set has no box of it."""

    class_name: str = Field(alias="class")
    ap50: float | None = None
    ap50_voc07: float | None = None
    ap: float | None = None
    num_boxes: int | None = None


class Metrics(Record):
    """How good a model is on the validation set.

    `map50` is the mean over classes of the area under the curve at IoU 0.5, `map50_voc07` its
    11-point form, `map` COCO's mean over IoU 0.5 to 0.95.
    """

    map50: float | None = None
    map50_voc07: float | None = None
    map: float | None = None
    per_class: list[ClassMetrics] = Field(default_factory=list)
    validation_images: int | None = None
    validation_sha256: str | None = None


class Snapshot(Record):
    """What a cycle saw when it started."""

    labeled_images: int | None = None
    boxes: int | None = None
    pool_images: int | None = None
    validation_images: int | None = None


class RunningStage(Record):
    """Where the stage is that a running cycle is at; all `None` while no stage runs.

    `step` of `steps` are done; `losses` are means over the last training steps; `seconds_left` is
    how long the whole cycle will still take, `None` until that is known.
    """

    step: int | None = None
    steps: int | None = None
    losses: dict[str, float] | None = None
    seconds_left: float | None = None


class Cycle(RunningStage):
    """One round: train, evaluate, score, select. `training` is the resolved configuration."""

    id: str
    project: str
    number: int
    kind: str
    state: str
    budget: int
    strategy: dict[str, Any]
    training: dict[str, Any]
    seed: int
    min_labeled: int
    progress: float
    stage: str | None
    message: str
    metrics: Metrics | None
    error: str | None
    snapshot: Snapshot | None
    num_selected: int | None
    model: str | None
    worker: str | None
    attempts: int
    cancel_requested: bool
    created_at: datetime
    started_at: datetime | None
    finished_at: datetime | None


class CycleEvent(RunningStage):
    """Something that happened to a cycle, as the cycle was just after.

    `seq` numbers the events of a cycle from 1; `kind` is `state` (queued, taken, lost, given back,
    to be cancelled, ended, resumed) or `progress`.
    """

    cycle: str
    seq: int
    kind: str
    at: datetime
    state: str
    progress: float
    stage: str | None
    message: str
    error: str | None
    attempts: int
    worker: str | None
    cancel_requested: bool


class CycleMetrics(Record):
    """A cycle's metrics, or in `message` why it has none."""

    cycle: str
    state: str
    metrics: Metrics | None
    message: str


class ScoredImage(Record):
    """The image of a score."""

    id: str
    name: str
    ordinal: int


class Score(Record):
    """What a cycle thinks of an unlabeled image; rank 1 would have been labeled first."""

    rank: int
    uncertainty: float | None
    image: ScoredImage


class HistogramBin(Record):
    """Images with an uncertainty from `low` to below `high`, and how many of them were selected."""

    low: float
    high: float
    images: int
    selected: int


class Histogram(Record):
    """How uncertain a cycle was of the pool; `unscored` images have no uncertainty."""

    cycle: str
    bins: list[HistogramBin]
    unscored: int


class Preset(Record):
    """A training preset; `training` holds the value of every field."""

    name: str
    training: dict[str, Any]


class TrainingField(Record):
    """A field of the training configuration, with its range or choices if it has any."""

    name: str
    type: str
    description: str
    minimum: float | None = None
    maximum: float | None = None
    choices: list[str | int] | None = None


class Presets(Record):
    """The presets, the one that is taken where none is named, and every field."""

    default: str
    items: list[Preset]
    fields: list[TrainingField]


class Artifact(Record):
    """A file that a cycle left behind."""

    name: str
    num_bytes: int
    media_type: str
    sha256: str
    url: str


class QueryImage(Record):
    """The image of a query; `annotation_version` is what a first annotation must name."""

    id: str
    name: str
    width: int
    height: int
    annotation_version: int
    content_url: str
    thumbnail_url: str


class Query(Record):
    """An image that a cycle asks to have labeled; rank 1 is the most informative."""

    id: str
    cycle: str
    project: str
    image: QueryImage
    rank: int
    uncertainty: float | None
    reason: str
    state: str
    claimed_by: str | None
    claim_expires_at: datetime | None
    predictions: list[Prediction]
    heatmap_url: str | None


class Model(Record):
    """What a succeeded trained cycle trained; `sha256` is `None` once its weights were swept."""

    id: str
    project: str
    cycle: str
    cycle_number: int
    metrics: Metrics
    note: str
    pinned: bool
    num_bytes: int
    sha256: str | None
    checkpoint_url: str | None
    created_at: datetime


class Worker(Record):
    """A worker as it last reported itself; `live` says whether that was lately."""

    id: str
    name: str
    device: str
    version: str
    started_at: datetime
    last_seen: datetime
    seconds_since_seen: float
    live: bool
    cycle: str | None


class Health(Record):
    """The server process answers."""

    status: str
    version: str


class Check(Record):
    """One thing that the server needs."""

    ok: bool
    detail: str


class Readiness(Record):
    """Whether the server can do its work, and what is amiss."""

    ready: bool
    checks: dict[str, Check]


class Key(Record):
    """A key, as far as it is told again; `projects` is `None` for all projects."""

    id: str
    name: str
    role: str
    projects: list[str] | None
    prefix: str
    created_at: datetime
    created_by: str
    last_used_at: datetime | None
    expires_at: datetime | None
    revoked_at: datetime | None


class NewKey(Key):
    """A key that was just made, with the key itself, which is never told again."""

    key: str = Field(repr=False)


class User(Record):
    """Who asks; `id` is that of their key, `None` without one of the server's list."""

    id: str | None
    name: str
    role: str
    projects: list[str] | None


class SessionInfo(Record):
    """Who asks, and whether the server is open to the user of its machine, without keys."""

    user: User
    csrf_token: str | None
    open: bool


class AuditEntry(Record):
    """Who did what, on which object, in which request."""

    id: str
    at: datetime
    key: str | None
    actor: str
    action: str
    project: str | None
    object: str | None
    request_id: str | None
    detail: dict[str, Any]
