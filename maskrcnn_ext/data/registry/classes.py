"""The classes of a data set or of a model: names, category ids and keypoints, and the mapping of records from one list to another."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from maskrcnn_ext.common.text import short_list

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Classes:
    """The meaning of a model's outputs. Checkpoints store it.

    Attributes:
        names: class names, in the order of the model's outputs.
        category_ids: the data set's id of each class, for results files.
        keypoint_names: keypoint names, in the order of the model's outputs; empty for a model without keypoints.
        keypoint_flip_map: pairs (left, right) of keypoint names.
        skeleton: pairs of indices of keypoints that are joined by a line.
    """

    names: tuple[str, ...]
    category_ids: tuple[Any, ...]
    keypoint_names: tuple[str, ...] = ()
    keypoint_flip_map: tuple[tuple[str, str], ...] = ()
    skeleton: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of_data_set(cls, name: str) -> Classes | None:
        """Returns the classes in Detectron2's metadata of a data set; None if it has none, as before a file is read.

        Example:
            >>> import detectron2.data
            >>> Classes.of_data_set("coco_2017_val").names[:2]
            ('person', 'bicycle')
        """
        from detectron2.data import MetadataCatalog

        metadata = MetadataCatalog.get(name)
        names = metadata.get("thing_classes")
        if not names:
            return None
        index_of_id = metadata.get("thing_dataset_id_to_contiguous_id")
        if not index_of_id and name.startswith("keypoints_coco_"):
            index_of_id = {1: 0}  # COCO's person; Detectron2 sets it only when it reads the annotations
        # Detectron2 evaluates a data set without category ids under the indices of its classes.
        has_ids = index_of_id and len(index_of_id) == len(names)
        ids = sorted(index_of_id, key=index_of_id.__getitem__) if has_ids else range(len(names))
        points = metadata.get("keypoint_names") or ()
        index = {point: position for position, point in enumerate(points)}
        return cls(
            tuple(names),
            tuple(ids),
            tuple(points),
            tuple((left, right) for left, right in metadata.get("keypoint_flip_map") or ()),
            tuple((index[a], index[b]) for a, b, _ in metadata.get("keypoint_connection_rules") or ()),
        )

    @classmethod
    def from_state(cls, state: Any) -> Classes | None:
        """Returns the classes of :meth:`state_dict`; None for anything else, such as an entry of another program."""
        if not isinstance(state, dict) or not state.get("names"):
            return None
        points, flips, links = (state.get(key) or () for key in ("keypoint_names", "keypoint_flip_map", "skeleton"))
        ids = state.get("category_ids") or range(len(state["names"]))
        flip_map, skeleton = (tuple((a, b) for a, b in pairs) for pairs in (flips, links))
        return cls(tuple(state["names"]), tuple(ids), tuple(points), flip_map, skeleton)

    def state_dict(self) -> dict[str, Any]:
        """Returns plain containers, for checkpoints and JSON."""
        return asdict(self)


def first_difference(ours: Sequence[str], theirs: Sequence[str]) -> int | None:
    """Returns the first index at which two lists of classes differ; None if they are equal.

    Example:
        >>> first_difference(["a", "b"], ["a", "c"]), first_difference(["a"], ["a"])
        (1, None)
    """
    if list(ours) == list(theirs):
        return None
    pairs = zip(ours, theirs, strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(ours), len(theirs)))


def map_by_name(
    records: list[dict[str, Any]], theirs: Sequence[str], ours: Sequence[str], name: str
) -> list[dict[str, Any]]:
    """Returns Detectron2's dicts with the category of each object changed to that of the same name.

    Objects of other classes are left out, with a warning. Classes that the data set does not have are not labelled in its images, which
    ``labelled_classes`` says; those of a record are mapped along.

    Args:
        records: not changed.
        theirs: the class names of the records.
        ours: the class names of the result.
        name: of the data set, for the warning.
    """
    if list(theirs) == list(ours):
        return records
    index_of = {own: index for index, own in enumerate(ours)}
    left_out: Counter[str] = Counter()
    mapped = []
    for record in records:
        kept = []
        for annotation in record.get("annotations", ()):
            own = theirs[annotation["category_id"]]
            if own in index_of:
                kept.append({**annotation, "category_id": index_of[own]})
            else:
                left_out[own] += 1
        changes: dict[str, Any] = {"annotations": kept} if "annotations" in record else {}
        labelled = {theirs[index] for index in record.get("labelled_classes", range(len(theirs)))}
        if "labelled_classes" in record or not labelled.issuperset(ours):
            changes["labelled_classes"] = [index for index, own in enumerate(ours) if own in labelled]
        mapped.append({**record, **changes})
    if left_out:
        counts = short_list([f"{count} of {own!r}" for own, count in left_out.items()])
        logger.warning("data set %s: left out objects of classes that the model does not have: %s", name, counts)
    return mapped
