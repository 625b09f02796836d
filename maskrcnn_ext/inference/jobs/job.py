"""Predicts many images and saves the results; a run that was stopped continues where it was, and failing images are listed."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.common.files import JsonListWriter, WriteError, remove_partials, write_atomic
from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.inference.base_predictor import BasePredictor
from maskrcnn_ext.inference.jobs.batch_runner import BatchRunner, failure_reason
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.outputs import OBJECT_OUTPUTS, find_output
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.results import from_coco, to_coco
from maskrcnn_ext.inference.sources import InputImage
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor


@dataclass(frozen=True)
class JobSettings:
    """The settings of the predictions and outputs of a job.

    Attributes:
        outputs: kinds of :data:`maskrcnn_ext.inference.outputs.OUTPUTS`.
        threshold: least score of the objects in the outputs; results files have all objects.
        batch_size: images of one size that are predicted at once.
        category_ids: the id of each class in results files.
    """

    outputs: Sequence[str] = ()
    threshold: float = 0.5
    batch_size: int = 1
    category_ids: Sequence[int] = ()


@dataclass
class JobSummary:
    """Counts of a job so far.

    Attributes:
        images: images that have results, those of earlier runs included.
        objects: objects in them whose score reaches the threshold.
        predicted: images that this run has predicted.
        names: names of the items that have results, in order.
        failed: by item name, a line with the file and the reason, for each image of which results or outputs are missing.
    """

    images: int = 0
    objects: int = 0
    predicted: int = 0
    names: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)


class Job:
    """Predicts items and writes ``predictions.json`` (COCO results), ``images.json`` (their images and categories), the outputs, and
    ``failed.txt`` if images failed.

    A context manager: the files are written when it ends without an error. Images that the journal has are not predicted again, and
    outputs that exist already are not made again.

    Example:
        ::

            with Journal(folder / "journal.jsonl", identity) as journal, Job(predictor, folder, journal, JobSettings()) as job:
                job.run(find_inputs(["images/"]).items)
    """

    def __init__(
        self,
        predictor: BasePredictor,
        folder: Path,
        journal: Journal | Journals,
        settings: JobSettings,
        *,
        tiled: TiledPredictor | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Opens the results file.

        Args:
            predictor: the model.
            folder: where everything is written.
            journal: stores results; its identity names all that they depend on, see :class:`maskrcnn_ext.inference.jobs.journal.Journal`.
            settings: what to save.
            tiled: predicts the images tile by tile, instead of `predictor`.
            progress: is stepped for each image.

        Raises:
            InputError: a kind of output is unknown, or the folder cannot be written.
        """
        self.summary = JobSummary()
        self.settings = settings
        self.predictor = predictor
        self._folder = folder
        self._journal = journal
        self._outputs = {kind: find_output(kind) for kind in settings.outputs}
        self._runner = BatchRunner(
            predictor,
            journal,
            self.add_failure,
            category_ids=settings.category_ids,
            batch_size=settings.batch_size,
            tiled=tiled,
        )
        self._progress = progress
        remove_partials(folder)  # of a run that was killed; the journal's lock keeps other runs out
        self._results = JsonListWriter(folder / "predictions.json")
        self._images: list[dict[str, Any]] = []

    def run(
        self,
        items: Iterable[InputImage],
        *,
        track: Callable[[Instances], Instances] | None = None,
        on_predicted: Callable[[PredictedImage], None] | None = None,
    ) -> None:
        """Predicts items in their order.

        Args:
            items: the images; a few are taken at a time.
            track: changes the instances of each image before they are saved, such as a tracker's ``update``.
            on_predicted: called with each video frame and its objects, in order; a frame that failed has no objects.

        Raises:
            InputError: a file cannot be written.
        """
        needs_pixels = bool(self._outputs) or on_predicted is not None
        for chunk in self._runner.chunks(items):
            before = self._runner.predicted
            pixels = self._runner.predict_missing(chunk)
            self.summary.predicted += self._runner.predicted - before
            for item, _ in chunk:
                self._save_item(item, pixels.get(item.key) if needs_pixels else None, track, on_predicted)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: Any) -> None:
        self._results.__exit__(*error)
        if error[0] is not None:
            return
        classes = zip(self.settings.category_ids, self.predictor.classes.names, strict=True)
        categories = [{"id": category_id, "name": name} for category_id, name in classes]
        write_atomic(self._folder / "images.json", json.dumps({"images": self._images, "categories": categories}))
        lines = [f"{line}\n" for line in self.summary.failed.values()]
        (self._folder / "failed.txt").unlink(missing_ok=True)
        if lines:
            write_atomic(self._folder / "failed.txt", "".join(lines).encode("utf-8", "backslashreplace"))

    def add_failure(self, item: InputImage, error: Exception, kind: str = "") -> None:
        """Records that an item, or its output of a kind, could not be made, and why."""
        reason = failure_reason(error).removeprefix(f"{item.file_name}: ")
        self.summary.failed[item.name] = f"{item.file_name}: {kind + ': ' if kind else ''}{reason}"

    def _save_item(
        self,
        item: InputImage,
        pixels: np.ndarray | None,
        track: Callable[[Instances], Instances] | None,
        on_predicted: Callable[[PredictedImage], None] | None,
    ) -> None:
        """Saves the results and outputs of an item that the journal has."""
        value = self._journal.get(item.key)
        if value is not None:
            size, results = tuple(value["size"]), value["results"]
            instances = from_coco(results, size, self.settings.category_ids)
            if track is not None:
                instances = track(instances)
                results = to_coco(instances, None, self.settings.category_ids)
            predicted = self._predicted_image(item, instances, pixels)
            self._results.extend({**result, "image_id": item.image_id} for result in results)
            self._images.append({"id": item.image_id, "file_name": item.file_name, "height": size[0], "width": size[1]})
            self.summary.images += 1
            self.summary.names.append(item.name)
            self.summary.objects += len(predicted.instances)
            self._save_outputs(predicted)
        elif on_predicted is not None:
            predicted = self._predicted_image(item, from_coco([], item.image.shape[:2], ()), pixels)
        if on_predicted is not None:
            on_predicted(predicted)
        if self._progress is not None:
            self._progress.step(failed=len(self.summary.failed))

    def _predicted_image(self, item: InputImage, instances: Instances, pixels: np.ndarray | None) -> PredictedImage:
        """Returns the item with the instances that reach the threshold, the highest score first."""

        def read_values() -> np.ndarray:
            return self.predictor.pixels(item.image) if pixels is None else pixels

        def read() -> np.ndarray:
            return to_bgr(read_values(), self.predictor.image_format)

        order = instances.scores.argsort(descending=True, stable=True)
        shown = instances[order[instances.scores[order] >= self.settings.threshold]]
        return PredictedImage(item, shown, self.predictor.classes, read, read_values, self.predictor.image_format)

    def _save_outputs(self, predicted: PredictedImage) -> None:
        """Makes the outputs that are missing or out of date. The journal stores the inputs of the existing ones."""
        if not self._outputs:
            return
        name = predicted.item.name
        state = [predicted.item.key, self.settings.threshold, predicted.instances.has("track_ids")]
        known = self._journal.get(f"outputs of {name}")
        saved = known["files"] if known and known["state"] == state else {}
        made = {}
        for kind, output in self._outputs.items():
            if kind in saved and all((self._folder / kind / file).is_file() for file in saved[kind]):
                continue
            try:
                files = output(predicted)
            except Exception as error:
                self.add_failure(predicted.item, error, kind)
                continue
            # Of the other kinds, the folder with the name of an image has the outputs of images below a folder of that name.
            if kind in OBJECT_OUTPUTS:
                for old in (self._folder / kind / name).glob("*.png"):  # objects of an earlier run
                    if old.is_file():
                        old.unlink()
            try:
                for file, content in files.items():
                    write_atomic(self._folder / kind / file, content)
            except WriteError as error:
                if not _is_too_long(error):
                    raise
                self.add_failure(predicted.item, error, kind)
                continue
            made[kind] = list(files)
        if made:
            self._journal.add(f"outputs of {name}", {"state": state, "files": {**saved, **made}})


def _is_too_long(error: WriteError) -> bool:
    """Returns whether a file cannot be written because of its name, which is no obstacle for other files."""
    return isinstance(error.__cause__, OSError) and error.__cause__.errno == errno.ENAMETOOLONG
