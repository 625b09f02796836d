"""What can be wrong with a data set: every kind of fault with its severity and its mend."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskrcnn_ext.data.check.view import ImageView, ObjectView

# From bad to harmless. An error breaks training or evaluation, or teaches something false; a warning may; an info is worth knowing.
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault: what it is called in a heading, how bad it is, and how to mend it."""

    severity: str
    title: str
    fix: str


_FIX = "--fix writes a copy"
_BITMASK = "dataloader.train.mapper.instance_mask_format=bitmask reads both"

KINDS = {
    # records and ids
    "category-broken": Kind("error", "a category lacks its id or name", "give it an `id` and a `name`"),
    "category-duplicate": Kind("error", "two categories have one id", f"give each its own; {_FIX} with the first"),
    "image-broken": Kind("error", "an image's record lacks what it needs", f"complete it; {_FIX} without it"),
    "image-sizeless": Kind("error", "an image's record does not say how large it is", f"{_FIX} with the file's size"),
    "image-id-duplicate": Kind(
        "error", "two images have one id, so that nobody can tell whose the objects are", "give each image its own id"
    ),
    "file-name-duplicate": Kind(
        "error", "two records are of one file: each has only a part of its objects", f"merge them; {_FIX} with one"
    ),
    "annotation-broken": Kind("error", "an annotation's record lacks what it needs", f"complete it; {_FIX} without it"),
    "annotation-id-duplicate": Kind("error", "two annotations have one id", f"{_FIX} with a new id for the later"),
    "image-unknown": Kind("error", "an annotation of an image that is not there", f"{_FIX} without it"),
    "category-unknown": Kind("error", "an annotation of a category that is not there", "add the category to the file"),
    "annotation-ignored": Kind(
        "error", "an annotation that is to be ignored, which Detectron2 does not do", f"use `iscrowd`; {_FIX} with that"
    ),
    "keypoints-broken": Kind("error", "keypoints that are not three numbers each", f"{_FIX} without them"),
    "class-gap": Kind("info", "the category ids have gaps", "nothing: Detectron2 numbers classes from 0 by itself"),
    # files
    "image-missing": Kind("error", "the image file is not there", f"check --images; {_FIX} without the image"),
    "image-corrupt": Kind("error", "the image file cannot be decoded to its end", f"fetch it again; {_FIX} without the image"),
    "image-size": Kind("error", "the image has another size than its record says", f"{_FIX} in the file's size"),
    "exif-rotation": Kind(
        "error", "the record has the size before the EXIF rotation, Detectron2 reads the image after it",
        f"{_FIX} with size and objects turned",
    ),
    "exif-unclear": Kind(
        "warning", "an EXIF orientation that the size does not show", "look whether the objects lie on the turned image"
    ),
    # boxes
    "box-broken": Kind("error", "no box of four finite numbers", f"{_FIX} with the mask's box"),
    "box-degenerate": Kind("error", "a box without width or height", f"{_FIX} with the mask's box, or without the object"),
    "box-outside": Kind("error", "a box outside of its image", f"{_FIX} with the mask's box, or without the object"),
    "box-beyond-image": Kind("warning", "a box that leaves its image", f"{_FIX} with the box clipped"),
    "box-mask-mismatch": Kind("error", "box and mask are of different places", f"{_FIX} with the mask's box"),
    "mask-beyond-box": Kind("warning", "a mask that is larger than its box", f"{_FIX} with the mask's box"),
    # masks
    "segmentation-missing": Kind(
        "error", "an object without mask among others that have one: Detectron2 may drop the masks of the whole image",
        f"draw it; {_FIX} without the object",
    ),
    "segmentation-none": Kind("info", "boxes only, no masks", "train a box detector, or add masks"),
    "segmentation-broken": Kind(
        "error", "a segmentation that is neither a list of polygons nor an RLE of the image's size", f"{_FIX} of what can be read"
    ),
    "polygon-short": Kind("error", "a polygon with fewer than 3 points", f"{_FIX} without it"),
    "polygon-crossing": Kind("warning", "a polygon that crosses itself", f"{_FIX} with a valid outline"),
    "polygon-beyond-image": Kind("warning", "a polygon that leaves its image", f"{_FIX} with the polygon clipped"),
    "mask-empty": Kind("error", "a mask without a pixel in its image", f"{_FIX} without the object"),
    "mask-mixed": Kind("warning", "polygons and RLEs in one set, which Detectron2's default mapper refuses", _BITMASK),
    "crowd-polygon": Kind("warning", "a crowd that is a polygon, where COCO's tools expect an RLE", f"{_FIX} with an RLE"),
    "area-mismatch": Kind("warning", "`area` is missing or not the mask's, which shifts APs, APm and APl", f"{_FIX} with the mask's"),
    "instance-duplicate": Kind("warning", "an object that is annotated twice", f"{_FIX} without the later one"),
    # pixels seen twice
    "leak-exact": Kind("error", "an image of the other set: its results mean nothing", f"{_FIX} without it"),
    "leak-near": Kind("warning", "almost an image of the other set", "look at both; split by scene, patient or video"),
    "image-duplicate": Kind("warning", "the same image under two names", "keep one of the two"),
    "image-near-duplicate": Kind("info", "almost the same image twice", "keep both of them in one split"),
    # proportions
    "class-empty": Kind("warning", "a class without objects: it cannot be learned and its AP is nan", "remove it, or add data"),
    "class-imbalance": Kind(
        "warning", "a class with far fewer objects than another", "add data, or a RepeatFactorTrainingSampler"
    ),
    "aspect-extreme": Kind("warning", "a box that is very long", "check it; wider anchors: see the suggested ratios"),
    "objects-many": Kind(
        "warning", "more objects than the 100 a model returns by default",
        "model.roi_heads.box_predictor.test_topk_per_image=N, or tile the image",
    ),
    "images-none": Kind("error", "a data set without images", "check the file, and what wrote it"),
    "images-empty": Kind("info", "images without objects", "Detectron2 leaves them out unless filter_empty=False"),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong.

    Attributes:
        kind: a key of :data:`KINDS`.
        message: what there is, with its numbers.
        image: where, if it is of one image.
        object: which, if it is of one annotation.
        other: the image that it is compared with, of a duplicate or a leak.
    """

    kind: str
    message: str
    image: ImageView | None = None
    object: ObjectView | None = None
    other: ImageView | None = None

    @property
    def severity(self) -> str:
        return KINDS[self.kind].severity

    @property
    def fix(self) -> str:
        return KINDS[self.kind].fix

    @property
    def image_id(self) -> Any:
        """The id of the image; what the annotation gives as such where there is no such image; None for a fault of the whole set."""
        if self.image is not None:
            return self.image.id
        return None if self.object is None else self.object.image_id

    @property
    def annotation_id(self) -> Any:
        return None if self.object is None else self.object.id

    @property
    def where(self) -> str:
        """Such as ``image 3 (b.jpg), annotation 17``; "" for a fault of the whole set."""
        parts = []
        if self.image is not None:
            parts.append(f"image {self.image.id!r} ({self.image.file_name})")
        elif self.object is not None:
            parts.append(f"image {self.object.image_id!r}")
        if self.object is not None:
            parts.append(f"annotation {self.object.id!r}")
        return ", ".join(parts)


def object_fault(kind: str, found: ObjectView, message: str) -> Fault:
    """Returns a fault of an annotation, and so of its image."""
    return Fault(kind, message, found.image, found)


def group_by_kind(faults: list[Fault]) -> dict[str, list[Fault]]:
    """Groups faults by kind: errors first, the kinds in the order of :data:`KINDS`, the faults of a kind in their own."""
    grouped: dict[str, list[Fault]] = {}
    for kind in sorted(KINDS, key=lambda kind: SEVERITIES.index(KINDS[kind].severity)):  # stable
        of_kind = [fault for fault in faults if fault.kind == kind]
        if of_kind:
            grouped[kind] = of_kind
    return grouped
