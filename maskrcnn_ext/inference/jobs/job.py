"""Predicts many images and saves what is found: in true batches, able to go on after a kill, and past images that fail."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.structures import Instances

from maskrcnn_ext.common.files import JsonListWriter, write_atomic
from maskrcnn_ext.common.progress import Progress
from maskrcnn_ext.data.tools.browse import to_bgr
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.jobs.batch_runner import Finder
from maskrcnn_ext.inference.jobs.journal import Journal, Journals
from maskrcnn_ext.inference.outputs import find_output
from maskrcnn_ext.inference.outputs.scene import Scene
from maskrcnn_ext.inference.predictor import Predictor
from maskrcnn_ext.inference.results import from_coco, to_coco
from maskrcnn_ext.inference.sources import Item
from maskrcnn_ext.inference.tiling.predictor import TiledPredictor


@dataclass(frozen=True)
class Settings:
    """How a job predicts and what it saves.

    Attributes:
        outputs: kinds of :data:`maskrcnn_ext.inference.outputs.OUTPUTS`.
        threshold: least score of the objects in them; results files have all objects.
        batch_size: images that are predicted at once where they have one size.
        category_ids: the id of every class in results files.
    """

    outputs: Sequence[str] = ()
    threshold: float = 0.5
    batch_size: int = 1
    category_ids: Sequence[int] = ()


@dataclass
class Summary:
    """What a job has done so far.

    Attributes:
        images: that have results, also those from an earlier run.
        objects: in them, from the threshold on.
        predicted: images that this run has predicted.
        failed: a line for each image of which something is missing, by the item's name: the file, and why.
    """

    images: int = 0
    objects: int = 0
    predicted: int = 0
    failed: dict[str, str] = field(default_factory=dict)


class Job:
    """Predicts items and writes ``predictions.json`` (COCO's results), ``images.json`` (their images and categories), outputs and
    ``failed.txt``.

    A context manager: the files are written when it ends without an error. What the journal has is not predicted again, and what is
    saved already as it is wanted is not made again.
    """

    def __init__(
        self,
        predictor: Predictor,
        folder: Path,
        journal: Journal | Journals,
        settings: Settings,
        *,
        tiled: TiledPredictor | None = None,
        progress: Progress | None = None,
    ) -> None:
        """Begins.

        Args:
            predictor: the model.
            folder: where everything is written.
            journal: whose identity names what results depend on; see :class:`maskrcnn_ext.inference.jobs.journal.Journal`.
            settings: what to save.
            tiled: predicts instead of `predictor` itself.
            progress: told of each image.

        Raises:
            InputError: an unknown kind of output, or a folder that cannot be written.
        """
        self.summary = Summary()
        self.settings = settings
        self.predictor = predictor
        self._folder = folder
        self._journal = journal
        self._outputs = {kind: find_output(kind) for kind in settings.outputs}
        self._finder = Finder(
            predictor,
            journal,
            self.fail,
            category_ids=settings.category_ids,
            batch_size=settings.batch_size,
            tiled=tiled,
        )
        self._progress = progress
        self._results = JsonListWriter(folder / "predictions.json")
        self._images: list[dict[str, Any]] = []

    def run(
        self,
        items: Iterable[Item],
        *,
        follow: Callable[[Instances], Instances] | None = None,
        show: Callable[[Scene], None] | None = None,
    ) -> None:
        """Predicts items in their order.

        Args:
            items: taken a few at a time.
            follow: changes what is found before it is saved, such as a tracker's ``update``.
            show: is given the scene of each item, which holds its pixels: frames. One that failed is shown without objects.

        Raises:
            InputError: a file cannot be written.
        """
        needs_pixels = bool(self._outputs) or show is not None
        for chunk in self._finder.chunks(items):
            before = self._finder.predicted
            pixels = self._finder.find(chunk)
            self.summary.predicted += self._finder.predicted - before
            for item, _ in chunk:
                self._finish(item, pixels.get(item.key) if needs_pixels else None, follow, show)

    def __enter__(self) -> Job:
        return self

    def __exit__(self, *error: Any) -> None:
        self._results.__exit__(*error)
        if error[0] is not None:
            return
        classes = zip(self.settings.category_ids, self.predictor.classes.names, strict=True)
        content = {"images": self._images, "categories": [{"id": own, "name": name} for own, name in classes]}
        write_atomic(self._folder / "images.json", json.dumps(content).encode("ascii"))
        lines = [f"{line}\n" for line in self.summary.failed.values()]
        (self._folder / "failed.txt").unlink(missing_ok=True)
        if lines:
            write_atomic(self._folder / "failed.txt", "".join(lines).encode("utf-8", "backslashreplace"))

    def _finish(
        self,
        item: Item,
        pixels: np.ndarray | None,
        follow: Callable[[Instances], Instances] | None,
        show: Callable[[Scene], None] | None,
    ) -> None:
        """Saves what the journal holds of an item."""
        value = self._journal.get(item.key)
        if value is not None:
            size, results = tuple(value["size"]), value["results"]
            found = from_coco(results, size, self.settings.category_ids)
            if follow is not None:
                found = follow(found)
                results = to_coco(found, None, self.settings.category_ids)
            scene = self._scene(item, found, pixels)
            self._results.extend({**result, "image_id": item.image_id} for result in results)
            self._images.append({"id": item.image_id, "file_name": item.file_name, "height": size[0], "width": size[1]})
            self.summary.images += 1
            self.summary.objects += len(scene.found)
            self._save(scene)
        elif show is not None:
            scene = self._scene(item, from_coco([], item.image.shape[:2], ()), pixels)
        if show is not None:
            show(scene)
        if self._progress is not None:
            self._progress.step(failed=len(self.summary.failed))

    def _scene(self, item: Item, found: Instances, pixels: np.ndarray | None) -> Scene:
        def load() -> np.ndarray:
            stored = self.predictor.pixels(item.image) if pixels is None else pixels
            return to_bgr(stored, self.predictor.image_format)

        order = found.scores.argsort(descending=True, stable=True)
        shown = found[order[found.scores[order] >= self.settings.threshold]]
        return Scene(item, shown, self.predictor.classes, load)

    def _save(self, scene: Scene) -> None:
        """Makes the outputs that are not there as they are wanted, and remembers in the journal what they were made of."""
        if not self._outputs:
            return
        name = scene.item.name
        state = [scene.item.key, self.settings.threshold, scene.found.has("track_ids")]
        known = self._journal.get(f"outputs of {name}")
        saved = known["files"] if known and known["state"] == state else {}
        made = {}
        for kind, output in self._outputs.items():
            if kind in saved and all((self._folder / kind / file).is_file() for file in saved[kind]):
                continue
            try:
                files = output(scene)
            except Exception as error:
                self.fail(scene.item, error, kind)
                continue
            for old in (self._folder / kind / name).glob("*.png"):  # objects of an earlier run
                old.unlink()
            for file, content in files.items():
                write_atomic(self._folder / kind / file, content)
            made[kind] = list(files)
        if made:
            self._journal.add(f"outputs of {name}", {"state": state, "files": {**saved, **made}})

    def fail(self, item: Item, error: Exception, kind: str = "") -> None:
        """Takes down that an item, or its output of a kind, cannot be made, and why."""
        text = " ".join(str(error).split())
        if not isinstance(error, InputError):
            text = f"{type(error).__name__}: {text}"
        reason = text.removeprefix(f"{item.file_name}: ")
        self.summary.failed[item.name] = f"{item.file_name}: {kind + ': ' if kind else ''}{reason}"
