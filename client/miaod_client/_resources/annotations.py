"""Annotations: the boxes of an image, version by version."""

from collections.abc import Iterable, Mapping
from typing import Any

from pydantic import ValidationError

from miaod_client._resources.base import Resource, path_to, without_none
from miaod_client._transport import parse
from miaod_client._types import Annotation, AnnotationSource, Box

# A box may be given as an object or as the JSON that stands for it.
BoxLike = Box | Mapping[str, Any]


def boxes_as_json(boxes: Iterable[BoxLike]) -> list[dict[str, Any]]:
    """Boxes as the server takes them.

    Raises:
        ValueError: a mapping lacks a field or has one of the wrong type.
    """
    found = []
    for number, box in enumerate(boxes, start=1):
        try:
            found.append(Box.model_validate(box).model_dump(mode="json"))
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"])
            message = f"box {number} is {box}: {place}: {first['msg']}"
            raise ValueError(message) from error
    return found


class Annotations(Resource):
    """The labels of images: `client.annotations`."""

    def get(self, image_id: str) -> Annotation:
        """The current annotation; of an unlabeled image the boxes are `None`."""
        return self._transport.get(Annotation, path_to("images", image_id, "annotations"))

    def put(
        self,
        image_id: str,
        *,
        boxes: Iterable[BoxLike],
        version: int | None = None,
        claim_token: str | None = None,
        seconds: float | None = None,
        author: str | None = None,
        source: AnnotationSource | None = None,
    ) -> Annotation:
        """Replace the full set of boxes; an empty one says that there is nothing to box.

        Args:
            image_id: the image.
            boxes: `Box` objects or their JSON, `{"class": "car", "x1": …}`.
            version: the version these boxes are based on. `None` takes the current one, which
                overwrites whatever somebody else saved before.
            claim_token: that of the claim under which the image is held.
            seconds: time spent.
            author: who did it.
            source: `human`, `import` or `suggestion`.

        Raises:
            ConflictError: somebody saved another version (it is in `current`), or the
                image is under someone else's claim.
            UnprocessableError: a box is outside the image or of an unknown class.
        """
        if version is None:
            version = self.get(image_id).version
        body = without_none(
            version=version,
            boxes=boxes_as_json(boxes),
            claim_token=claim_token,
            seconds=seconds,
            author=author,
            source=source,
        )
        response = self._transport.request(
            "PUT", path_to("images", image_id, "annotations"), json=body
        )
        return parse(Annotation, response)

    def delete(
        self,
        image_id: str,
        *,
        version: int | None = None,
        claim_token: str | None = None,
        author: str | None = None,
    ) -> Annotation:
        """Make the image unlabeled again; its earlier revisions stay on record.

        Args:
            image_id: the image.
            version: only if this is the current version.
            claim_token: that of the claim under which the image is held.
            author: who does it.

        Raises:
            ConflictError: the version is another, or the image is under someone else's claim.
        """
        response = self._transport.request(
            "DELETE",
            path_to("images", image_id, "annotations"),
            params={"version": version, "claim_token": claim_token, "author": author},
        )
        return parse(Annotation, response)
