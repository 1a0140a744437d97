"""The images of a cycle's snapshot as the algorithm wants them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from server.formats.pictures import PictureRefused, load_rgb8
from server.store.blobs import BlobStore
from server.store.models import Json
from server.store.outage import StorageAway, cause
from server.store.pool import ImageRecord, LabeledRecord
from worker.miaod.samples import Sample


class ImageUnreadable(Exception):
    """An image of the project cannot be read any more; the message names it."""

    @property
    def sentence(self) -> str:
        """The message alone: a loader process puts its traceback before it."""
        return str(self).rpartition(f"{type(self).__name__}: ")[2].strip()


def is_trained_on(box: Json) -> bool:
    """Whether a box is a training target. A difficult one is background, as in the reference."""
    return not box["difficult"]


class SnapshotDataset:
    """Images of a snapshot, decoded from their blobs one at a time.

    Difficult boxes are left out of the targets; evaluation must know them and reads the records.
    """

    def __init__(
        self, blobs: BlobStore, records: Sequence[ImageRecord], *, num_classes: int
    ) -> None:
        """Take records in ascending order of their ordinals; labeled ones bring their boxes."""
        self._blobs = blobs
        self._records = tuple(records)
        self._num_classes = num_classes

    @property
    def ordinals(self) -> Sequence[int]:
        """The ordinal of each image, ascending."""
        return [record.ordinal for record in self._records]

    @property
    def sizes_hw(self) -> Sequence[tuple[int, int]]:
        """Rows and columns of each image, from its record."""
        return [(record.height, record.width) for record in self._records]

    def __len__(self) -> int:
        """Number of images."""
        return len(self._records)

    def load(self, index: int) -> Sample:
        """Decode an image.

        Raises:
            ImageUnreadable: its blob is missing, damaged, or of another size than recorded.
            StorageAway: the storage cannot be read just now.
        """
        record = self._records[index]
        image = torch.from_numpy(self._pixels(record)).permute(2, 0, 1).contiguous()
        boxes, labels, known = [], [], self._num_classes
        if isinstance(record, LabeledRecord):
            known = record.num_classes
            for box in record.boxes:
                if is_trained_on(box):
                    boxes.append([box["x1"], box["y1"], box["x2"], box["y2"]])
                    labels.append(box["class_id"])
        return Sample(
            image=image,
            boxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
            labels=torch.tensor(labels, dtype=torch.int64),
            ordinal=record.ordinal,
            num_known_classes=known,
        )

    def _pixels(self, record: ImageRecord) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
        path = self._blobs.path(record.sha256)
        try:
            pixels = load_rgb8(path)
        except FileNotFoundError as error:
            self._raise_if_away(error)
            raise ImageUnreadable(
                f"the file of image {record.name} is missing: {path} should hold it; restore it "
                "from a backup or delete the image"
            ) from error
        except PictureRefused as error:
            raise ImageUnreadable(
                f"image {record.name} cannot be decoded ({error}); restore {path} from a backup or "
                "delete the image"
            ) from error
        except OSError as error:
            self._raise_if_away(error)
            raise
        if pixels.shape[:2] != (record.height, record.width):
            raise ImageUnreadable(
                f"image {record.name} is {pixels.shape[1]}x{pixels.shape[0]} pixels in {path}, but "
                f"was {record.width}x{record.height} when it came in; restore it from a backup"
            )
        return pixels

    def _raise_if_away(self, error: OSError) -> None:
        """A loader process hands on what its error says, but not the error's number."""
        try:
            self._blobs.raise_if_gone()
        except OSError as gone:
            error = gone
        reason = cause(error, self._blobs.root.parent)
        if reason is not None:
            raise StorageAway(reason) from error
