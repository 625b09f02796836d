"""Hostile files of every kind, given to every command that opens such a file: no code runs, no crash, and an error is one line.

A command may also read such a file, if it can do so without harm. Everything runs in this process, so that a crash fails the tests.
"""

import io
import json
import pickle
import time
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from maskrcnn_ext.cli import main
from tests.helpers.exporting import RECIPE
from tests.helpers.run_folders import make_run, shapes_run

PWNED = "PWNED"  # a folder that hostile code would make
LONGEST_SECONDS = 30


class Runs:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        import os

        return os.mkdir, (PWNED,)


@pytest.fixture(autouse=True)
def in_folder(tmp_path, monkeypatch):
    """Runs each test in an empty folder, in which an image is."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "img").mkdir()
    for name in ("a", "b"):
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8)).save(
            tmp_path / f"img/{name}.png"
        )
    return tmp_path


@pytest.fixture
def check(in_folder, capsys):
    """Returns a function that runs a command and checks that it has done no harm."""

    def run(*arguments):
        start = time.monotonic()
        status = main([str(argument) for argument in arguments])
        output, errors = capsys.readouterr()
        assert status in (0, 1, 2)
        if status == 2:
            assert len([line for line in errors.splitlines() if "error: " in line]) == 1
        assert "Traceback" not in errors
        assert not {"\x1b", "\x07", "\ud800"} & {*output, *errors}
        assert not (in_folder / PWNED).exists()
        assert not list(in_folder.rglob(".partial-*"))
        assert time.monotonic() - start < LONGEST_SECONDS
        return status, errors

    return run


IMAGES = [{"id": number, "file_name": f"{name}.png", "height": 40, "width": 50} for number, name in enumerate("ab", 1)]
OBJECT = {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 1, 10, 10], "area": 100, "iscrowd": 0}
SQUARE = [[1, 1, 11, 1, 11, 11, 1, 11]]
ZIGZAG = [[value for step in range(400_000) for value in ((0, step / 1e5) if step % 2 else (50, 40))]]
SEGMENTATIONS = {
    "far": [[1, 1, 1e9, 1, 1e9, 1e9]],
    "infinite": [[1, 1, float("inf"), 1, 5, 5]],
    "huge integer": [[1, 1, 10**400, 1, 5, 5]],
    "long": ZIGZAG,
    "cut RLE": {"size": [40, 50], "counts": "P"},
    "endless RLE": {"size": [40, 50], "counts": "oooooooooooooooooooo0"},
    "RLE of another size": {"size": [10**6, 10**6], "counts": [10**12]},
    "RLE of text": {"size": [40, 50], "counts": "é\ud800"},
    "RLE of lists": {"size": [[], {}], "counts": [[]]},
}


def coco(segmentation=SQUARE, name="cat", **image):
    return {
        "images": [{**IMAGES[0], **image}, IMAGES[1]],
        "categories": [{"id": 1, "name": name}],
        "annotations": [{**OBJECT, "segmentation": segmentation}],
    }


# Name -> the content of a COCO file.
DATA = {
    **{name: json.dumps(coco(value)) for name, value in SEGMENTATIONS.items()},
    "deep": '{"images": ' + "[" * 100_000,
    "image of 1e18 pixels": json.dumps(coco(height=10**9, width=10**9)),
    "control characters": json.dumps(coco(name="\x1b[2J\x07\nerror: cat")),
    "control characters in a file name": json.dumps(coco(file_name="\x1b[2J\x07\n.png")),
    "control characters in an id": json.dumps(
        {**coco(), "annotations": [{**OBJECT, "id": "\x1b[2J\n", "bbox": [1, 1, -1, 1]}]}
    ),
    "half a surrogate pair": json.dumps(coco(name="=\ud800", file_name="\ud800.png")),
    "long name": json.dumps(coco(name="c" * 100_000)),
    "path out of the folder": json.dumps(coco(file_name="../../etc/passwd")),
    "not JSON": "\x00\xff",
}
ON_DATA = {
    "check-data": ["check-data", "coco:a.json@img", "--fix", "out.json", "--report", "out.html"],
    "convert": ["convert", "coco:a.json@img", "out", "--to", "label-image"],
    "split": ["split", "coco:a.json@img", "out", "--val", "0.5"],
    "data-stats": ["data-stats", "coco:a.json@img"],
    "browse-data": ["browse-data", "coco:a.json@img", "-o", "out"],
    "evaluate": ["evaluate", "results.json", "a.json", "-o", "out"],
}


@pytest.mark.parametrize("command", ON_DATA)
@pytest.mark.parametrize("name", DATA)
def test_annotations(name, command, check, in_folder):
    (in_folder / "a.json").write_text(DATA[name], encoding="utf-8", errors="surrogatepass")
    (in_folder / "results.json").write_text(json.dumps([{**OBJECT, "score": 0.9, "segmentation": SQUARE}]))
    check(*ON_DATA[command])


@pytest.mark.parametrize("name", SEGMENTATIONS)
@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_results(name, command, check, in_folder):
    (in_folder / "a.json").write_text(json.dumps(coco()))
    (in_folder / "r.json").write_text(json.dumps([{**OBJECT, "score": 0.9, "segmentation": SEGMENTATIONS[name]}]))
    arguments = {"evaluate": ["r.json", "a.json"], "compare": ["r.json", "r.json", "a.json", "--resamples", "10"]}
    check(command, *arguments[command])


BOMB = "\n".join(["a0: &a0 [x, x]", *(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 10))])
YAML = {
    "tag": f"train: !!python/object/apply:os.mkdir [{PWNED}]",
    "name": "train: !!python/name:os.system ''",
    "source": f'train: !!python/object/apply:maskrcnn_ext.config.config_yaml.from_source [\'__import__("os").mkdir("{PWNED}")\', {{}}]',
    "aliases": BOMB,
    "endless": "a: &a [*a]",
    "deep": "a: " + "[" * 1200,  # deeper than Python recurses
}
MODEL = "model: {{_target_: torch.nn.Identity, a: {}}}\ndataloader: {{test: {{mapper: {{_target_: torch.nn.Identity}}}}}}\ntrain: {{}}\n"


@pytest.mark.parametrize("name", ["c" * 100_000, "=\ud800", "\x1b[2J\n"], ids=["long", "half a pair", "control"])
def test_class_names_in_reports(name, check, in_folder):
    (in_folder / "a.json").write_text(json.dumps(coco(name=name)))
    run = make_run(in_folder / "run", "coco:a.json@img", [{**OBJECT, "score": 0.9, "segmentation": SQUARE}])
    assert check("report", run)[0] == 0
    assert check("report", run, run, "-o", "both.html")[0] == 0


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
@pytest.mark.parametrize("command", ["report", "compare"])
def test_configs_of_runs_that_are_read(text, command, check, in_folder, shapes):
    run = shapes_run(in_folder / "run", shapes)
    (run / "config.yaml").write_text(text)
    check(command, *{"report": [run], "compare": [run, run]}[command])


@pytest.mark.parametrize(
    "value", [text.partition(": ")[2] for text in list(YAML.values())[:3]] + ["{_target_: os.mkdir}"]
)
@pytest.mark.parametrize("command", ["predict", "export", "verify"])
def test_configs_of_runs_that_are_built(value, command, check, in_folder):
    (in_folder / "run").mkdir()
    (in_folder / "run/config.yaml").write_text(MODEL.format(value))
    torch.save({"model": {}}, in_folder / "run/model_final.pth")
    (in_folder / "a.ts").write_bytes(b"")
    (in_folder / "a.json").write_text(RECIPE.to_json())
    arguments = {
        "predict": ["run", "img", "-o", "out", "--device", "cpu"],
        "export": ["run", "run/model_final.pth", "--to", "torchscript", "-o", "out.ts"],
        "verify": ["a.ts", "--against", "run", "run/model_final.pth", "--images", "img"],
    }
    assert check(command, *arguments[command])[0] == 2


@pytest.mark.parametrize("name", ["aliases", "endless", "deep"])
@pytest.mark.parametrize("command", [["check-config"], ["train-net", "--config-file"]], ids=lambda words: words[0])
def test_configs_that_are_programs(name, command, check, in_folder):
    (in_folder / "config.yaml").write_text(YAML[name])
    assert check(*command, "config.yaml")[0] == 2


@pytest.mark.parametrize(
    ("shape", "size"),
    [
        ({"points": [[1, 1], [1e9, 1], [1, 1e9]]}, {}),
        ({"points": [[1, 1], [1e300, 1e300]], "shape_type": "circle"}, {}),
        ({"points": [[1, 1], [float("nan"), 1], [3, 3]]}, {}),
        ({"points": [[1, 1], [9, 1], [9, 9]], "label": "\x1b[2J\n\ud800"}, {}),
        ({"points": [[1, 1], [9, 1], [9, 9]]}, {"imagePath": "\x1b[2J\n.png"}),
        ({"points": [[1, 1], [9, 1], [9, 9]]}, {"imagePath": "../../../etc/passwd"}),
        ({"points": [[1, 1], [9, 1], [9, 9]]}, {"imageHeight": 10**9, "imageWidth": 10**9}),
        ({"points": np.reshape(ZIGZAG, (-1, 2)).tolist()}, {}),
    ],
)
@pytest.mark.parametrize("command", ["check-data", "convert"])
def test_labelme(shape, size, command, check, in_folder):
    shape = {"label": "cat", "shape_type": "polygon", "group_id": None, "flags": {}, **shape}
    content = {
        "version": "5",
        "flags": {},
        "shapes": [shape],
        "imagePath": "a.png",
        "imageHeight": 40,
        "imageWidth": 50,
    }
    (in_folder / "img/a.json").write_text(json.dumps({**content, "imageData": None, **size}))
    check(command, "labelme:img", *([] if command == "check-data" else ["out", "--to", "yolo"]))


ENTITIES = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
XML = {
    "entities": f'<!DOCTYPE a [<!ENTITY e0 "ha">{ENTITIES}]><annotation><filename>&e9;</filename></annotation>',
    "entity of a file": '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/hostname">]><annotation><filename>&x;</filename></annotation>',
    "deep": "<a>" * 100_000,
}


@pytest.mark.parametrize("name", XML)
@pytest.mark.parametrize("command", ["check-data", "data-stats"])
def test_voc(name, command, check, in_folder):
    (in_folder / "xml").mkdir()
    (in_folder / "xml/a.xml").write_text(XML[name])
    check(command, "voc:xml@img")


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
@pytest.mark.parametrize("through_base", [False, True])
@pytest.mark.parametrize("command", ["yaml-to-lazy", "predict"])
def test_yacs_configs(text, through_base, command, check, in_folder):
    (in_folder / "a.yaml").write_text("_BASE_: b.yaml\nMODEL: {}\n" if through_base else f"MODEL: {{}}\n{text}\n")
    (in_folder / "b.yaml").write_text(text)
    arguments = {"yaml-to-lazy": ["a.yaml"], "predict": ["a.yaml", "img", "-o", "out", "--device", "cpu"]}
    assert check(command, *arguments[command])[0] == 2


@pytest.mark.parametrize("text", YAML.values(), ids=YAML)
@pytest.mark.parametrize("kind", ["yolo", "catalogue"])
def test_data_yaml(text, kind, check, in_folder, monkeypatch):
    value = text.partition(": ")[2] if "\n" not in text else f"&a0 [x]\n{text}"
    (in_folder / "data.yaml").write_text(f"{text}\nnames: {value}\ntrain: img\n" if kind == "yolo" else text)
    if kind == "catalogue":
        monkeypatch.setenv("MASKRCNN_EXT_CATALOG", str(in_folder / "data.yaml"))
    assert check("data-stats", "yolo:data.yaml" if kind == "yolo" else "no_such_set")[0] == 2


@pytest.mark.parametrize("suffix", [".pth", ".pkl"])
def test_weights_in_pickles(suffix, check, in_folder):
    if suffix == ".pth":
        torch.save({"model": Runs()}, in_folder / "a.pth")
    else:
        (in_folder / "a.pkl").write_bytes(pickle.dumps({"model": Runs()}))
    for source in ("torchvision", "mmdet", "detectron2"):
        assert check("import-weights", f"a{suffix}", "--from", source, "-o", "out")[0] == 2


def test_programs_of_torch_export(check, in_folder):
    buffer = io.BytesIO()
    torch.save(Runs(), buffer)
    with zipfile.ZipFile(in_folder / "a.pt2", "w") as archive:
        archive.writestr("a/archive_format", "pt2")
        archive.writestr("a/data/sample_inputs/model.pt", buffer.getvalue())
    (in_folder / "a.json").write_text(RECIPE.to_json())
    arguments = ["a.pt2", "--against", "mask_rcnn_r18_fpn_scratch", "", "--images", "img"]
    status, errors = check("verify", *arguments)
    assert status == 2
    assert "which can run any program" in errors
