"""Predicts items on the workers of a Ray cluster. Each worker writes shards: journals that the job then reads beside its own."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import pickle
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.jobs.batch_runner import BatchRunner, failure_reason
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor

# Most images of a shard. A restarted worker predicts fewer again, as a shard keeps finished images.
_MAX_SHARD_IMAGES = 128
# Least shards per worker, if there are enough images, so that all workers finish at about the same time.
_SHARDS_PER_WORKER = 4
# Environment variables that workers get from the driver, to find the same data sets.
_PASSED_VARIABLES = ("DETECTRON2_DATASETS", "MASKRCNN_EXT_CATALOG")


@dataclass(frozen=True)
class WorkerSettings:
    """How each worker predicts. Paths are on a file system that all machines share.

    Attributes:
        predictor: arguments of :class:`maskrcnn_ext.inference.predictor.Predictor`.
        category_ids: the id of each class in the results.
        batch_size: images of one size that are predicted at once.
        tile: side of the tiles in pixels; None predicts images whole.
        overlap: overlap of neighbouring tiles, as a fraction of their side.
    """

    predictor: dict[str, Any]
    category_ids: Sequence[Any]
    batch_size: int = 1
    tile: int | None = None
    overlap: float = 0.2


@dataclass(frozen=True)
class RayResults:
    """The results of the workers.

    Attributes:
        journal: the job's journal with all shards; open until the context of :func:`predicted_on_ray` ends.
        predicted: number of images that this run has predicted.
        failed: reasons by key of the items that could not be predicted.
    """

    journal: Journals
    predicted: int
    failed: dict[str, str]


@contextlib.contextmanager
def predicted_on_ray(
    items: Sequence[InputImage],
    settings: WorkerSettings,
    journal: Journal,
    identity: dict[str, Any],
    *,
    workers: int,
    progress: Progress | None = None,
) -> Iterator[RayResults]:
    """Predicts the items that no journal has yet with Ray Data, on the cluster at ``RAY_ADDRESS`` or else on this machine.

    A worker that dies is restarted and continues its shard.

    Args:
        items: images; not video frames, whose order the workers would lose.
        settings: how to predict.
        journal: the journal of the job; the shards are in the folder ``shards`` beside it.
        identity: the identity of the job, as in its journal.
        workers: number of workers, each with a GPU if the cluster has GPUs, else with an equal part of the processors.
        progress: is stepped for each image.

    Yields:
        The results, when all workers have finished.

    Raises:
        InputError: Ray is not installed, or no cluster can be reached or started.

    Example:
        ::

            with predicted_on_ray(items, WorkerSettings({"config": "output/run"}, [1, 2]), journal, identity, workers=4) as results:
                results.journal[items[0].key]
    """
    folder = journal.path.parent / "shards"
    with contextlib.ExitStack() as stack:
        known = _open_shards(folder, identity, stack, journal)
        missing = [item for item in items if item.key not in known]
        if progress is not None:
            progress.step(len(items) - len(missing))
    failed = _run_workers(missing, settings, folder, identity, workers, progress) if missing else {}
    with contextlib.ExitStack() as stack:
        yield RayResults(_open_shards(folder, identity, stack, journal), len(missing) - len(failed), failed)


def _open_shards(folder: Path, identity: dict[str, Any], stack: contextlib.ExitStack, journal: Journal) -> Journals:
    return Journals(journal, [stack.enter_context(Journal(file, identity)) for file in sorted(folder.glob("*.jsonl"))])


def _run_workers(
    items: Sequence[InputImage],
    settings: WorkerSettings,
    folder: Path,
    identity: dict[str, Any],
    workers: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Predicts items into shards; returns the reasons by key of those that failed."""
    require("ray.data", extra="ray", purpose="--ray")
    import ray

    is_own_cluster = not ray.is_initialized()
    if is_own_cluster:
        passed = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
        try:
            ray.init(
                runtime_env={"env_vars": passed}, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
            )
        except Exception as error:  # Ray raises errors of many unrelated types
            raise InputError(f"--ray: no cluster can be reached or started: {' '.join(str(error).split())}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        resources = ray.cluster_resources()
        per_worker = {"num_gpus": 1} if resources.get("GPU") else {"num_cpus": max(1, int(resources["CPU"] // workers))}
        size = max(1, min(_MAX_SHARD_IMAGES, len(items) // (workers * _SHARDS_PER_WORKER)))
        shards = [items[start : start + size] for start in range(0, len(items), size)]
        rows = [{"items": pickle.dumps([_with_absolute_path(item) for item in shard])} for shard in shards]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,
            fn_constructor_args=(settings, str(folder.absolute()), identity),
            compute=ray.data.ActorPoolStrategy(size=workers),
            **per_worker,
        )
        failed: dict[str, str] = {}
        for row in data.iter_rows():
            failed.update(json.loads(row["failed"]))
            if progress is not None:
                progress.step(row["count"], failed=len(failed))
        return failed
    finally:
        if is_own_cluster:
            ray.shutdown()


class _Worker:
    """Predicts shards, one at a time."""

    def __init__(self, settings: WorkerSettings, folder: str, identity: dict[str, Any]) -> None:
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self._predictor = Predictor(**settings.predictor)
        self._tiled = None
        if settings.tile is not None:
            self._tiled = TiledPredictor(
                self._predictor, tile=settings.tile, overlap=settings.overlap, batch_size=settings.batch_size
            )
        self._settings, self._folder, self._identity = settings, Path(folder), identity

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        items: list[InputImage] = pickle.loads(row["items"])
        failed: dict[str, str] = {}

        def add_failure(item: InputImage, error: Exception) -> None:
            failed[item.key] = failure_reason(error)

        # The name depends on the items only, so a second attempt finds the images that the first one has finished.
        name = hashlib.sha1("\n".join(item.key for item in items).encode()).hexdigest()[:16]
        with Journal(self._folder / f"{name}.jsonl", self._identity) as shard:
            runner = BatchRunner(
                self._predictor,
                shard,
                add_failure,
                category_ids=self._settings.category_ids,
                batch_size=self._settings.batch_size,
                tiled=self._tiled,
            )
            for chunk in runner.chunks(items):
                runner.predict_missing(chunk)
        return {"failed": json.dumps(failed), "count": len(items)}


def _with_absolute_path(item: InputImage) -> InputImage:
    """Returns the item with an absolute path: workers have other working directories."""
    name = item.image["file_name"]
    return item if "://" in name else replace(item, image={**item.image, "file_name": os.path.abspath(name)})  # noqa: PTH100
