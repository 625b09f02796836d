"""Builds the training loader with mixing augmentations and with seeds that do not depend on the number of workers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextvars import ContextVar
from typing import Any

from detectron2.data import DatasetFromList, build_detection_train_loader
from detectron2.utils import comm
from torch.utils.data import Dataset, Sampler, get_worker_info

from maskrcnn_ext.common.random_state import seeded
from maskrcnn_ext.data.mapping.augmentation.copy_paste import CopyPasteMapper
from maskrcnn_ext.data.mapping.augmentation.mixing import Mapper, Sample
from maskrcnn_ext.data.mapping.augmentation.mosaic import MosaicMapper
from maskrcnn_ext.errors import InputError

# The index of the current sample in the training sampler's stream. The trainer sets it; None if another trainer does not, in which case
# SeededMapper counts for itself.
stream_position: ContextVar[int | None] = ContextVar("stream_position", default=None)


class _StreamCounter:
    """Knows the index of the next sample in the training sampler's stream.

    Detectron2's loader deals the sampler's stream out to processes and workers in turn, so a worker knows the index of each of its samples.
    Must be made in the training process itself, whose rank it stores.
    """

    def __init__(self) -> None:
        self._rank, self._ranks = comm.get_rank(), comm.get_world_size()
        self._done = 0  # samples that this worker has returned

    def position(self) -> int:
        """Returns the index of the sample that is being mapped."""
        known = stream_position.get()
        if known is not None:
            return known
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        return (self._done * workers + worker) * self._ranks + self._rank

    def count(self, sample: Sample | None) -> None:
        """Counts a sample. The loader replaces a record without one by another record."""
        self._done += sample is not None


class SeededMapper:
    """Seeds every call of a mapper by the sample's index in the training sampler's stream.

    Detectron2 seeds each worker once, so the augmentation of a sample depends on the number of workers. With the same sampler, hence the
    same ``train.seed``, the n-th sample of training is the same for any number of workers and processes. Wrap the outermost mapper.

    Example:
        In a LazyConfig::

            dataloader.train.mapper = L(SeededMapper)(mapper=dataloader.train.mapper, seed="${train.seed}")
    """

    def __init__(self, *, mapper: Mapper, seed: int) -> None:
        """Wraps a mapper. Must run in the training process itself."""
        self.mapper = mapper
        self.seed = seed
        self._counter = _StreamCounter()

    def __call__(self, record: dict[str, Any]) -> Sample | None:
        """Maps a record; restores the global random generators afterwards."""
        with seeded(self.seed, self._counter.position()):
            sample = self.mapper(record)
        self._counter.count(sample)
        return sample


class ClosingMapper:
    """Maps the first samples of a training with one mapper, and the later ones with another.

    Mixed images look unlike those that the model will see, so a training ends better without them (YOLOX, arXiv:2107.08430, section 2).
    """

    def __init__(self, *, first: Mapper, later: Mapper, num_samples: int) -> None:
        """Stores the mappers and the number of samples of the first one. Must run in the training process itself."""
        self.first, self.later, self.num_samples = first, later, num_samples
        self._counter = _StreamCounter()

    def __call__(self, record: dict[str, Any]) -> Sample | None:
        """Maps a record with the mapper whose turn it is."""
        mapper = self.first if self._counter.position() < self.num_samples else self.later
        sample = mapper(record)
        self._counter.count(sample)
        return sample


def build_train_loader(
    dataset: list[dict[str, Any]] | Dataset,
    *,
    mapper: Mapper,
    total_batch_size: int,
    copy_paste: Mapping[str, Any] | None = None,
    mosaic: Mapping[str, Any] | None = None,
    mixed_samples: int | None = None,
    seed: int | None = None,
    sampler: Sampler | None = None,
    aspect_ratio_grouping: bool = True,
    num_workers: int = 0,
    collate_fn: Callable[[list[Any]], Any] | None = None,
) -> Any:
    """Builds Detectron2's training loader with copy-paste, mosaic and seeding around the mapper.

    Args:
        dataset: map-style; training and mixing share it.
        mapper: as in Detectron2.
        total_batch_size: as in Detectron2.
        copy_paste: arguments of :class:`CopyPasteMapper` other than mapper and dataset, such as ``{probability: 0.5, level: instance}``;
            None for no copy-paste. Objects are pasted after mosaics are made.
        mosaic: the same for :class:`MosaicMapper`.
        mixed_samples: number of samples, of all processes together, after which no images are mixed; None for no end.
        seed: of :class:`SeededMapper`; None for Detectron2's seeding by worker.
        sampler: this and the other arguments are as in Detectron2.

    Raises:
        InputError: `copy_paste` or `mosaic` has an unknown argument, or one that is out of range.

    Example:
        As overrides of any config of this package::

            dataloader.train._target_=maskrcnn_ext.data.mapping.augmentation.build_train_loader
            dataloader.train.copy_paste.probability=0.5 dataloader.train.mapper.instance_mask_format=bitmask
    """
    records = DatasetFromList(dataset, copy=False) if isinstance(dataset, list) else dataset
    plain = mapper
    for wrapper, name, arguments in ((MosaicMapper, "mosaic", mosaic), (CopyPasteMapper, "copy_paste", copy_paste)):
        if arguments is not None:
            try:
                mapper = wrapper(mapper=mapper, dataset=records, **arguments)
            except TypeError as error:
                raise InputError(f"dataloader.train.{name}: {error}") from error
    if mixed_samples is not None and mapper is not plain:
        mapper = ClosingMapper(first=mapper, later=plain, num_samples=mixed_samples)
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
