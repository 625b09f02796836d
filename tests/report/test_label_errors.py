"""The page of suspect labels: crops with both outlines, and images that cannot be read are left out."""

import cv2
import numpy as np

from maskrcnn_ext.report.label_errors import Outline, SuspectLabel, draw_suspect, write_label_errors_page

SQUARE = Outline((40.0, 30, 60, 50), [[40, 30, 60, 30, 60, 50, 40, 50]], "a")
BOX = Outline((100.0, 0, 140, 20), None, "b")


def suspect(file, label, found, image_id=1):
    return SuspectLabel({"file_name": str(file), "image_id": image_id}, "no a here", 0.75, label, found)


def test_a_crop_shows_the_label_and_the_detection():
    pixels = np.zeros((90, 130, 3), np.uint8)
    both, label, found = (
        draw_suspect(pixels, suspect("", *pair)) for pair in ((SQUARE, BOX), (SQUARE, None), (None, BOX))
    )
    assert max(both.shape) == max(label.shape) == max(found.shape) == 240
    orange, blue = (0, 140, 255), (233, 180, 86)

    def share(picture, color):
        return (np.abs(picture.astype(int) - color).max(axis=2) < 60).mean()

    assert share(label, orange) > 0
    assert share(label, blue) == 0
    assert share(found, blue) > 0
    assert share(found, orange) == 0
    assert label.shape[0] == label.shape[1]  # the crop of a square


def test_the_page_has_a_picture_for_each_suspect_that_can_be_read(tmp_path):
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((90, 130, 3), np.uint8))
    good = suspect(tmp_path / "a.png", SQUARE, BOX)
    gone = suspect(tmp_path / "gone.png", SQUARE, None, image_id=2)
    page = write_label_errors_page(tmp_path / "index.html", [good, gone, good], title="<t>", text="3 suspects")
    html = page.read_text()
    assert html.count("<figure>") == html.count("no a here, 0.75") == 2
    assert html.count("<br>a.png</figcaption>") == 2  # without its folder
    assert "&lt;t&gt;" in html
    assert "3 suspects" in html
