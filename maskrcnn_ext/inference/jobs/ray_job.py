"""Predicts items on the workers of a Ray cluster, into shards: journals that one job reads, however often it is killed."""

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

from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.jobs.batch_runner import Finder
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.sources import Item
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor

# Images of a shard at most; what a killed worker has to find again is less, as a shard keeps what it has.
_SHARD = 128
# Shards for each worker at least, where there are as many images, so that all end at about the same time.
_SHARDS_EACH = 4
# Where a worker looks for data sets, as the driver does.
_VARIABLES = ("DETECTRON2_DATASETS", "MASKRCNN_EXT_CATALOG")


@dataclass(frozen=True)
class Recipe:
    """How every worker predicts. Paths are those of a file system that all machines share.

    Attributes:
        predictor: arguments of :class:`maskrcnn_ext.inference.predictor.Predictor`.
        category_ids: the id of every class in the results.
        batch_size: images that are predicted at once where they have one size.
        tile: side of tiles in pixels; None for none.
        overlap: of tiles.
    """

    predictor: dict[str, Any]
    category_ids: Sequence[Any]
    batch_size: int = 1
    tile: int | None = None
    overlap: float = 0.2


@dataclass(frozen=True)
class Outcome:
    """What the workers have left.

    Attributes:
        journal: the job's with all shards, open as long as the context lasts.
        predicted: images that this run has predicted.
        failed: reasons by key of items that could not be predicted.
    """

    journal: Journals
    predicted: int
    failed: dict[str, str]


@contextlib.contextmanager
def predicted_on_ray(
    items: Sequence[Item],
    recipe: Recipe,
    journal: Journal,
    identity: dict[str, Any],
    *,
    workers: int,
    progress: Progress | None = None,
) -> Iterator[Outcome]:
    """Predicts what no journal has yet, with Ray Data, on the cluster that ``RAY_ADDRESS`` names, else on this machine.

    A worker that dies is started again, and goes on with the shard that it was at.

    Args:
        items: files; videos have an order that workers would lose.
        recipe: how.
        journal: of the job; the shards lie beside it, in the folder ``shards``.
        identity: of the job, as the journal's.
        workers: how many, each with a GPU where there are GPUs, else with its share of the processors.
        progress: told of each image.

    Yields:
        What there is then.

    Raises:
        InputError: Ray is not installed, or no cluster can be reached.
    """
    folder = journal.path.parent / "shards"
    with contextlib.ExitStack() as stack:
        known = _open(folder, identity, stack, journal)
        missing = [item for item in items if item.key not in known]
        if progress is not None:
            progress.step(len(items) - len(missing))
    failed = _run(missing, recipe, folder, identity, workers, progress) if missing else {}
    with contextlib.ExitStack() as stack:
        yield Outcome(_open(folder, identity, stack, journal), len(missing) - len(failed), failed)


def _open(folder: Path, identity: dict[str, Any], stack: contextlib.ExitStack, journal: Journal) -> Journals:
    return Journals(journal, [stack.enter_context(Journal(file, identity)) for file in sorted(folder.glob("*.jsonl"))])


def _run(
    items: Sequence[Item],
    recipe: Recipe,
    folder: Path,
    identity: dict[str, Any],
    workers: int,
    progress: Progress | None,
) -> dict[str, str]:
    """Predicts items into shards; returns reasons by key of those that failed."""
    try:
        import ray
        import ray.data
    except ImportError as error:
        raise InputError('--ray needs Ray: pip install "maskrcnn_ext[ray]"') from error

    started = not ray.is_initialized()
    if started:
        told = {name: os.environ[name] for name in _VARIABLES if name in os.environ}
        try:
            ray.init(
                runtime_env={"env_vars": told}, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
            )
        except Exception as error:  # Ray's own, of many kinds
            raise InputError(f"--ray: no cluster can be reached or started: {' '.join(str(error).split())}") from error
    try:
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        resources = ray.cluster_resources()
        each = {"num_gpus": 1} if resources.get("GPU") else {"num_cpus": max(1, int(resources["CPU"] // workers))}
        size = max(1, min(_SHARD, len(items) // (workers * _SHARDS_EACH)))
        parts = [items[start : start + size] for start in range(0, len(items), size)]
        rows = [{"items": pickle.dumps([_absolute(item) for item in part])} for part in parts]
        data = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
            _Worker,
            fn_constructor_args=(recipe, str(folder.absolute()), identity),
            compute=ray.data.ActorPoolStrategy(size=workers),
            **each,
        )
        failed: dict[str, str] = {}
        for row in data.iter_rows():
            failed.update(json.loads(row["failed"]))
            if progress is not None:
                progress.step(row["count"], failed=len(failed))
        return failed
    finally:
        if started:
            ray.shutdown()


class _Worker:
    """Predicts shards, one at a time."""

    def __init__(self, recipe: Recipe, folder: str, identity: dict[str, Any]) -> None:
        torch.set_num_threads(max(1, int(os.environ.get("OMP_NUM_THREADS", "1"))))
        self._predictor = Predictor(**recipe.predictor)
        self._tiled = None
        if recipe.tile is not None:
            self._tiled = TiledPredictor(
                self._predictor, tile=recipe.tile, overlap=recipe.overlap, batch_size=recipe.batch_size
            )
        self._recipe, self._folder, self._identity = recipe, Path(folder), identity

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        items: list[Item] = pickle.loads(row["items"])
        failed: dict[str, str] = {}

        def fail(item: Item, error: Exception) -> None:
            text = " ".join(str(error).split())
            failed[item.key] = text if isinstance(error, InputError) else f"{type(error).__name__}: {text}"

        # The same items are the same shard, so that a second try goes on with what the first has found.
        name = hashlib.sha1("\n".join(item.key for item in items).encode()).hexdigest()[:16]
        with Journal(self._folder / f"{name}.jsonl", self._identity) as shard:
            finder = Finder(
                self._predictor,
                shard,
                fail,
                category_ids=self._recipe.category_ids,
                batch_size=self._recipe.batch_size,
                tiled=self._tiled,
            )
            for chunk in finder.chunks(items):
                finder.find(chunk)
        return {"failed": json.dumps(failed), "count": len(items)}


def _absolute(item: Item) -> Item:
    """The item with a path that leads to the file from any working directory."""
    name = item.image["file_name"]
    return item if "://" in name else replace(item, image={**item.image, "file_name": os.path.abspath(name)})  # noqa: PTH100
