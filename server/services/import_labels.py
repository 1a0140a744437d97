"""Labels that come with an import: onto images that have none, for classes that the project has."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from server.formats.boxes import LabeledBox, LabelsRefused
from server.services import images, projects
from server.services.annotations import Revision, current, save

MAX_CLASSES = 1000
MAX_CLASS_NAME = 200


def annotate(session: Session, image_id: str, boxes: Sequence[LabeledBox], *, author: str) -> bool:
    """Annotate an image that is unlabeled; False if it has these very boxes already.

    Raises:
        LabelsRefused: it has others: an import overwrites nobody's work.
        ServiceError: somebody holds it, or a box cannot be.
    """
    image = images.get(session, image_id, for_update=True)
    wanted = [
        {
            "class": box.class_name,
            "x1": box.x1,
            "y1": box.y1,
            "x2": box.x2,
            "y2": box.y2,
            "difficult": box.difficult,
        }
        for box in boxes
    ]
    if image.state == "labeled":
        present = current(session, image_id)
        if present.boxes == wanted:
            return False
        raise LabelsRefused(
            f"image {image.name} is labeled otherwise (version {present.version} by "
            f"{present.author}); make it unlabeled first to replace that"
        )
    revision = Revision(image.annotation_version, wanted, author, source="import")
    save(session, image_id, revision)
    return True


def add_classes(
    session: Session, project_id: str, wanted: Sequence[str], *, default_preset: str
) -> tuple[str, ...]:
    """Append the classes that a project lacks, in this order; gives all that it has then.

    Raises:
        LabelsRefused: one of them can be no class. None was added.
    """
    present = projects.class_names(session, project_id)
    new = tuple(name for name in wanted if name not in present)
    if not new:
        return present
    for name in new:
        if not name or len(name) > MAX_CLASS_NAME or not name.isprintable():
            raise LabelsRefused(
                f"{name[:60]!r} can be no class: 1 to {MAX_CLASS_NAME} printable characters are due"
            )
    if len(present) + len(new) > MAX_CLASSES:
        raise LabelsRefused(f"the project would have more than {MAX_CLASSES} classes")
    changes = projects.Changes(classes=present + new)
    return projects.change(session, project_id, changes, default_preset=default_preset).class_names
