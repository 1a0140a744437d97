"""The shapes that requests and answers have; one module per resource.

Names end in `In` (a body that creates), `Patch` (a body that changes) and `Out` (an answer).
"""

from server.schemas.annotations import AnnotationIn, AnnotationOut, BoxModel
from server.schemas.audit import AuditEntryOut
from server.schemas.common import EntityId, ErrorOut, FieldProblem, Page
from server.schemas.cycles import (
    ArtifactOut,
    ClassMetrics,
    CycleDefaults,
    CycleEventOut,
    CycleIn,
    CycleMetricsOut,
    CycleOut,
    CycleState,
    Metrics,
    ScoreOut,
)
from server.schemas.histogram import BinOut, HistogramOut
from server.schemas.images import (
    ImageOut,
    ImagePatch,
    ImagePredictionsOut,
    ImageState,
    PredictionOut,
    Split,
    UploadedFile,
    UploadOut,
)
from server.schemas.imports import (
    ImportCounts,
    ImportIn,
    ImportOptions,
    ImportOut,
    ImportRefusalOut,
)
from server.schemas.keys import KeyCreatedOut, KeyIn, KeyOut, KeyPatch
from server.schemas.models import ModelOut, ModelPatch
from server.schemas.operations import CheckOut, HealthOut, ReadinessOut, WorkerOut
from server.schemas.presets import PresetOut, PresetsOut, TrainingFieldOut
from server.schemas.projects import (
    ProjectCountsOut,
    ProjectDetailOut,
    ProjectIn,
    ProjectOut,
    ProjectPatch,
)
from server.schemas.queries import (
    ClaimIn,
    ClaimOut,
    HeartbeatIn,
    HeartbeatOut,
    QueryImage,
    QueryOut,
    QueryState,
    ReleaseIn,
    SkipIn,
)
from server.schemas.review import DoubtOut, ReviewOut
from server.schemas.session import SessionOut, SignInIn, UserOut
from server.schemas.statistics import AuthorWorkOut, ClassCountOut, StatisticsOut

__all__ = [
    "AnnotationIn",
    "AnnotationOut",
    "ArtifactOut",
    "AuditEntryOut",
    "AuthorWorkOut",
    "BinOut",
    "BoxModel",
    "CheckOut",
    "ClaimIn",
    "ClaimOut",
    "ClassCountOut",
    "ClassMetrics",
    "CycleDefaults",
    "CycleEventOut",
    "CycleIn",
    "CycleMetricsOut",
    "CycleOut",
    "CycleState",
    "DoubtOut",
    "EntityId",
    "ErrorOut",
    "FieldProblem",
    "HealthOut",
    "HeartbeatIn",
    "HeartbeatOut",
    "HistogramOut",
    "ImageOut",
    "ImagePatch",
    "ImagePredictionsOut",
    "ImageState",
    "ImportCounts",
    "ImportIn",
    "ImportOptions",
    "ImportOut",
    "ImportRefusalOut",
    "KeyCreatedOut",
    "KeyIn",
    "KeyOut",
    "KeyPatch",
    "Metrics",
    "ModelOut",
    "ModelPatch",
    "Page",
    "PredictionOut",
    "PresetOut",
    "PresetsOut",
    "ProjectCountsOut",
    "ProjectDetailOut",
    "ProjectIn",
    "ProjectOut",
    "ProjectPatch",
    "QueryImage",
    "QueryOut",
    "QueryState",
    "ReadinessOut",
    "ReleaseIn",
    "ReviewOut",
    "ScoreOut",
    "SessionOut",
    "SignInIn",
    "SkipIn",
    "Split",
    "StatisticsOut",
    "TrainingFieldOut",
    "UploadOut",
    "UploadedFile",
    "UserOut",
    "WorkerOut",
]
