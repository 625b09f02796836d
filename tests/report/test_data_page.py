"""The page of a dataset: pictures of its faults, its objects in numbers, and names as text."""

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.data.check import find_faults, read_images, view_dataset
from maskrcnn_ext.data.check.anchors import suggest_anchors
from maskrcnn_ext.report.charts import histogram
from maskrcnn_ext.report.data_page import fault_pictures, write_data_page
from tests.helpers.pages import ParsedPage


@pytest.fixture
def view(tmp_path):
    """One image with a box beyond its edge and an object without a fault."""
    pixels = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    images = [{"id": 1, "file_name": "a.png", "height": 60, "width": 80}]
    boxes = [[70, 5, 30, 20], [5, 5, 20, 20]]
    annotations = [{"id": i, "image_id": 1, "category_id": 1, "bbox": box} for i, box in enumerate(boxes)]
    data = {"images": images, "annotations": annotations, "categories": [{"id": 1, "name": "cell"}]}
    return view_dataset(data, tmp_path, "cells")


def test_the_page_shows_faults_with_pictures_and_the_advice(view, tmp_path):
    faults, advice = find_faults(view, read_images(view)), suggest_anchors(view)
    page = ParsedPage(write_data_page(view, faults, advice, tmp_path / "out/page.html"))
    assert all(address.startswith(("data:image/jpeg;base64,", "#")) for address in page.addresses)
    assert "box-beyond-image (1): a box that extends beyond its image" in page.text
    assert "Fix: --fix writes a copy with the box clipped" in page.text
    assert page.images == 2, "a sample and the fault"
    assert "<b>2 objects</b> a.png" in page.text
    assert page.table("image", "annotation")[0][:2] == ["1 (a.png)", "0"]
    assert advice.anchor_overrides in page.text
    assert page.text.count("<svg") == 3


def test_a_page_without_faults_objects_and_advice(tmp_path):
    empty = view_dataset({"images": [], "annotations": [], "categories": []}, tmp_path, "nothing")
    page = ParsedPage(write_data_page(empty, [], None, tmp_path / "page.html"))
    assert "No faults were found." in page.text
    assert "Anchors and input size" not in page.text
    assert "<svg" not in page.text


def test_names_from_the_file_are_text_on_the_page(tmp_path):
    """Annotation files come from elsewhere: a name must not become markup, nor a formula of the charts."""
    evil = "<script>alert(1)</script> $x^2$"
    images = [{"id": 1, "file_name": f"{evil}.jpg", "height": 9, "width": 9}]
    data = {"images": images, "annotations": [], "categories": [{"id": 1, "name": evil}]}
    view = view_dataset(data, tmp_path, "set")
    text = write_data_page(view, find_faults(view), None, tmp_path / "page.html").read_text()
    assert "<script>" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt; $x^2$" in text


def test_a_fault_has_pictures_of_all_its_images(view):
    faults = {fault.kind: fault for fault in find_faults(view)}
    fault = faults["box-beyond-image"]
    assert len(fault_pictures(fault, [])) == 1
    pair = type(fault)("leak-near", "", fault.image, None, fault.image)
    assert len(fault_pictures(pair, [])) == 2
    assert fault_pictures(type(fault)("class-gap", ""), []) == []
    fault.image.path = Path("missing.png")
    assert fault_pictures(fault, []) == []


def test_samples_show_each_class_in_its_colour(tmp_path):
    Image.fromarray(np.zeros((40, 80, 3), np.uint8)).save(tmp_path / "a.png")
    annotations = [
        {"id": i, "image_id": 1, "category_id": i, "bbox": [x, 5, 30, 30], "segmentation": [[x, 5, x + 30, 5, x + 30, 35, x, 35]]}
        for i, x in enumerate((5, 45), start=1)
    ]  # fmt: skip
    images = [{"id": 1, "file_name": "a.png", "height": 40, "width": 80}]
    data = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": 1, "name": "fig"}, {"id": 2, "name": "nut"}],
    }
    page = ParsedPage(write_data_page(view_dataset(data, tmp_path, "two"), [], None, tmp_path / "page.html"))
    assert re.findall(r'<i style="background: (rgb[^"]*)"></i>(\w+)', page.text) == [
        ("rgb(86, 180, 233)", "fig"),
        ("rgb(255, 140, 0)", "nut"),
    ]
    encoded = base64.b64decode(page.addresses[0].partition(",")[2])
    red, _, blue = np.moveaxis(np.asarray(Image.open(io.BytesIO(encoded)), int), 2, 0)
    left, right = np.s_[60:180, 60:180], np.s_[60:180, 300:420]
    assert (blue[left] > red[left]).all()
    assert (red[right] > blue[right]).all()


def test_sizes_have_plain_ticks():
    svg = histogram([6.0, 30.0, 90.0], xlabel="size", ylabel="objects", log=True)
    assert [text for text in re.findall(r">([^<>]+)</text>", svg) if text in {"10", "20", "50"}] == ["10", "20", "50"]
    assert "10^" not in svg
