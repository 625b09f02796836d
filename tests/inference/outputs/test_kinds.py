"""The outputs that are saved: defaults, several names, and kinds that do not fit the inputs."""

import pytest

from maskrcnn_ext import InputError
from maskrcnn_ext.inference.outputs.kinds import choose_kinds


def choose(save=None, *, images=True, videos=False, tracks=False):
    return choose_kinds(save, has_images=images, has_videos=videos, tracks=tracks)


def test_images_get_overlays_and_videos_a_video():
    assert choose() == ["overlays"]
    assert choose(videos=True) == ["overlays", "video"]
    assert choose(images=False, videos=True) == ["video"]


def test_each_kind_once_and_json_is_nothing_else():
    assert choose("json") == []
    assert choose("crops,json,table,crops") == ["crops", "table"]
    assert choose("labelstudio") == ["label-studio"]
    assert choose("video,mots", videos=True, tracks=True) == ["video", "mots"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"save": "crop"}, "--save crop: expected some of json, overlays"),
        ({"save": "video"}, "--save video: no INPUT is a video"),
        ({"save": "cvat", "videos": True}, "cut the video into frames first"),
        ({"save": "mots", "videos": True}, "add --track"),
        ({"tracks": True}, "--track: no INPUT is a video"),
    ],
)
def test_outputs_that_do_not_fit_are_one_line(options, message):
    with pytest.raises(InputError, match=message):
        choose(**options)
