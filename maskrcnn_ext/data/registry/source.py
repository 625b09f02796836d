"""The record of a registered data set: its format and the arguments to read it with. Detectron2's catalogue calls it to read the data."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.gc_pause import gc_paused
from maskrcnn_ext.common.text import did_you_mean
from maskrcnn_ext.data.formats import Format, get_format
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.registry.check_boxes import check_boxes
from maskrcnn_ext.data.registry.class_map import read_class_map
from maskrcnn_ext.data.registry.dicts import to_dicts
from maskrcnn_ext.data.registry.keypoints import Skeleton
from maskrcnn_ext.data.registry.read_once import read_once
from maskrcnn_ext.errors import InputError

logger = logging.getLogger(__name__)


def dataset_root() -> Path:
    """Returns the folder that relative paths of data sets are below: ``$DETECTRON2_DATASETS``, or ``datasets``."""
    return Path(os.environ.get("DETECTRON2_DATASETS", "datasets")).expanduser()


Select = Callable[[list[ImageRecord]], list[ImageRecord]]


@dataclass(frozen=True)
class InTurn:
    """Selects records by one function, and then of these by another."""

    first: Select
    then: Select

    def __call__(self, records: list[ImageRecord]) -> list[ImageRecord]:
        return self.then(self.first(records))

    def __str__(self) -> str:
        return f"{_stable_text(self.first)}, {_stable_text(self.then)}"


@dataclass(frozen=True)
class Source:
    """A data set that can be read. Calling it returns Detectron2's dicts.

    Attributes:
        name: the name of the data set.
        format: one of :data:`maskrcnn_ext.data.formats.FORMATS`.
        classes: class names; empty if the files say them.
        layout: the folder layout that the error message shows if the data is missing.
        root: the folder that relative paths are below; None for :func:`dataset_root`.
        options: the options of the format.
        colors: (R, G, B) from 0 to 255 by class name, for pictures; empty for any colours.
        select: returns the records of this data set, given all that are read; None keeps all.
        skeleton: the keypoints; None for those that the files describe.
        ignored: classes of the files that are no classes: their objects are ignore regions, such as KITTI's DontCare.
        class_map: the file of a map of the classes, see :mod:`maskrcnn_ext.data.registry.class_map`; None for the classes themselves.
    """

    name: str
    format: str
    classes: tuple[str, ...] = ()
    layout: str = ""
    root: Path | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    colors: Mapping[str, Sequence[int]] = field(default_factory=dict)
    select: Select | None = None
    skeleton: Skeleton | None = None
    ignored: tuple[str, ...] = ()
    class_map: Path | None = None

    @classmethod
    def create(
        cls,
        name: str,
        *,
        format: str,
        classes: Sequence[str] | None = None,
        layout: str = "",
        colors: Mapping[str, Sequence[int]] | None = None,
        select: Select | None = None,
        skeleton: Skeleton | None = None,
        ignored: Sequence[str] = (),
        **options: Any,
    ) -> Source:
        """Returns a source made of the arguments of :func:`maskrcnn_ext.data.register`."""
        return cls(
            name,
            format,
            tuple(classes or ()),
            layout,
            options=options,
            colors=colors or {},
            select=select,
            skeleton=skeleton,
            ignored=tuple(ignored),
        )

    def part(self, name: str, select: Select) -> Source:
        """Returns a data set of the records of this one that a function selects."""
        return replace(self, name=name, select=select if self.select is None else InTurn(self.select, select))

    def register(self) -> None:
        """Registers the data set with Detectron2; see :func:`maskrcnn_ext.data.register`. Reads no data."""
        from detectron2.data import DatasetCatalog, MetadataCatalog

        self.check()
        if self.name in DatasetCatalog.list():
            known = MetadataCatalog.get(self.name).get("source", "another program's registration")
            if known != self.describe():
                raise InputError(f"data set {self.name} is registered already, as {known}: choose another name")
            return
        metadata = MetadataCatalog.get(self.name).set(source=self.describe(), evaluator_type="coco")
        if self.classes and self.class_map is None:
            metadata.set(**self.class_metadata(self.classes))
        if self.skeleton:
            metadata.set(**self.skeleton.metadata())
        if self.is_whole_coco_file:
            # The evaluator reads the same file, with the same category ids.
            metadata.set(json_file=str(self.path_of("json")))
        DatasetCatalog.register(self.name, self)

    @property
    def is_whole_coco_file(self) -> bool:
        """Whether the ground truth of this data set is a COCO file as it is."""
        changes = (self.options.get("only"), self.options.get("crowds"), self.select, self.ignored, self.class_map)
        return self.format == "coco" and not any(changes)

    def check(self) -> None:
        """Checks the arguments; reads no data.

        Raises:
            InputError: the format is unknown, an option is unknown, missing or of another type, or the colours are for other classes.
        """
        where = f"data set {self.name}"
        if self.classes and self.colors and set(self.colors) != set(self.classes):
            raise InputError(
                f"{where}: `colors` are for {', '.join(self.colors)}, `classes` are {', '.join(self.classes)}"
            )
        try:
            format = get_format(self.format)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        for name, value in self.options.items():
            option = format.option(name)
            if option is None:
                takes = ", ".join(option.name for option in format.options)
                raise InputError(f"{where}: format {self.format} takes no `{name}` (it takes {takes})")
            try:
                if value is not None:
                    option.check(value)
            except InputError as error:
                raise InputError(f"{where}: {error}") from None
        for option in format.options:
            if option.required and self.options.get(option.name) is None:
                raise InputError(f"{where}: format {self.format} needs `{option.name}`: {option.meaning}")

    def describe(self) -> str:
        """Returns a text that identifies the data and is the same in every process: functions by name, without their address."""
        options = sorted((key, _stable_text(value)) for key, value in self.options.items())
        root = [str(self.root)] if self.root else []
        select = [_stable_text(self.select)] if self.select else []
        skeleton = [self.skeleton] if self.skeleton else []
        ignored = [("ignored", self.ignored)] if self.ignored else []
        class_map = [("class_map", str(self.class_map))] if self.class_map else []
        return repr((self.format, self.classes, *root, *options, *select, *skeleton, *ignored, *class_map))

    def path_of(self, option: str) -> Path:
        """Returns the path that an option names."""
        return (self.root or dataset_root()) / Path(self.options[option]).expanduser()

    def split_note(self) -> str:
        """Returns which split of its files this data set is, and which others they have; "" if they have no others.

        Raises:
            InputError: the file that lists the splits cannot be read.
        """
        format = get_format(self.format)
        if format.list_splits is None or format.split_option is None:
            return ""
        chosen = self.options.get(format.split_option) or format.default_split
        if chosen is None:  # all of them
            return ""
        others = [split for split in format.list_splits(self.path_of(format.shorthand[0])) if split != chosen]
        if not others:
            return ""
        paths = [str(self.path_of(option)) for option in format.shorthand if option in self.options]
        key = "" if len(paths) == len(format.shorthand) else f"{format.split_option}:"
        example = f"{self.format}:{'@'.join([*paths, key + others[0]])}"
        return f"split {chosen} of {paths[0]}; it also has {', '.join(others)}, such as {example}"

    def paths(self) -> dict[str, Path]:
        """Returns the files and folders of the data set by option."""
        return {
            option.name: self.path_of(option.name)
            for option in get_format(self.format).options
            if option.is_path and self.options.get(option.name) is not None
        }

    def read(self, faults: list[str] | None = None) -> DataSet:
        """Reads the records.

        Args:
            faults: gets the faults of records, which are left out; None to raise the first. Formats without `lists_faults` always raise it.

        Raises:
            InputError: a file is missing, or the format cannot be read.
        """
        return read_once(self, self._read) if faults is None else self._read(faults)

    def _read(self, faults: list[str] | None = None) -> DataSet:
        paths = self.paths()
        for path in paths.values():
            if not os.path.exists(path):  # noqa: PTH110, pathlib's raises if a name is too long or a folder is closed
                raise InputError(not_found_message(self.name, path, self.layout, self.root))
        format = get_format(self.format)
        collecting = {"faults": faults} if format.lists_faults and faults is not None else {}
        try:
            classes = (*self.classes, *self.ignored) if self.classes else None
            data = format.read(**{**self.options, **paths}, classes=classes, **collecting)
            data = ignore_classes(data, self.ignored) if self.ignored else data
            data = read_class_map(self.class_map).apply(data) if self.class_map else data
        except InputError as error:
            advice = "; maskrcnn-ext check-data lists all faults, and repairs some with --fix" if faults is None else ""
            raise InputError(f"data set {self.name}: {error}{advice}") from error
        except OSError as error:  # a folder instead of a file, no permission, a failing disk
            raise InputError(f"data set {self.name}: {error.filename}: {error.strerror}") from error
        check_boxes(data, self.name)
        self._warn_of_equal_names(data.classes)
        if advice := crowd_advice(data.images, format):
            logger.warning("data set %s: %s", self.name, advice)
        if self.skeleton:
            data = self._with_skeleton(data, self.skeleton)
        return replace(data, images=self.select(data.images)) if self.select else data

    def _warn_of_equal_names(self, classes: Sequence[str]) -> None:
        name = next((name for index, name in enumerate(classes) if name in classes[:index]), None)
        if name is not None:
            logger.warning(
                "data set %s: %d classes are called %r and are learned as different ones: rename one, or join them by @map:FILE",
                self.name,
                classes.count(name),
                name,
            )

    def _with_skeleton(self, data: DataSet, skeleton: Skeleton) -> DataSet:
        """Returns the data with the names and links of the registered skeleton, which must agree with the files."""
        names = list(skeleton.names)
        if data.keypoints and data.keypoints != names:
            raise InputError(
                f"data set {self.name}: `skeleton` has {', '.join(names)}, but the files have {', '.join(data.keypoints)}"
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
        """Returns the entries of Detectron2's metadata for classes: names, and colours if every class has one."""
        entries: dict[str, list[Any]] = {"thing_classes": list(classes)}
        if self.colors and set(classes) <= set(self.colors):
            entries["thing_colors"] = [list(self.colors[name]) for name in classes]
        return entries

    def __call__(self) -> list[dict[str, Any]]:
        """Returns Detectron2's standard dicts, and adds the classes and keypoints of the files to its metadata."""
        from detectron2.data import MetadataCatalog

        with gc_paused():
            data = self.read()
            metadata = MetadataCatalog.get(self.name)
            if not metadata.get("thing_classes"):
                metadata.set(**self.class_metadata(data.classes))
            if data.category_ids is not None:
                contiguous = {category_id: index for index, category_id in enumerate(data.category_ids)}
                metadata.set(thing_dataset_id_to_contiguous_id=contiguous)
            if data.keypoints and not self.skeleton:
                metadata.set(**self._skeleton_of_files(data).metadata())
            return to_dicts(data)

    def _skeleton_of_files(self, data: DataSet) -> Skeleton:
        """Returns the skeleton that the files describe."""
        names, links = data.keypoints, data.skeleton
        if not all(len({a, b} & set(range(len(names)))) == 2 for a, b in links):
            # Usually a copy of another skeleton, such as COCO's: the links that remain would be wrong, too.
            logger.warning(
                "data set %s: its skeleton links keypoints that do not exist, so no lines are drawn; register it with skeleton=",
                self.name,
            )
            links = []
        try:
            return Skeleton(names, links=[(names[int(a)], names[int(b)]) for a, b in links])
        except InputError as error:
            raise InputError(f"data set {self.name}: {error}") from None


def ignore_classes(data: DataSet, ignored: Sequence[str]) -> DataSet:
    """Returns the data without some of its classes, whose objects become ignore regions: crowds of every other class.

    Raises:
        InputError: there is no such class, or no other.
    """
    for name in ignored:
        if name not in data.classes:
            raise InputError(
                f"`ignored` names the class {name!r}: {did_you_mean(name, data.classes) or 'it is unknown'}"
            )
    kept = [index for index, name in enumerate(data.classes) if name not in ignored]
    if not kept:
        raise InputError(f"`ignored` names all classes: {', '.join(data.classes)}")
    index_of = {old: new for new, old in enumerate(kept)}
    images = []
    for record in data.images:
        annotations = []
        for found in record.annotations:
            if found.category in index_of:
                annotations.append(replace(found, category=index_of[found.category]))
            else:  # one crowd for each class, as in COCO; ids are unique in a file
                annotations += [replace(found, category=index, crowd=True, id=None) for index in range(len(kept))]
        labelled = record.labelled_classes
        if labelled is not None:
            labelled = [index_of[index] for index in labelled if index in index_of]
        images.append(replace(record, annotations=annotations, labelled_classes=labelled))
    ids = None if data.category_ids is None else [data.category_ids[index] for index in kept]
    return replace(data, classes=[data.classes[index] for index in kept], category_ids=ids, images=images)


def crowd_advice(images: Sequence[ImageRecord], format: Format) -> str:
    """Returns what to do about a data set whose objects are all crowds, so that nothing is trained; "" for any other data set."""
    are_crowds = [annotation.crowd for record in images for annotation in record.annotations]
    if not are_crowds or not all(are_crowds):
        return ""
    option = (
        f"add @{format.crowd_option} to its string" if format.crowd_option else "the format cannot read them as objects"
    )
    return (
        f"all {len(are_crowds)} objects are crowds, on which nothing is trained; if they are single objects: {option}"
    )


def not_found_message(name: str, path: Path, layout: str, root: Path | None = None) -> str:
    """Returns the error message for data that is missing."""
    where = "" if root or os.environ.get("DETECTRON2_DATASETS") else " (DETECTRON2_DATASETS is not set)"
    expected = f"; expected below {root or dataset_root()}: {layout}" if layout else ""
    return f"data set {name}: no such file or folder: {path}{where}{expected}"


def _stable_text(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}" if hasattr(value, "__qualname__") else str(value)
