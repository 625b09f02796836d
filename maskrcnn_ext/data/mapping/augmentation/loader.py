"""Detectron2's training loader with the mixing augmentations as arguments, so that an override on the command line sets them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from detectron2.data import DatasetFromList, build_detection_train_loader
from torch.utils.data import Dataset, Sampler

from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.mixing import Mapper
from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper
from maskrcnn_ext.data.mapping.augmentation.seeding import SeededMapper
from maskrcnn_ext.errors import InputError


def build_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Mapper,
    total_batch_size: int,
    copy_paste: Mapping[str, Any] | None = None,
    mosaic: Mapping[str, Any] | None = None,
    seed: int | None = None,
    sampler: Sampler | None = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Detectron2's ``build_detection_train_loader``, with copy-paste, mosaic and seeding around the mapper.

    On the command line of any config of this package::

        dataloader.train._target_=maskrcnn_ext.data.mapping.augmentation.build_train_loader
        dataloader.train.copy_paste.probability=0.5 dataloader.train.mapper.instance_mask_format=bitmask

    Args:
        dataset: map-style; read once, for training and for mixing.
        mapper: as in Detectron2.
        total_batch_size: as in Detectron2.
        copy_paste: arguments of :class:`CopyPasteMapper` but mapper and dataset, such as ``{probability: 0.5, level: instance}``; None for
            none. Pasted after mosaics are made.
        mosaic: the same for :class:`MosaicMapper`.
        seed: of :class:`SeededMapper`; None for Detectron2's seeding by worker.
        sampler: as in Detectron2, and so are the others.

    Raises:
        InputError: `copy_paste` or `mosaic` has an argument that there is not, or one out of range.
    """
    records = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    for wrapper, name, arguments in ((MosaicMapper, "mosaic", mosaic), (CopyPasteMapper, "copy_paste", copy_paste)):
        if arguments is not None:
            try:
                mapper = wrapper(mapper=mapper, dataset=records, **arguments)
            except TypeError as error:
                raise InputError(f"dataloader.train.{name}: {error}") from error
    if seed is not None:
        mapper = SeededMapper(mapper=mapper, seed=seed)
    return build_detection_train_loader(
        records,
        mapper=mapper,
        sampler=sampler,
        total_batch_size=total_batch_size,
        aspect_ratio_grouping=aspect_ratio_grouping,
        num_workers=num_workers,
        collate_fn=collate_fn,
    )
