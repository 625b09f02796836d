"""Predicts the frames of a video or camera as the items of a job, and writes videos with the objects drawn on them."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from maskrcnn_ext.common.files import atomic_path
from maskrcnn_ext.inference.jobs.job import Job
from maskrcnn_ext.inference.outputs.overlays import draw_overlay
from maskrcnn_ext.inference.outputs.predicted_image import PredictedImage
from maskrcnn_ext.inference.sources import InputImage, Inputs, file_state
from maskrcnn_ext.inference.video.frames import VideoReader
from maskrcnn_ext.inference.video.mots import MOTSWriter
from maskrcnn_ext.inference.video.tracking import Tracker
from maskrcnn_ext.inference.video.writer import VideoWriter


def name_videos(inputs: Inputs) -> list[tuple[str, str | int]]:
    """Returns each video with a name for its outputs that no other video and no folder of the images has.

    Example:
        >>> name_videos(Inputs([], ["a/clip.mp4", 0, "b/clip.mp4"]))
        [('clip', 'a/clip.mp4'), ('camera_0', 0), ('clip_2', 'b/clip.mp4')]
    """
    names: list[tuple[str, str | int]] = []
    taken = {item.name.split("/")[0] for item in inputs.items}
    for video in inputs.videos:
        stem = f"camera_{video}" if isinstance(video, int) else Path(video).stem
        unique, number = stem, 1
        while unique in taken:
            number += 1
            unique = f"{stem}_{number}"
        names.append((unique, video))
        taken.add(unique)
    return names


def predict_video(
    job: Job, source: str | int, folder: Path, *, name: str, first_id: int, kinds: Sequence[str], track: bool
) -> int:
    """Predicts a video. Its frames are items, numbered from 1.

    Args:
        job: predicts the frames and saves their results and outputs.
        source: a file, or the number of a camera, which is read until Ctrl-C or SIGTERM.
        folder: folder for ``video/<name>.mp4`` and ``mots/<name>.txt``.
        name: name of these files, and of the folder of each frame's outputs.
        first_id: image id of the first frame.
        kinds: ``"video"``, ``"mots"`` (needs `track`), both or none.
        track: whether to give each object an id that it keeps from frame to frame.

    Returns:
        The number of frames.

    Raises:
        InputError: the video cannot be read, or a file cannot be written.

    Example:
        ::

            predict_video(job, "clip.mp4", folder, name="clip", first_id=1, kinds=["video"], track=True)
    """
    count = 0
    with contextlib.ExitStack() as stack:
        reader = stack.enter_context(VideoReader(source))
        is_stopped = stack.enter_context(_catch_interrupt()) if isinstance(source, int) else lambda: False

        def frames() -> Iterator[InputImage]:
            nonlocal count
            label = f"camera:{source}" if isinstance(source, int) else source
            # The time makes a camera's keys unique: its frames never come again.
            key = f"{label}|{time.time_ns()}" if isinstance(source, int) else file_state(source)
            for count, frame in enumerate(reader, start=1):
                number = f"{count:06d}"
                yield InputImage(f"{key}|{number}", f"{name}/{number}", first_id + count - 1, frame, f"{label}@{count}")
                if is_stopped():
                    return

        writers: list[Callable[[PredictedImage], None]] = []
        if "video" in kinds:
            file = stack.enter_context(atomic_path(folder / "video" / f"{name}.mp4"))
            video = stack.enter_context(VideoWriter(file, reader.size, reader.fps))
            writers.append(lambda frame: video.write(draw_overlay(frame)))
        if "mots" in kinds:
            file = stack.enter_context(atomic_path(folder / "mots" / f"{name}.txt"))
            # KITTI MOTS numbers classes from 1.
            mots = stack.enter_context(MOTSWriter(file, range(1, len(job.predictor.classes.names) + 1)))

            def write_mots(frame: PredictedImage) -> None:
                # A frame without objects has no rows; its instances may lack the field for masks.
                if len(frame.instances):
                    mots.write(frame.item.image_id - first_id, frame.instances)

            writers.append(write_mots)

        def write(frame: PredictedImage) -> None:
            for writer in writers:
                writer(frame)

        job.run(frames(), track=Tracker().update if track else None, on_predicted=write if writers else None)
    return count


@contextlib.contextmanager
def _catch_interrupt() -> Iterator[Callable[[], bool]]:
    """Yields a function that returns whether Ctrl-C was pressed or SIGTERM arrived. The first one raises nothing, a second one does."""
    is_stopped = False

    def note(*_: Any) -> None:
        nonlocal is_stopped
        is_stopped = True
        restore()

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield lambda: is_stopped
    finally:
        restore()
