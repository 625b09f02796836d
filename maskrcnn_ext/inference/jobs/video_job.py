"""Predicts the frames of videos and cameras as a job's items: every output, and videos with the objects drawn on them."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.inference.jobs.job import Job
from maskrcnn_ext.inference.outputs.overlays import overlay
from maskrcnn_ext.inference.outputs.scene import Scene
from maskrcnn_ext.inference.sources import Item, state_of
from maskrcnn_ext.inference.video.frames import VideoReader, VideoWriter
from maskrcnn_ext.inference.video.mots import MOTSWriter
from maskrcnn_ext.inference.video.tracking import Tracker


def predict_video(
    job: Job, source: str | int, folder: Path, *, name: str, first_id: int, kinds: Sequence[str], track: bool
) -> int:
    """Predicts a video; frames are items, and count from 1.

    Args:
        job: does the frames.
        source: a file, or the number of a camera, which is read until Ctrl-C.
        folder: gets ``video/<name>.mp4`` and ``mots/<name>.txt``.
        name: of the outputs, and the folder of the frames' own.
        first_id: the image id of the first frame.
        kinds: "video", "mots" (which needs `track`), both or none.
        track: whether objects get ids that last from frame to frame.

    Returns:
        How many frames there were.

    Raises:
        InputError: it cannot be read, or a file cannot be written.
    """
    count = 0
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source))
        stopped = stack.enter_context(_interrupt_noted()) if isinstance(source, int) else lambda: False

        def items() -> Iterator[Item]:
            nonlocal count
            label = f"camera:{source}" if isinstance(source, int) else source
            # What a camera shows is never seen again.
            key = f"{label}|{time.time_ns()}" if isinstance(source, int) else state_of(source)
            for count, frame in enumerate(reader, start=1):
                number = f"{count:06d}"
                yield Item(f"{key}|{number}", f"{name}/{number}", first_id + count - 1, frame, f"{label}@{count}")
                if stopped():
                    return

        writers: list[Callable[[Scene], None]] = []
        if "video" in kinds:
            file = stack.enter_context(atomic_path(folder / "video" / f"{name}.mp4"))
            video = stack.enter_context(VideoWriter(file, reader.size, reader.fps))
            writers.append(lambda scene: video.write(overlay(scene)))
        if "mots" in kinds:
            file = stack.enter_context(atomic_path(folder / "mots" / f"{name}.txt"))
            # KITTI MOTS' own numbers begin with 1.
            mots = stack.enter_context(MOTSWriter(file, range(1, len(job.predictor.classes.names) + 1)))
            # A frame without objects has no rows, and may not know that the model makes masks.
            writers.append(
                lambda scene: mots.write(scene.item.image_id - first_id, scene.found) if len(scene.found) else None
            )

        def show(scene: Scene) -> None:
            for write in writers:
                write(scene)

        job.run(items(), follow=Tracker().update if track else None, show=show if writers else None)
    return count


@contextlib.contextmanager
def _interrupt_noted() -> Iterator[Callable[[], bool]]:
    """Gives what says whether Ctrl-C was pressed, which ends nothing by itself the first time."""
    pressed = False

    def note(*_: Any) -> None:
        nonlocal pressed
        pressed = True
        signal.signal(signal.SIGINT, before)

    before = signal.signal(signal.SIGINT, note)
    try:
        yield lambda: pressed
    finally:
        signal.signal(signal.SIGINT, before)
