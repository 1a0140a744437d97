"""What a folder holds: pictures, and labels in VOC or COCO layout; found out or told.

* VOC: `JPEGImages`, `Annotations`, `ImageSets/Main`, anywhere below the folder; or XML files beside
  the pictures, or in `annotations` next to `images`.
* COCO: JSON files with `images` and `annotations`, anywhere; pictures below `images`, or anywhere.
* images: every file is taken for a picture.

The name of an image is its path below the folder of the pictures. Where lists of images exist
(VOC's `ImageSets/Main/*.txt`, COCO's one file per split, top folders called `train` or `val`), they
can decide about splits.
"""

from __future__ import annotations

from pathlib import Path

from server.formats.coco_folder import CocoFolder, coco_files_among
from server.formats.dataset import Dataset, Item, LayoutRefused, Reading
from server.formats.folder import list_files
from server.formats.splits import Splits
from server.formats.voc_folder import VocFolder, voc_bases


def read_folder(root: Path, how: Reading) -> Dataset:
    """See what a folder holds. Pictures are not opened, VOC files only when they are needed.

    Raises:
        LayoutRefused: nothing, or not what `how.format` asks for.
    """
    listing = list_files(root)
    files = listing.files
    bases = voc_bases(files)
    json_files = [name for name in files if name.lower().endswith(".json")]
    coco_files = coco_files_among({name: files[name] for name in json_files})
    kind = how.format
    if kind is None:
        has_xml = any(name.lower().endswith(".xml") for name in files)
        kind = "coco" if coco_files else "voc" if bases or has_xml else "images"
    if not files:
        raise LayoutRefused("the folder holds no files that can be read")
    if kind == "voc":
        dataset = VocFolder(files, bases, how).dataset()
    elif kind == "coco":
        dataset = CocoFolder(files, coco_files, how).dataset()
    else:
        dataset = _images(files, how)
    dataset.refusals = listing.refusals + dataset.refusals
    dataset.items.sort(key=lambda item: item.name)
    return dataset


def _images(files: dict[str, Path], how: Reading) -> Dataset:
    dataset = Dataset("images")
    lists = {name: [name.split("/")[0]] for name in files if "/" in name}
    splits = Splits(how.splits, {top for tops in lists.values() for top in tops})
    for name, path in files.items():
        split = splits.of(lists.get(name, []))
        if splits.leave_out(split):
            dataset.num_left_out += 1
        else:
            dataset.items.append(Item(name, path, split))
    return dataset
