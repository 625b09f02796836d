"""A dataset as the checks see it: COCO records read leniently. It never fails; a field that cannot be read is None, and reported later."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from maskrcnn_ext.data.check.segmentation import Segmentation, parse_segmentation
from maskrcnn_ext.data.formats.coco_annotations import parse_crowd, parse_points
from maskrcnn_ext.data.formats.coco_fields import (
    Box,
    ById,
    is_number,
    read_box,
    read_id,
    read_rotated_box,
    read_side,
    read_text,
)
from maskrcnn_ext.data.formats.coco_records import parse_keypoint_names, parse_labelled_classes, parse_skeleton
from maskrcnn_ext.data.formats.file_names import parse_name, path_below
from maskrcnn_ext.data.formats.image_folder import ImageFolder
from maskrcnn_ext.errors import InputError

# From a segmentation, and the height and width of its image.
Parser = Callable[[Any, int | None, int | None], Segmentation]

# The key of a record's `extra` in the mapping of a dataset that is not COCO; no COCO file has it.
EXTRA = "maskrcnn_ext.extra"


@dataclass(slots=True, eq=False)
class ImageView:
    """One image.

    Attributes:
        index: its position in the list of the file.
        id: a number or a text; None for any other value.
        file_name: as in the record; None if it is empty or not a text.
        path: path of the file; None if the name is missing or leads out of the image folder.
        height: in pixels, as in the record; None if it is not a whole number above 0.
        width: as height.
        extra: distinguishes records of the same file, such as the slices of a volume; empty for an ordinary image.
    """

    index: int
    id: int | float | str | None
    file_name: str | None
    path: Path | None
    height: int | None
    width: int | None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """Returns how messages name the image: by its id and file, ``3 (b.jpg)``, or ``'b.jpg'`` if they are the same."""
        return repr(self.id) if self.id == self.file_name else f"{self.id!r} ({self.file_name})"

    @property
    def key(self) -> tuple[Path | None, str]:
        """Returns a key that is equal for records of the same pixels."""
        return self.path, repr(self.extra) if self.extra else ""


@dataclass(slots=True, eq=False)
class ObjectView:
    """One annotation.

    Attributes:
        index: its position in the list of the file.
        id: None if it is neither a number nor a text.
        image_id: as in the record, of any type.
        image: None if no image has that id.
        category: index into the view's classes; None if the category is missing.
        category_id: as in the record, of any type.
        box: (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; None if `bbox` is not four finite numbers.
        rotated: the polygon of a rotated box; None for any other object.
        segmentation: the mask, as far as it can be read.
        crowd: whether it is a group of objects.
        ignored: whether ``ignore`` is set, which Detectron2 does not know.
        area: as in the record, in pixels; None if it is not a number.
        num_keypoint_values: how many numbers `keypoints` has; None without keypoints, -1 if they are not numbers.
    """

    index: int
    id: int | float | str | None
    image_id: Any
    image: ImageView | None
    category: int | None
    category_id: Any
    box: Box | None
    rotated: list[float] | None
    segmentation: Segmentation
    crowd: bool
    ignored: bool
    area: float | None
    num_keypoint_values: int | None


@dataclass(frozen=True, slots=True)
class BrokenField:
    """An optional field that training cannot read.

    Attributes:
        records: name of the list that has its record.
        index: of the record in the list.
        names: of the field, and of those that mean nothing without it.
        problem: what is wrong, such as "has the `keypoints` 17, expected a list of names".
    """

    records: str
    index: int
    names: tuple[str, ...]
    problem: str


@dataclass(slots=True, eq=False)
class DatasetView:
    """A whole data set; `categories` has one (id, name) a record, None for missing ones; `class_ids` has the id of each class."""

    name: str
    categories: list[tuple[Any, Any]]
    classes: list[str]
    class_ids: list[Any]
    num_keypoint_values: int
    images: list[ImageView]
    objects: list[ObjectView]
    of_image: dict[int, list[ObjectView]] = field(default_factory=dict)
    broken_fields: list[BrokenField] = field(default_factory=list)

    def objects_of(self, image: ImageView) -> list[ObjectView]:
        return self.of_image.get(image.index, [])


def view_dataset(data: dict[str, Any], folder: Path, name: str, parse: Parser = parse_segmentation) -> DatasetView:
    """Reads the records of a COCO mapping leniently.

    Args:
        data: a mapping with the lists ``images``, ``annotations`` and ``categories``; their records may have any content.
        folder: the folder that file names are relative to.
        name: name of the dataset, for messages.
        parse: reads a segmentation.
    """
    categories = [(read_id(entry, "id"), read_text(entry, "name")) for entry in data["categories"]]
    ordered = sorted({own: name for own, name in reversed(categories) if own is not None}.items(), key=_by_id)
    to_index = ById((own, index) for index, (own, _) in enumerate(ordered))
    place = ImageFolder(folder)
    images = [_image(index, entry, place) for index, entry in enumerate(data["images"])]
    by_id = ById((image.id, image) for image in reversed(images) if image.id is not None)
    objects = [_object(index, entry, by_id, to_index, parse) for index, entry in enumerate(data["annotations"])]
    of_image = defaultdict(list)
    for found in objects:
        if found.image is not None:
            of_image[found.image.index].append(found)
    keypoints = [
        entry["keypoints"] for entry in data["categories"] if isinstance(entry, dict) and entry.get("keypoints")
    ]
    return DatasetView(
        name=name,
        categories=categories,
        classes=[str(own if name is None else name) for own, name in ordered],
        class_ids=[own for own, _ in ordered],
        num_keypoint_values=3 * len(keypoints[0]) if keypoints and isinstance(keypoints[0], list) else 0,
        images=images,
        objects=objects,
        of_image=dict(of_image),
        broken_fields=list(_broken_fields(data, to_index)),
    )


def _broken_fields(data: dict[str, Any], index_of: ById[int]) -> Iterator[BrokenField]:
    parsers: list[tuple[str, tuple[str, ...], Callable[[dict[str, Any]], object]]] = [
        ("categories", ("keypoints",), parse_keypoint_names),
        ("categories", ("skeleton",), parse_skeleton),
        ("images", ("labelled_category_ids",), lambda image: parse_labelled_classes(image, index_of)),
        ("annotations", ("iscrowd",), parse_crowd),
        ("annotations", ("point_coords", "point_labels"), parse_points),
    ]
    for records, names, parse in parsers:
        for index, entry in enumerate(data[records]):
            if isinstance(entry, dict) and entry.get(names[0]) is not None:
                try:
                    parse(entry)
                except InputError as error:
                    yield BrokenField(records, index, names, str(error))


def have_two_types(ids: Iterable[Any]) -> bool:
    """Returns whether some ids are numbers and others texts; None is no id."""
    return len({isinstance(own, str) for own in ids if own is not None}) == 2


def _by_id(category: tuple[Any, Any]) -> tuple[bool, Any]:
    """Sort key: numbers before texts."""
    return isinstance(category[0], str), category[0]


def _image(index: int, entry: Any, folder: ImageFolder) -> ImageView:
    file_name = read_text(entry, "file_name")
    record = entry if isinstance(entry, dict) else {}
    return ImageView(
        index=index,
        id=read_id(entry, "id"),
        file_name=file_name,
        path=_path_in(folder, file_name),
        height=read_side(record.get("height")),
        width=read_side(record.get("width")),
        extra=record.get(EXTRA, {}),
    )


def _path_in(folder: ImageFolder, name: Any) -> Path | None:
    """Returns the path of a file name in an annotation file; None if it is no name, or leads out of the folder."""
    try:
        path = path_below(folder.folder, name, "")
    except InputError:
        return None
    return path if folder.has(str(path)) else folder.find(parse_name(name, "")) or path


def _object(index: int, entry: Any, images: ById[ImageView], classes: ById[int], parse: Parser) -> ObjectView:
    record = entry if isinstance(entry, dict) else {}
    image_id, category_id = read_id(record, "image_id"), read_id(record, "category_id")
    image = images.get(image_id)
    size = (image.height, image.width) if image is not None else (None, None)
    area, keypoints = record.get("area"), record.get("keypoints")
    rotated = read_rotated_box(record)
    box = read_box(record.get("bbox"))
    if rotated is not None:
        box = (min(rotated[0::2]), min(rotated[1::2]), max(rotated[0::2]), max(rotated[1::2]))
    are_readable = isinstance(keypoints, list) and all(map(is_number, keypoints))
    return ObjectView(
        index=index,
        id=read_id(record, "id"),
        image_id=record.get("image_id"),
        image=image,
        category=classes.get(category_id),
        category_id=record.get("category_id"),
        box=box,
        rotated=rotated,
        segmentation=parse(record.get("segmentation") or (None if rotated is None else [rotated]), *size),
        crowd=record.get("iscrowd") == 1,
        ignored=bool(record.get("ignore")),
        area=float(area) if area is not None and is_number(area) else None,
        num_keypoint_values=(len(keypoints) if are_readable else -1) if keypoints else None,
    )
