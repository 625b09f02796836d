"""Which kinds of output a prediction saves beside the COCO results."""

from __future__ import annotations

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.inference.outputs import OUTPUTS
from maskrcnn_ext.inference.outputs.label_files import LABEL_KINDS

VIDEO_KINDS = ("video", "mots")


def choose_kinds(save: str | None, *, has_images: bool, has_videos: bool, tracks: bool) -> list[str]:
    """Returns the kinds to save in addition to the COCO results, each once.

    Args:
        save: kinds separated by commas; "json" adds nothing. None: overlays of images, and videos of videos.
        has_images: whether an input is an image.
        has_videos: whether an input is a video.
        tracks: whether objects are tracked through the videos.

    Raises:
        InputError: a kind is unknown, does not fit the inputs, or needs a package that is not installed.

    Example:
        >>> choose_kinds("json,crops,crops", has_images=True, has_videos=False, tracks=False)
        ['crops']
    """
    if tracks and not has_videos:
        raise InputError("--track: no INPUT is a video")
    if save is None:
        return (["overlays"] if has_images else []) + (["video"] if has_videos else [])
    chosen = save.replace("labelstudio", "label-studio").split(",")
    kinds = [kind for kind in dict.fromkeys(chosen) if kind != "json"]
    known = (*OUTPUTS, "parquet", *LABEL_KINDS, *VIDEO_KINDS)
    for kind in kinds:
        if kind not in known:
            raise InputError(f"--save {kind}: expected some of json, {', '.join(known)}, separated by commas")
        if kind in VIDEO_KINDS and not has_videos:
            raise InputError(f"--save {kind}: no INPUT is a video")
        if kind in LABEL_KINDS and has_videos:
            raise InputError(f"--save {kind}: label tools open images: cut the video into frames first")
    if "parquet" in kinds:  # before a prediction that may take hours
        require("pyarrow", extra="parquet", purpose="--save parquet")
    if "mots" in kinds and not tracks:
        raise InputError("--save mots: MOTS results contain tracks: add --track")
    return kinds
