"""Maps the classes of data sets that name or divide them in different ways: ``NAME@map:classes.yaml``, and ``maskrcnn-ext merge``.

The file has the classes of the result, and the class that each class of a data set becomes::

    classes: [vehicle, person]   # optional: without it, the classes of `map` in their order
    map:
      car: vehicle
      truck: vehicle
      pedestrian: person
      DontCare: __ignore__       # its objects are ignore regions
      tree:                      # left out

A class that is not in ``map`` keeps its name, which must be among ``classes``. An image labels those classes of the result that some
class of its data set becomes; training and evaluation ignore the others in it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import write_atomic
from maskrcnn_ext.common.text import did_you_mean, short_list
from maskrcnn_ext.common.yaml_text import load_yaml
from maskrcnn_ext.data.formats.drawn_objects import IGNORE_LABEL
from maskrcnn_ext.data.formats.records import DataSet, ImageRecord
from maskrcnn_ext.data.formats.text_files import read_text
from maskrcnn_ext.errors import InputError

_OPTION = "@map:"


@dataclass(frozen=True)
class ClassMap:
    """The classes of the result, and the new class of each class of a data set.

    Attributes:
        source: the file, for messages.
        classes: class names of the result.
        names: class name of the result by class name of a data set; None to leave its objects out, ``__ignore__`` for ignore regions.
    """

    source: str
    classes: tuple[str, ...]
    names: Mapping[str, str | None]

    def target(self, name: str) -> str | None:
        """Returns the new name of a class.

        Raises:
            InputError: the map lacks the class.
        """
        if name in self.names:
            return self.names[name]
        if name in self.classes:
            return name
        advice = did_you_mean(name, self.names) or f"add `{name}: <class>`, or `{name}:` to leave it out"
        raise InputError(f"{self.source}: `map` lacks the class {name!r}: {advice}")

    def apply(self, data: DataSet) -> DataSet:
        """Returns a data set with the classes of the result. Images state the classes that they label, if these are not all.

        Raises:
            InputError: the map lacks a class of the data set.

        Example:
            >>> cats = DataSet(["cat"], [ImageRecord("a.png", 1, 4, 4)])
            >>> ClassMap("m.yaml", ("pet", "car"), {"cat": "pet"}).apply(cats).images[0].labelled_classes
            [0]
        """
        targets = [self.target(name) for name in data.classes]
        index_of = {name: index for index, name in enumerate(self.classes)}
        images = [self._record(record, targets, index_of) for record in data.images]
        return replace(data, classes=list(self.classes), images=images, category_ids=None)

    def _record(self, record: ImageRecord, targets: Sequence[str | None], index_of: Mapping[str, int]) -> ImageRecord:
        annotations = []
        for found in record.annotations:
            target = targets[found.category]
            if target == IGNORE_LABEL:
                annotations += [replace(found, category=index, crowd=True, id=None) for index in range(len(index_of))]
            elif target is not None:
                annotations.append(replace(found, category=index_of[target]))
        own = range(len(targets)) if record.labelled_classes is None else record.labelled_classes
        labelled = sorted(
            {index_of[name] for index in own if (name := targets[index]) in index_of and name is not None}
        )
        every = len(labelled) == len(index_of)
        return replace(record, annotations=annotations, labelled_classes=None if every else labelled)


def read_class_map(file: Path) -> ClassMap:
    """Reads a file.

    Raises:
        InputError: it cannot be read, or is no such mapping.
    """
    content = load_yaml(read_text(file), file)
    if (
        not isinstance(content, dict)
        or not set(content) <= {"classes", "map"}
        or not isinstance(content.get("map"), dict)
    ):
        raise InputError(f"{file}: expected `map:` with `old name: new name` lines, and optionally `classes: [names]`")
    names: dict[Any, Any] = content["map"]
    for old, new in names.items():
        if not isinstance(old, str) or not isinstance(new, str | None):
            raise InputError(f"{file}: `map` has {old!r}: {new!r}, expected names (quote yes, no, on, off, numbers)")
    classes = content.get("classes")
    if classes is None:
        classes = list(dict.fromkeys(new for new in names.values() if new not in (None, IGNORE_LABEL)))
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes) or not classes:
        raise InputError(f"{file}: `classes` is {classes!r:.100}, expected a list of names")
    unknown = [new for new in names.values() if new not in (None, IGNORE_LABEL, *classes)]
    if unknown or len(set(classes)) < len(classes):
        fault = f"`map` names {short_list(unknown)}, which `classes` lacks" if unknown else "`classes` has a name twice"
        raise InputError(f"{file}: {fault}")
    return ClassMap(str(file), tuple(classes), names)


def write_class_map(file: Path, classes: Sequence[str]) -> None:
    """Writes a map that keeps the names of classes, and adds those that a data set lacks.

    Raises:
        InputError: the file cannot be written.
    """
    write_atomic(file, json.dumps({"classes": list(classes), "map": {}}, ensure_ascii=False) + "\n")


def mapped_name(name: str, file: Path) -> str:
    """Returns the name of a data set with other classes.

    Example:
        >>> mapped_name("balloon_train", Path("/data/classes.yaml"))
        'balloon_train@map:/data/classes.yaml'
    """
    return f"{name}{_OPTION}{file}"


def split_mapped_name(name: str) -> tuple[str, Path | None]:
    """Returns the data set of a name, and the file of its class map; None for a name that does not end with one.

    Example:
        >>> split_mapped_name("balloon_train@map:/data/classes.yaml")
        ('balloon_train', PosixPath('/data/classes.yaml'))
        >>> split_mapped_name("balloon_train@map:/data/classes.yaml@list:/data/val.txt")[1] is None
        True
    """
    whole, option, file = name.rpartition(_OPTION)
    is_last = option and not any(later in file for later in ("@list:", "@tiles:"))
    return (whole, Path(file).expanduser().absolute()) if is_last else (name, None)
