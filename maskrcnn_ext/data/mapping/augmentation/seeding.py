"""The same augmentations from the same seed, however many workers and processes load the data."""

from __future__ import annotations

from typing import Any

from detectron2.utils import comm
from torch.utils.data import get_worker_info

from maskrcnn_ext.common.random_state import seeded
from maskrcnn_ext.data.mapping.augmentation.mixing import Mapper, Sample
from maskrcnn_ext.data.mapping.position import stream_position


class SeededMapper:
    """A mapper whose every call draws from a seed of its own: that of the sample's place in the training sampler's stream.

    Detectron2 seeds every worker once, so that what a sample becomes depends on how many workers there are. Its loader deals the sampler's
    stream out to processes and workers in turn, so that a worker knows the place of each of its calls: with the same sampler, hence the
    same ``train.seed``, the n-th sample of training is the same in any set-up. Wrap the outermost mapper::

        dataloader.train.mapper = L(SeededMapper)(mapper=dataloader.train.mapper, seed="${train.seed}")
    """

    def __init__(self, *, mapper: Mapper, seed: int) -> None:
        """Wraps a mapper, in the process whose rank counts."""
        self.mapper = mapper
        self.seed = seed
        self._rank, self._ranks = comm.get_rank(), comm.get_world_size()
        self._done = 0  # samples this worker has given

    def __call__(self, record: dict[str, Any]) -> Sample | None:
        """Maps a record; the global generators are afterwards as they were before."""
        position = stream_position.get()
        if position is None:  # another trainer than ours, which goes on where a checkpoint was
            info = get_worker_info()
            worker, workers = (info.id, info.num_workers) if info else (0, 1)
            position = (self._done * workers + worker) * self._ranks + self._rank
        with seeded(self.seed, position):
            sample = self.mapper(record)
        if sample is not None:  # else the loader tries another record in this one's place
            self._done += 1
        return sample
