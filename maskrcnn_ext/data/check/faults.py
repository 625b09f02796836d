"""The catalogue of faults: every kind with its severity, its title and how to fix it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from maskrcnn_ext.data.check.view import ImageView, ObjectView

# Worst first. An error breaks training or evaluation or trains on wrong labels; a warning may do so; an info is good to know.
SEVERITIES = ("error", "warning", "info")


@dataclass(frozen=True, slots=True)
class FaultKind:
    """A kind of fault: its severity, the title of its section, and how to fix it."""

    severity: str
    title: str
    fix: str


_FIX = "--fix writes a copy"

KINDS = {
    # records and ids
    "record-unreadable": FaultKind("error", "a record that cannot be read", f"correct it; {_FIX} without it"),
    "category-broken": FaultKind("error", "a category lacks its id or name", "add an `id` and a `name`"),
    "category-duplicate": FaultKind("error", "two categories have the same id", f"set different ids; {_FIX} with the first"),
    "category-name-duplicate": FaultKind(
        "warning", "categories with the same name are learned as different classes", "give them one id, or different names"
    ),
    "image-broken": FaultKind("error", "an image's record is incomplete", f"complete it; {_FIX} without it"),
    "image-sizeless": FaultKind("error", "an image's record has no size", f"{_FIX} with the size of the file"),
    "image-id-duplicate": FaultKind(
        "error", "two images have the same id, so their objects cannot be assigned", "set different ids"
    ),
    "file-name-duplicate": FaultKind(
        "error", "two records refer to one file: each has only some of its objects", f"merge them; {_FIX} with one"
    ),
    "annotation-broken": FaultKind("error", "an annotation without an id", f"{_FIX} with a new id"),
    "annotation-id-duplicate": FaultKind(
        "error", "two annotations have the same id", f"{_FIX} with a new id for the later one"
    ),
    "id-type": FaultKind(
        "error", "an id that is a number in one place and a text in another: other tools do not find the object",
        f"{_FIX} with the id of the image or category",
    ),
    "id-types": FaultKind("error", "ids that are numbers beside ids that are texts", f"use one type; {_FIX} with texts"),
    "image-unknown": FaultKind("error", "an annotation of an image that does not exist", f"{_FIX} without it"),
    "category-unknown": FaultKind("error", "an annotation of a category that does not exist", "add the category to the file"),
    "annotation-ignored": FaultKind(
        "error", "an annotation with `ignore`, which Detectron2 does not support", f"use `iscrowd`; {_FIX} with it"
    ),
    "keypoints-broken": FaultKind("error", "keypoints that are not three numbers each", f"{_FIX} without them"),
    "field-broken": FaultKind("error", "an optional field that training cannot read", f"correct it; {_FIX} without it"),
    "class-gap": FaultKind("info", "the category ids have gaps", "nothing to do: Detectron2 numbers the classes from 0"),
    # files
    "image-missing": FaultKind("error", "the image file is missing", f"check --images; {_FIX} without the image"),
    "image-corrupt": FaultKind(
        "error", "the image file cannot be decoded completely", f"copy it again from its source; {_FIX} without the image"
    ),
    "image-large": FaultKind(
        "warning", "an image that is too large to read at once",
        "train on tiles (dataloader.train.dataset._target_=maskrcnn_ext.get_tiled_dataset_dicts), predict in tiles (--tile 1024)",
    ),
    "image-size": FaultKind("error", "the size of the image differs from its record", f"{_FIX} with the size of the file"),
    "exif-rotation": FaultKind(
        "error", "the record has the size before the EXIF rotation, but Detectron2 reads the image after it",
        f"{_FIX} with the size corrected and the objects rotated if they were drawn on the image as stored",
    ),
    "exif-unclear": FaultKind(
        "warning", "an EXIF orientation that does not change the size", "check whether the objects were drawn on the rotated image"
    ),
    # boxes
    "box-broken": FaultKind("error", "a box that is not four finite numbers", f"{_FIX} with the mask's box"),
    "box-degenerate": FaultKind("error", "a box without width or height", f"{_FIX} with the mask's box, or without the object"),
    "box-outside": FaultKind("error", "a box outside its image", f"{_FIX} with the mask's box, or without the object"),
    "box-beyond-image": FaultKind("warning", "a box that extends beyond its image", f"{_FIX} with the box clipped"),
    "box-mask-mismatch": FaultKind("error", "box and mask are in different places", f"{_FIX} with the mask's box"),
    "mask-beyond-box": FaultKind("warning", "a mask that is larger than its box", f"{_FIX} with the mask's box"),
    "boxes-fractions": FaultKind("error", "boxes that are fractions of their image, not pixels", f"{_FIX} with pixels"),
    "box-rotated": FaultKind("warning", "a rotated box, whose rotation other tools ignore", f"{_FIX} with a polygon"),
    # masks
    "segmentation-missing": FaultKind(
        "warning", "an object without a mask among others with one: Detectron2's own mapper may drop all masks of the image",
        "draw the mask; maskrcnn_ext.SafeMapper uses the box as the mask, trains the box alone (missing_masks=box-only), or "
        "leaves the object out (missing_masks=drop)",
    ),
    "segmentation-none": FaultKind("info", "boxes only, no masks", "train a box detector, or add masks"),
    "segmentation-broken": FaultKind(
        "error", "a segmentation that is neither a list of polygons nor an RLE of the image's size", f"{_FIX} with its readable part"
    ),
    "segmentation-parts": FaultKind("error", "a list of RLEs, which other tools cannot read", f"{_FIX} with one RLE"),
    "polygon-short": FaultKind("error", "a polygon with fewer than 3 points", f"{_FIX} without it"),
    "polygon-crossing": FaultKind("warning", "a polygon that crosses itself", f"{_FIX} with a valid outline"),
    "polygon-beyond-image": FaultKind("warning", "a polygon that extends beyond its image", f"{_FIX} with the polygon clipped"),
    "mask-empty": FaultKind("error", "a mask without pixels in its image", f"{_FIX} with the box only, or without the object"),
    "mask-mixed": FaultKind(
        "warning", "polygons and RLEs in one dataset, which Detectron2's default mapper rejects",
        "dataloader.train.mapper.instance_mask_format=bitmask reads both",
    ),
    "masks-rectangles": FaultKind(
        "info", "masks that are rectangles: the mask head learns to predict rectangles",
        "draw outlines, or read drawn rectangles as boxes (rectangles=boxes of labelme and via)",
    ),
    "crowd-polygon": FaultKind("warning", "a crowd that is a polygon, but COCO's tools expect an RLE", f"{_FIX} with an RLE"),
    "area-mismatch": FaultKind(
        "warning", "`area` is missing or differs from the mask, which changes APs, APm and APl", f"{_FIX} with the area of the mask"
    ),
    "instance-duplicate": FaultKind("warning", "an object that is annotated twice", f"{_FIX} without the later one"),
    # pixels seen twice
    "leak-exact": FaultKind(
        "error", "an image that is also in the other dataset, so results on it mean nothing", f"{_FIX} without it"
    ),
    "leak-near": FaultKind(
        "warning", "an image almost equal to one of the other dataset", "look at both; split by scene, patient or video"
    ),
    "image-duplicate": FaultKind("warning", "the same image under two names", "keep one of the two"),
    "image-near-duplicate": FaultKind("info", "two almost equal images", "keep both in one split"),
    # proportions
    "class-empty": FaultKind(
        "warning", "a class without objects: it cannot be learned and its AP is nan",
        "remove it, read only the others (coco:...@only:a,b), or add data",

    ),
    "class-imbalance": FaultKind(
        "warning", "a class with far fewer objects than another", "add data, or use RepeatFactorTrainingSampler"
    ),
    "aspect-extreme": FaultKind("warning", "a very long box", "check it; if it is right, use the suggested anchor ratios"),
    "objects-many": FaultKind(
        "warning", "more objects than the 100 a model returns by default",
        "set model.roi_heads.box_predictor.test_topk_per_image=N, or tile the image",
    ),
    "crowds-only": FaultKind(
        "error", "all objects are crowds (`iscrowd`, `difficult`), on which nothing is trained",
        "if they are single objects, read them as objects: add @crowds:objects to a coco: string, @keep_difficult:true to a voc: string",
    ),
    "images-none": FaultKind("error", "a dataset without images", "check the file and the program that wrote it"),
    "images-empty": FaultKind(
        "info", "images without objects other than crowds", "nothing to do: Detectron2 leaves them out unless filter_empty=False"
    ),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault of a dataset.

    Attributes:
        kind: a key of :data:`KINDS`.
        message: details, with numbers.
        image: the image; None for a fault of the whole dataset.
        object: the annotation; None if the fault does not concern one annotation.
        other: for a duplicate or a leak, the image that `image` is compared with.
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
        """The id of the image, even if no such image exists; None for a fault of the whole dataset."""
        if self.image is not None:
            return self.image.id
        return None if self.object is None else self.object.image_id

    @property
    def annotation_id(self) -> Any:
        return None if self.object is None else self.object.id

    @property
    def where(self) -> str:
        """The place of the fault, such as ``image 3 (b.jpg), annotation 17``; "" for a fault of the whole dataset."""
        parts = []
        if self.image is not None:
            parts.append(f"image {self.image.label}")
        elif self.object is not None:
            parts.append(f"image {self.object.image_id!r}")
        if self.object is not None:
            parts.append(f"annotation {self.object.id!r}")
        return ", ".join(parts)


def object_fault(kind: str, found: ObjectView, message: str) -> Fault:
    """Returns a fault of an annotation and its image."""
    return Fault(kind, message, found.image, found)


def group_by_kind(faults: list[Fault]) -> dict[str, list[Fault]]:
    """Groups faults by kind: errors first, kinds in the order of :data:`KINDS`.

    Example:
        >>> list(group_by_kind([Fault("class-gap", "3 ids from 1 to 9"), Fault("images-none", "`images` is an empty list")]))
        ['images-none', 'class-gap']
    """
    grouped: dict[str, list[Fault]] = {}
    for kind in sorted(KINDS, key=lambda kind: SEVERITIES.index(KINDS[kind].severity)):  # stable
        of_kind = [fault for fault in faults if fault.kind == kind]
        if of_kind:
            grouped[kind] = of_kind
    return grouped
