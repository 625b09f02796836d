"""``maskrcnn-ext check-data``: the list, the copy, the page and the exit status."""

import copy
import html.parser
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from maskrcnn_ext.cli import main
from maskrcnn_ext.data.check import KINDS
from tests.helpers.planted import SIZE, save_turned, set_of_polygons, set_rectangle, truncated_jpeg


@pytest.fixture
def polygons(shapes, tmp_path):
    return set_of_polygons(shapes, tmp_path)


def test_the_command_lists_fixes_and_reports(polygons, tmp_path, capsys):
    """Twenty faults at once: each is found, the copy has none of them left, the page needs no other file."""
    data, folder = polygons
    kinds = plant_twenty(data, folder)
    file, fixed, page = tmp_path / "a.json", tmp_path / "out/fixed.json", tmp_path / "out/page.html"
    file.write_text(json.dumps(data))
    arguments = ["check-data", str(file), "--images", str(folder)]
    assert main([*arguments, "--fix", str(fixed), "--report", str(page)]) == 1
    output = capsys.readouterr()
    for kind, image_id, annotation_id in kinds:
        section = output.out[output.out.index(f" {kind} (") :].split("\n\n")[0]
        assert f"\n  fix: {KINDS[kind].fix}\n" in section
        assert f"image {image_id!r}" in section
        assert annotation_id is None or f"annotation {annotation_id!r}:" in section
    assert "with 0 errors left" in output.out
    assert json.loads(file.read_text()) == data, "never in place"

    assert main(["check-data", str(fixed), "--images", str(folder)]) == 0
    assert main(["check-data", str(fixed), "--images", str(folder), "--fail-on", "warning"]) == 1, "the image with EXIF"
    assert main([*arguments, "--fix", str(fixed)]) == 2, "never overwrites"
    assert "exists" in capsys.readouterr().err
    assert_self_contained(page.read_text(), kinds)


def plant_twenty(data, folder):
    """Faults in different images and annotations, so that none hides another."""
    annotations = data["annotations"]
    ids = [a["id"] for a in annotations if a["image_id"] not in (3, 6, 7)][:12]
    by_id = {a["id"]: a for a in annotations}
    planted = [
        ("box-degenerate", lambda a: a["bbox"].__setitem__(2, 0)),
        ("box-broken", lambda a: a.update(bbox=[1, 2, 3])),
        ("box-outside", lambda a: a.update(bbox=[200, 200, 20, 20])),
        ("box-beyond-image", lambda a: (set_rectangle(a, 60, 10, 36, 20), a.update(bbox=[60, 10, 40, 20]))),
        ("mask-beyond-box", lambda a: (set_rectangle(a, 10, 11, 40, 40), a.update(bbox=[10, 11, 30, 40]))),
        ("polygon-short", lambda a: a["segmentation"].append([1, 1, 5, 5])),
        (
            "polygon-crossing",
            lambda a: a.update(segmentation=[[10, 10, 50, 50, 50, 10, 10, 50]], bbox=[10, 10, 40, 40]),
        ),
        ("segmentation-broken", lambda a: a["segmentation"][0].append(1)),
        ("segmentation-missing", lambda a: a.pop("segmentation")),
        ("category-unknown", lambda a: a.update(category_id=99)),
        ("annotation-ignored", lambda a: a.update(ignore=True)),
        ("area-mismatch", lambda a: a.update(area=1e6)),
    ]
    expected = set()
    for own, (kind, change) in zip(ids, planted, strict=True):
        change(by_id[own])
        expected.add((kind, by_id[own]["image_id"], own))
    annotations.append({**by_id[ids[10]], "id": 901, "image_id": 555})
    annotations.append({"id": 902, "image_id": 8, "category_id": 1})
    set_rectangle(annotations[-1], 20, 20, 30, 40)
    annotations.append({**copy.deepcopy(annotations[-1]), "id": 903})
    annotations.append({"id": 902, "image_id": 8, "category_id": 2})
    set_rectangle(annotations[-1], 1, 70, 90, 3)
    expected |= {("image-unknown", 555, 901), ("instance-duplicate", 8, 903)}
    expected |= {("annotation-id-duplicate", 8, 902), ("aspect-extreme", 8, 902)}
    expected |= truncated_jpeg(data, folder)
    shutil.copy(folder / "000006.jpg", folder / "copy.jpg")
    data["images"].append({**data["images"][5], "id": 77, "file_name": "copy.jpg"})
    data["images"].append({**data["images"][6], "id": 78, "file_name": "gone.jpg"})
    save_turned(folder / "000007.jpg", 3, (SIZE, SIZE))
    expected |= {("image-duplicate", 77, None), ("image-missing", 78, None), ("exif-unclear", 7, None)}
    assert len(expected) == 20
    return expected


class Links(html.parser.HTMLParser):
    def __init__(self):
        super().__init__()
        self.found, self.images = [], 0

    def handle_starttag(self, tag, attributes):
        self.found += [value for name, value in attributes if name in ("src", "href", "xlink:href") and value]
        self.images += tag == "img"


def assert_self_contained(text, kinds):
    links = Links()
    links.feed(text)
    assert all(link.startswith(("data:", "#")) for link in links.found)
    assert "@import" not in text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert text.count("<svg") == 3
    assert links.images >= 15
    assert all(f" {kind} (" in text for kind, *_ in kinds)
    assert len(text) < 2_000_000


def test_without_images_nothing_is_opened(polygons, tmp_path, capsys):
    data, _ = polygons
    (tmp_path / "a.json").write_text(json.dumps(data))
    empty = tmp_path / "empty"
    empty.mkdir()
    arguments = ["check-data", str(tmp_path / "a.json"), "--images", str(empty)]
    assert main([*arguments, "--no-images"]) == 0
    assert capsys.readouterr().err == f"\nNext:\n    maskrcnn-ext train coco:{tmp_path / 'a.json'}@{empty}\n"
    assert main(arguments) == 1
    assert "image-missing (8)" in capsys.readouterr().out
    assert main([*arguments, "--no-images", "--against", str(tmp_path / "a.json")]) == 2


def test_a_set_without_images_is_an_error_and_has_a_page(tmp_path, capsys):
    (tmp_path / "a.json").write_text('{"images": [], "categories": []}')
    arguments = ["check-data", str(tmp_path / "a.json"), "--report", str(tmp_path / "page.html")]
    assert main(arguments) == 1
    assert "error images-none (1)" in capsys.readouterr().out
    text = (tmp_path / "page.html").read_text()
    assert "0 images with 0 objects" in text
    assert "<svg" not in text


def test_a_path_that_cannot_be_written_is_one_line(shapes, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    name = f"coco:{shapes}@{shapes.parent / 'images'}"
    for option, file in (("--fix", "a.json"), ("--report", "a.html")):
        assert main(["check-data", name, "--no-images", option, str(tmp_path / "file" / file)]) == 2
        assert f"cannot write {tmp_path}/file/{file} (" in capsys.readouterr().err


def test_the_annotations_themselves_are_never_written_to(polygons, tmp_path, capsys):
    """Not by --fix through a link or beside the file, and not by mistaking --report for it."""
    data, folder = polygons
    data["annotations"][4]["ignore"] = 1
    file, link = tmp_path / "a.json", tmp_path / "link.json"
    file.write_text(json.dumps(data))
    link.symlink_to("a.json")
    (tmp_path / "nowhere.json").symlink_to("gone.json")
    before = file.read_bytes()
    for option, target, message in (
        ("--fix", file, "exists"),
        ("--fix", link, "exists"),
        ("--fix", tmp_path / "nowhere.json", "exists"),
        ("--report", file, "expected a file name that ends in .html"),
    ):
        assert main(["check-data", str(file), "--images", str(folder), option, str(target)]) == 2
        assert message in capsys.readouterr().err
    assert main(["check-data", str(link), "--images", str(folder), "--fix", str(tmp_path / "b.json")]) == 1
    assert file.read_bytes() == before
    assert not (tmp_path / "gone.json").exists()


def test_a_copy_without_images_is_not_written(polygons, tmp_path, capsys):
    """All images missing is a wrong folder, not a data set to empty."""
    data, _ = polygons
    (tmp_path / "a.json").write_text(json.dumps(data))
    (tmp_path / "empty").mkdir()
    arguments = ["check-data", str(tmp_path / "a.json"), "--images", str(tmp_path / "empty")]
    assert main([*arguments, "--fix", str(tmp_path / "b.json")]) == 2
    assert "no image would be left" in capsys.readouterr().err
    assert not (tmp_path / "b.json").exists()


def test_long_lists_are_cut_and_losses_are_counted(polygons, tmp_path, capsys):
    data, folder = polygons
    for annotation in data["annotations"][:12]:
        annotation["category_id"] = 99
    (tmp_path / "a.json").write_text(json.dumps(data))
    arguments = ["check-data", str(tmp_path / "a.json"), "--images", str(folder), "--no-images"]
    assert main([*arguments, "--fix", str(tmp_path / "b.json")]) == 1
    output = capsys.readouterr().out
    assert output.count("there is no category 99") == 10
    assert output.count("  and 2 more (--all lists them)") == 2
    assert "left out:\n  12 objects: left out, its category does not exist, such as image 1, annotation 1\n" in output
    assert main([*arguments, "--all"]) == 1
    assert capsys.readouterr().out.count("there is no category 99") == 12


def write_yolo(folder):
    """Three images with a sound row each, and two faults."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name, more in (("a", "0 12 15 30 40\n"), ("b", ""), ("c", "7 0.5 0.5 0.1 0.1\n")):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(folder / f"images/{name}.png")
        (folder / f"labels/{name}.txt").write_text("0 0.1 0.1 0.9 0.1 0.9 0.5 0.1 1.004\n" + more)
    (folder / "data.yaml").write_text("train: images\nnames: [cat, dog]\n")
    return f"yolo:{folder}/data.yaml"


def test_all_faults_of_other_formats_are_listed_and_left_out_of_a_copy_in_their_format(tmp_path, capsys):
    name, fixed = write_yolo(tmp_path / "set"), tmp_path / "fixed"
    assert main(["check-data", name, "--fix", str(fixed)]) == 1
    output = capsys.readouterr().out
    assert "error record-unreadable (2): a record that cannot be read" in output
    assert "a.txt, line 2: 12 is outside of the image" in output
    assert "c.txt, line 2: class 7, expected 0 to 1" in output
    assert "left out:\n  2 records: cannot be read" in output
    assert f"use it as yolo:{fixed}/data.yaml" in output
    assert main(["check-data", f"yolo:{fixed}/data.yaml"]) == 0
    assert "3 images, 3 objects, 2 classes" in capsys.readouterr().out
    assert main(["check-data", name, "--fix", str(fixed)]) == 2, "never overwrites"
    assert main(["check-data", str(tmp_path / "set"), "--fix", str(tmp_path / "by_path")]) == 1
    assert (tmp_path / "by_path/data.yaml").is_file()
    assert main(["check-data", name, "--fix", str(tmp_path / "a.json")]) == 1
    assert len(json.loads((tmp_path / "a.json").read_text())["annotations"]) == 3


@pytest.mark.parametrize("format", ["labelme", "label_image"])
def test_a_copy_has_the_format_of_its_source(tmp_path, format, capsys):
    rng = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / f"set/{part}").mkdir(parents=True)
    for name in ("a", "b"):
        Image.fromarray(rng.integers(0, 255, (40, 50, 3), np.uint8)).save(tmp_path / f"set/images/{name}.png")
    labels = np.zeros((40, 50), np.uint8)
    labels[5:20, 5:30] = 1
    Image.fromarray(labels).save(tmp_path / "set/labels/a.png")
    (tmp_path / "set/labels/b.png").write_bytes(b"")
    shape = {"label": "object", "points": [[5, 5], [30, 5], [30, 20], [5, 20]]}
    for name, shapes in (("a", [shape]), ("b", "x")):
        content = {"imagePath": f"../images/{name}.png", "shapes": shapes}
        (tmp_path / f"set/labels/{name}.json").write_text(json.dumps(content))
    places = {"labelme": f"{tmp_path}/set/labels", "label_image": f"{tmp_path}/set/labels@{tmp_path}/set/images"}
    assert main(["check-data", f"{format}:{places[format]}", "--fix", str(tmp_path / "fixed")]) == 1
    usage = capsys.readouterr().out.partition("use it as ")[2].split()[0]
    assert usage.startswith(f"{format}:{tmp_path}/fixed")
    assert main(["check-data", usage]) == 0
    assert "1 image, 1 object, 1 class" in capsys.readouterr().out
