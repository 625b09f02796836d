"""Checks of ids, names and references."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from maskrcnn_ext.common.text import short_list
from maskrcnn_ext.data.check.faults import Fault, object_fault
from maskrcnn_ext.data.check.view import DatasetView, ObjectView, have_two_types
from maskrcnn_ext.data.formats.coco_fields import has_keypoint_count


def check_records(view: DatasetView) -> Iterator[Fault]:
    """Yields faults of broken records, duplicate ids, and annotations whose image or category is missing."""
    yield from _check_categories(view)
    yield from _check_images(view)
    for records, ids in (("images", [image.id for image in view.images]), ("categories", view.class_ids)):
        if have_two_types(ids):
            texts = sum(isinstance(own, str) for own in ids)
            yield Fault("id-types", f"{texts} of {len(ids)} ids of `{records}` are texts")
    for broken in view.broken_fields:
        message = f"entry {broken.index} of `{broken.records}` {broken.problem}"
        if broken.records == "annotations":
            yield object_fault("field-broken", view.objects[broken.index], message)
        else:
            yield Fault("field-broken", message, view.images[broken.index] if broken.records == "images" else None)
    first: dict[int | float | str, ObjectView] = {}
    for found in view.objects:
        if found.id is None:
            yield object_fault("annotation-broken", found, f"entry {found.index} of `annotations` has no `id`")
        elif first.setdefault(found.id, found) is not found:
            yield object_fault(
                "annotation-id-duplicate", found, f"so has entry {first[found.id].index} of `annotations`"
            )
        if found.image is None:
            yield object_fault("image-unknown", found, _unknown("image", found.image_id))
        elif found.image_id != found.image.id:
            yield object_fault(
                "id-type", found, f"`image_id` is {found.image_id!r}, the image's `id` {found.image.id!r}"
            )
        if found.category is None:
            yield object_fault("category-unknown", found, _unknown("category", found.category_id))
        elif found.category_id != view.class_ids[found.category]:
            message = f"`category_id` is {found.category_id!r}, the category's `id` {view.class_ids[found.category]!r}"
            yield object_fault("id-type", found, message)
        if found.ignored:
            yield object_fault("annotation-ignored", found, "`ignore` is set")
        if found.num_keypoint_values is not None:
            yield from _check_keypoints(found, view.num_keypoint_values)


def _check_categories(view: DatasetView) -> Iterator[Fault]:
    names: dict[Any, Any] = {}
    for index, (own, name) in enumerate(view.categories):
        if own is None or name is None:
            yield Fault("category-broken", f"entry {index} of `categories` has no `{'id' if own is None else 'name'}`")
        if own is not None and own in names:
            yield Fault("category-duplicate", f"{names[own]!r} and {name!r} have the id {own!r}")
        names.setdefault(own, name)
    for same in _same_names(view):
        ids = short_list([repr(own) for own, _ in same])
        yield Fault(
            "category-name-duplicate", f"{', '.join(sorted({repr(name) for _, name in same}))}: the categories {ids}"
        )
    numbers = sorted(own for own in names if isinstance(own, int | float))
    if numbers and numbers[-1] - numbers[0] + 1 != len(numbers):
        yield Fault("class-gap", f"{len(numbers)} ids from {numbers[0]} to {numbers[-1]}")


def _same_names(view: DatasetView) -> list[list[tuple[Any, str]]]:
    """Returns the (id, name) of categories whose names are equal, or differ only in case and spaces."""
    by_name: dict[str, list[tuple[Any, str]]] = {}
    for own, name in view.categories:
        if own is not None and name is not None:
            by_name.setdefault(" ".join(name.casefold().split()), []).append((own, name))
    return [same for same in by_name.values() if len({own for own, _ in same}) > 1]


def _check_images(view: DatasetView) -> Iterator[Fault]:
    first_id: dict[Any, Any] = {}
    first_file: dict[Any, Any] = {}
    for image in view.images:
        where = f"entry {image.index} of `images`"
        if image.id is None:
            yield Fault("image-broken", f"{where} has no `id`", image)
        elif first_id.setdefault(image.id, image) is not image:
            other = first_id[image.id]
            yield Fault("image-id-duplicate", f"so has entry {other.index} of `images` ({other.file_name})", image)
        if image.path is None:
            problem = (
                "has no `file_name`"
                if image.file_name is None
                else "has a `file_name` that is no path below the folder"
            )
            yield Fault("image-broken", f"{where} {problem}", image)
        elif first_file.setdefault(image.key, image) is not image:
            other = first_file[image.key]
            if other.id != image.id:
                yield Fault("file-name-duplicate", f"so has image {other.id!r}", image)
        if image.height is None or image.width is None:
            yield Fault("image-sizeless", f"{where} has no `height` and `width` that are whole numbers above 0", image)


def _unknown(kind: str, value: Any) -> str:
    return f"it has no `{kind}_id`" if value is None else f"there is no {kind} {value!r}"


def _check_keypoints(found: ObjectView, expected: int) -> Iterator[Fault]:
    count = found.num_keypoint_values
    if count == -1:
        yield object_fault("keypoints-broken", found, "`keypoints` is not a list of finite numbers")
    elif count is not None and not has_keypoint_count(count, expected):
        wanted = str(expected) if expected else "a multiple of three"
        yield object_fault("keypoints-broken", found, f"`keypoints` has {count} numbers, expected {wanted}")
