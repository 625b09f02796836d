"""The pictures of a run: wrong and missed objects are orange, and images that cannot be read are lines of text."""

import base64
import json
import re
import shutil

import cv2
import numpy as np
import pytest

from maskrcnn_ext.cli.report import evaluate_run, write_run_page
from maskrcnn_ext.report.run import read_run
from tests.helpers.pages import ParsedPage
from tests.helpers.run_folders import shapes_run


@pytest.fixture
def run_folder(shapes, tmp_path):
    return shapes_run(tmp_path / "run", shapes)


def test_the_pictures_show_wrong_and_missed_objects(run_folder, shapes):
    page = ParsedPage(write_run_page(run_folder, run_folder / "report.html"))
    data = json.loads(shapes.read_text())
    names = {image["id"]: image["file_name"] for image in data["images"]}
    first = data["annotations"][0]
    name = next(own["name"] for own in data["categories"] if own["id"] == first["category_id"])
    captions = re.findall(r"<figcaption[^>]*><b>([^<]*)</b> ([^<]*)</figcaption>", page.text)
    assert ("disc 0.95: no object there", names[data["annotations"][-1]["image_id"]]) in captions
    assert (f"{name} of {first['area']:,.0f} pixels", names[first["image_id"]]) in captions
    assert len(captions) == 8 + 2, "four worst, four best, one wrong, one missed"
    assert page.images == 2 * len(captions)


def test_wrong_and_missed_are_orange_and_the_rest_is_blue(run_folder):
    _, evaluated, _ = evaluate_run(read_run(run_folder), 0.5)
    worst = evaluated.galleries("segm")["worst"]

    def colored(address, color):
        data = np.frombuffer(base64.b64decode(address.partition(",")[2]), np.uint8)
        picture = cv2.imdecode(data, cv2.IMREAD_COLOR).astype(int)
        return (np.abs(picture - color).max(axis=2) < 40).mean()

    orange, blue = (0, 140, 255), (233, 180, 86)
    (_, truth), (_, predicted) = next(own for own in worst if "1 missed" in own["caption"])["pictures"]
    assert colored(truth, orange) > 2 * colored(predicted, orange)
    assert colored(truth, blue) > 0


def test_images_that_are_gone_are_lines(shapes, tmp_path):
    shutil.copytree(shapes.parent, tmp_path / "data")
    moved = tmp_path / "data" / shapes.name
    folder = shapes_run(tmp_path / "run", moved)
    images = sorted((moved.parent / "images").iterdir())
    images[0].unlink()
    cv2.imwrite(str(images[1]), np.zeros((5, 5, 3), np.uint8))
    page = ParsedPage(write_run_page(folder, folder / "report.html"))
    assert f"no such file: {images[0]}" in page.text
    assert f"{images[1]} has 5 x 5 pixels, the annotations say 96 x 96" in page.text
    assert 0 < page.images < 20
