"""What is registered of a data set: which reader, with which arguments. It is read when Detectron2 asks for it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.gc_pause import gc_paused
from maskrcnn_ext.data.formats import get_format
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.registry.dicts import to_dicts
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def dataset_root() -> Path:
    """Returns the folder below which relative data-set paths are looked up."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


@dataclass(frozen=True)
class Source:
    """A data set that can be read; called without arguments it is the function that Detectron2's catalogue wants.

    Attributes:
        name: of the data set.
        format: one of :data:`maskrcnn_ext.data.formats.FORMATS`.
        classes: class names, empty where the format brings its own.
        layout: the folder layout to show when the data is not found.
        root: the folder below which relative paths are; :func:`dataset_root` when None.
        options: what the format's reader takes.
        colors: (R, G, B) of class names, from 0 to 255, that pictures are to be drawn with; empty for any.
        select: picks this data set's records out of all that are read; None keeps all.
        skeleton: of the objects' keypoints; None for what the format says.
    """

    name: str
    format: str
    classes: tuple[str, ...] = ()
    layout: str = ""
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    colors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    select: Callable[[list[ImageRecord]], list[ImageRecord]] | None = None
    skeleton: Skeleton | None = None

    def check(self) -> None:
        """Checks the arguments; reads nothing.

        Raises:
            InputError: an unknown format, options that it does not take or lacks, or colours of other classes.
        """
        if self.classes and self.colors and set(self.colors) != set(self.classes):
            raise InputError(
                f"data set {self.name}: `colors` are of {', '.join(self.colors)}, `classes` are {', '.join(self.classes)}"
            )
        try:
            options = get_format(self.format).options
        except InputError as error:
            raise InputError(f"data set {self.name}: {error}") from None
        names = [option.name for option in options]
        for name in self.options:
            if name not in names:
                raise InputError(
                    f"data set {self.name}: format {self.format} takes no `{name}` (it takes {', '.join(names)})"
                )
        for option in options:
            if option.required and self.options.get(option.name) is None:
                raise InputError(f"data set {self.name}: format {self.format} needs `{option.name}`")

    def describe(self) -> str:
        """Returns a text that is the same in every process for the same data: functions by name, without their address."""
        options = sorted((key, _told(value)) for key, value in self.options.items())
        selected = [_told(self.select)] if self.select else []
        drawn = [self.skeleton] if self.skeleton else []
        return repr((self.format, self.classes, *([str(self.root)] if self.root else []), *options, *selected, *drawn))

    def path_of(self, option: str) -> Path:
        """Returns where an option that is a path leads."""
        return (self.root or dataset_root()) / Path(self.options[option]).expanduser()

    def paths(self) -> dict[str, Path]:
        """Returns the files and folders of the data set by the names of their options."""
        options = get_format(self.format).options
        return {
            option.name: self.path_of(option.name)
            for option in options
            if option.is_path and self.options.get(option.name) is not None
        }

    def read(self) -> DataSet:
        """Reads the records.

        Raises:
            InputError: data that is not there, or that the reader refuses.
        """
        paths = self.paths()
        for path in paths.values():
            if not os.path.exists(path):  # noqa: PTH110, pathlib's raises where a name is too long or a folder closed
                raise InputError(not_found(self.name, path, self.layout, self.root))
        try:
            data = get_format(self.format).read(**{**self.options, **paths}, classes=self.classes or None)
        except InputError as error:
            raise InputError(f"data set {self.name}: {error}") from error
        except (
            OSError
        ) as error:  # a folder where a file is expected, one that is closed to this user, a disk that fails
            raise InputError(f"data set {self.name}: {error.filename}: {error.strerror}") from error
        flat = [
            record.image_id
            for record in data.images
            for annotation in record.annotations
            if annotation.box[0] >= annotation.box[2] or annotation.box[1] >= annotation.box[3]
        ]
        if flat:
            told = f"{len(flat)} objects have no area or lie outside of their image, such as one of image {flat[0]!r}"
            logger.warning("data set %s: %s; see maskrcnn-ext check-data", self.name, told)
        if self.skeleton:
            data = self._with_skeleton(data, self.skeleton)
        return replace(data, images=self.select(data.images)) if self.select else data

    def _with_skeleton(self, data: DataSet, skeleton: Skeleton) -> DataSet:
        """The data with the names and links of the registered skeleton, checked against what the format says."""
        names = list(skeleton.names)
        if data.keypoints and data.keypoints != names:
            raise InputError(
                f"data set {self.name}: `skeleton` is of {', '.join(names)}, but the keypoints are {', '.join(data.keypoints)}"
            )
        for record in data.images:
            for annotation in record.annotations:
                if annotation.keypoints is not None and len(annotation.keypoints) != 3 * len(names):
                    raise InputError(
                        f"data set {self.name}: `skeleton` has {len(names)} keypoints, but an object of image {record.image_id!r} has "
                        f"{len(annotation.keypoints) // 3}"
                    )
        return replace(data, keypoints=names, skeleton=[(names.index(a), names.index(b)) for a, b in skeleton.links])

    def class_metadata(self, classes: Sequence[str]) -> dict[str, list[Any]]:
        """Returns what Detectron2's metadata holds of classes: names, and colours where every class has one."""
        found: dict[str, list[Any]] = {"thing_classes": list(classes)}
        if self.colors and set(classes) <= set(self.colors):
            found["thing_colors"] = [list(self.colors[name]) for name in classes]
        return found

    def __call__(self) -> list[dict[str, Any]]:
        """Returns Detectron2's standard dicts, and tells its metadata what the file says of classes and keypoints."""
        from detectron2.data import MetadataCatalog

        with gc_paused():
            data = self.read()
            metadata = MetadataCatalog.get(self.name)
            if not metadata.get("thing_classes"):
                metadata.set(**self.class_metadata(data.classes))
            if data.category_ids is not None:
                own_ids = {own: index for index, own in enumerate(data.category_ids)}
                metadata.set(thing_dataset_id_to_contiguous_id=own_ids)
            if data.keypoints and not self.skeleton:
                metadata.set(**self._skeleton_of(data).metadata())
            return to_dicts(data)

    def _skeleton_of(self, data: DataSet) -> Skeleton:
        """What the format itself says of the keypoints."""
        names, links = data.keypoints, data.skeleton
        if not all(len({a, b} & set(range(len(names)))) == 2 for a, b in links):
            # A copy of another skeleton, such as COCO's: what is left of it would be wrong, too.
            logger.warning(
                "data set %s: its skeleton joins keypoints that are not there, and no lines are drawn; register it with skeleton=",
                self.name,
            )
            links = []
        try:
            return Skeleton(names, links=[(names[int(a)], names[int(b)]) for a, b in links])
        except InputError as error:
            raise InputError(f"data set {self.name}: {error}") from None


def not_found(name: str, path: Path, layout: str, root: Path | None = None) -> str:
    """The message for data that is not where it should be."""
    where = "" if root or os.environ.get("DETECTRON2_DATASETS") else " (DETECTRON2_DATASETS is not set)"
    expected = f"; expected below {root or dataset_root()}: {layout}" if layout else ""
    return f"data set {name}: no such file or folder: {path}{where}{expected}"


def _told(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if callable(value) else str(value)
