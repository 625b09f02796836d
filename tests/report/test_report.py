"""The report of a run: what it reads, what it draws, and a page that needs nothing beside it."""

import html.parser
import json
import re

import numpy as np
import pytest
from detectron2.config import LazyConfig

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.report import read_run, write_report
from maskrcnn_ext.report.curves import plot
from maskrcnn_ext.report.draw import Item, decode, draw, palette

RED = (0, 0, 255)


@pytest.fixture
def run_folder(shapes, tmp_path):
    """What training leaves, with the ground truth as its predictions but for one object, which is missed."""
    cfg = get_config("domains/shapes.py")
    cfg.dataloader.test.dataset.names = f"coco:{shapes}@{shapes.parent / 'images'}"
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    lines = [
        {"iteration": 0, "total_loss": 3.0, "loss_cls": 1.0},
        {"iteration": 9, "total_loss": 1.0, "loss_cls": 0.5},
        {
            "iteration": 10,
            "segm/AP": 41.25,
            "segm/AP50": 70.0,
            "segm/APl": float("nan"),
            "segm/AP-disc": 50.5,
            "bbox/AP": 45.0,
        },
    ]
    (tmp_path / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (tmp_path / "inference").mkdir()
    found = [{**a, "score": 0.9} for a in json.loads(shapes.read_text())["annotations"][1:]]
    (tmp_path / "inference/coco_instances_results.json").write_text(json.dumps(found))
    return tmp_path


def test_a_run_is_read_whole(run_folder, shapes):
    run = read_run(run_folder)
    data = json.loads(shapes.read_text())
    assert run.results["segm/AP"] == 41.25
    assert run.classes == ["disc", "rectangle", "triangle", "star", "ring"]
    assert len(run.images) == len(data["images"])
    assert sum(map(len, run.detections.values())) == len(data["annotations"]) - 1
    annotation = data["annotations"][-1]
    detection = run.detections[annotation["image_id"]][-1]
    assert detection.category == annotation["category_id"] - 1
    assert detection.box[2] - detection.box[0] == annotation["bbox"][2]


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images, self.open = [], 0, []

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        self.images += tag == "img"


def test_the_page_is_whole_and_needs_no_other_file(run_folder, shapes):
    page = write_report(run_folder, run_folder / "sub/report.html", title="A <run> & more")
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert links.images == 16, "truth and prediction of eight images"
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "@import" not in text
    assert not re.search(r"url\((?!#)", text)
    assert "<title>A &lt;run&gt; &amp; more</title>" in text
    assert text.count("<svg") == 2
    assert "10 iterations; evaluated on 8 held-out images" in text
    assert "<b>41.2</b>" in text
    assert ">50.5<" in text
    assert ">nan<" not in text
    truth = [int(n) for n in re.findall(r"truth: (\d+)", text)]
    predicted = [int(n) for n in re.findall(r"predicted: (\d+)", text)]
    assert sum(truth) == sum(predicted) + 1 == len(json.loads(shapes.read_text())["annotations"])


def test_a_run_before_its_first_evaluation(run_folder):
    lines = (run_folder / "metrics.json").read_text().splitlines()
    (run_folder / "metrics.json").write_text(lines[0] + "\n")
    (run_folder / "inference/coco_instances_results.json").unlink()
    text = write_report(run_folder, run_folder / "report.html", title="young").read_text()
    assert "no evaluation in this run" in text
    assert text.count("<svg") == 1


def test_images_without_any_object(run_folder, shapes, tmp_path):
    data = json.loads(shapes.read_text())
    empty = tmp_path / "empty.json"
    empty.write_text(json.dumps({**data, "annotations": []}))
    config = LazyConfig.load(str(run_folder / "config.yaml"))
    config.dataloader.test.dataset.names = f"coco:{empty}@{shapes.parent / 'images'}"
    LazyConfig.save(config, str(run_folder / "config.yaml"))
    text = write_report(run_folder, run_folder / "report.html", title="empty").read_text()
    assert "evaluated on 8 held-out images with 0 objects" in text
    assert "<td>0</td>" in text


def test_an_image_that_is_gone_is_named(run_folder, monkeypatch):
    run = read_run(run_folder)
    run.images[0]["file_name"] = "/nowhere.jpg"
    monkeypatch.setattr("maskrcnn_ext.report.page.read_run", lambda _: run)
    with pytest.raises(InputError, match=r"cannot read /nowhere\.jpg"):
        write_report(run_folder, run_folder / "report.html", title="x")


def test_a_mask_tints_its_inside_and_nothing_else():
    image = np.full((20, 30, 3), 100, np.uint8)
    polygon = [[5.0, 5.0, 25.0, 5.0, 25.0, 15.0, 5.0, 15.0]]
    picture = draw(image, [Item(polygon, (5, 5, 25, 15), "", RED)])
    changed = (picture != image).any(axis=2)
    np.testing.assert_array_equal(changed[5:15, 5:25], True)
    assert not changed[:4].any()
    assert not changed[:, 27:].any()
    assert (image == 100).all(), "the image itself is left as it is"
    assert picture[10, 15].tolist() == [55, 55, 169], "45 % of red over 55 % of grey"


def test_a_box_is_drawn_where_there_is_no_mask_and_pictures_scale():
    image = np.zeros((20, 30, 3), np.uint8)
    picture = draw(image, [Item(None, (5, 5, 25, 15), "thing", RED)], scale=4)
    assert picture.shape == (80, 120, 3)
    assert picture[40, 20, 2] > 200 > 100 > picture[40, 20, :2].max(), "an edge, softened"
    assert picture[40, 60].tolist() == [0, 0, 0]


@pytest.mark.parametrize("height", [1, 7])
def test_all_kinds_of_segmentation_decode_alike(height):
    import pycocotools.mask as mask_util

    mask = np.zeros((height, 9), np.uint8)
    mask[:, 2:6] = 1
    compressed = mask_util.encode(np.asfortranarray(mask))
    uncompressed = {"size": [height, 9], "counts": [2 * height, 4 * height, 3 * height]}
    polygon = [[2, 0, 6, 0, 6, height, 2, height]]
    for segmentation in (compressed, {**compressed, "counts": compressed["counts"].decode()}, uncompressed, polygon):
        np.testing.assert_array_equal(decode(segmentation, height, 9), mask)


def test_neighbouring_colours_differ():
    colors = [palette(index) for index in range(12)]
    assert min(np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colors) for b in colors[:i]) > 60


def test_a_plot_leaves_out_what_never_occurs():
    scalars = [{"iteration": 0, "a": 1.0}, {"iteration": 5, "a": 0.1}]
    svg = plot(scalars, ["a", "b"], ylabel="loss", log=True)
    assert svg.startswith("<svg")
    assert ">a<" in svg
    assert ">b<" not in svg
    assert plot(scalars, ["b"], ylabel="loss") == ""
