"""Each image has its own answer: objects, or an error."""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.ops.rle import decode_rle, segmentation_to_rle
from maskrcnn_ext.serving.answers import Answerer, Request
from tests.helpers.served_models import RAISES, BrightDetector, png


@pytest.fixture
def answer():
    answerer = Answerer(BrightDetector(), max_pixels=10_000)

    def answer(*requests):
        return [(status, json.loads(body)) for status, body in answerer(requests)]

    return answer


def test_objects_of_an_image(answer):
    ((status, found),) = answer(Request(png(8, 6)))
    assert (status, found["width"], found["height"]) == (200, 8, 6)
    (one,) = found["objects"]
    assert (one["class"], one["category_id"], one["score"]) == ("bright", 1, 1)
    assert decode_rle(one["segmentation"]).all()


@pytest.mark.parametrize("masks", ["rle", "polygons"])
def test_masks_have_the_same_pixels_in_each_form(answer, masks):
    image = np.zeros((20, 30), np.uint8)
    image[4:12, 5:25] = 200
    image[6:8, 9:12] = 0  # a hole
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "png")
    ((_, found),) = answer(Request(buffer.getvalue(), masks=masks))
    rle = segmentation_to_rle(found["objects"][0]["segmentation"], 20, 30)
    np.testing.assert_array_equal(decode_rle(rle), image > 127)


def test_settings_of_a_request(answer):
    results = answer(Request(png(value=200), threshold=0.9), Request(png(value=200), threshold=0.5, masks="none"))
    assert results[0][1]["objects"] == []
    assert "segmentation" not in results[1][1]["objects"][0]
    assert answer() == []


def bomb(width, height):
    """A PNG of a few bytes that says it has these sides."""

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    head = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    ("content", "status", "message"),
    [
        (b"", 415, "not an image"),
        (b"hello", 415, "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", 415, "not an image"),
        (bomb(101, 100), 413, "101 x 100 pixels are more than the 10000"),
        (bomb(60_000, 60_000), 413, ""),
        (bomb(90, 90), 400, "cannot be read"),
        (png(90, 90)[:60], 400, "cannot be read"),
    ],
)
def test_bad_images_do_not_disturb_good_ones(answer, content, status, message):
    first, bad, last = answer(Request(png()), Request(content), Request(png()))
    assert bad[0] == status
    assert message in bad[1]["error"]
    assert first[0] == last[0] == 200


def test_a_batch_that_fails_is_predicted_one_by_one(answer):
    first, bad, last = answer(Request(png()), Request(png(RAISES)), Request(png()))
    assert bad == (500, {"error": "the prediction failed (out of memory)"})
    assert first[0] == last[0] == 200
