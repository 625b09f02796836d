"""A yacs config and the files that it is based on run no code."""

import pytest
from detectron2.config import get_cfg
from detectron2.model_zoo import get_config_file

from maskrcnn_ext import InputError
from maskrcnn_ext.config.yacs.file import merge_yacs_file


def test_bases_are_merged(tmp_path):
    (tmp_path / "base.yaml").write_text("SOLVER: {MAX_ITER: 7, BASE_LR: 0.5}")
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml\nSOLVER: {MAX_ITER: 9}")
    cfg = get_cfg()
    merge_yacs_file(cfg, str(tmp_path / "a.yaml"))
    assert (cfg.SOLVER.MAX_ITER, cfg.SOLVER.BASE_LR) == (9, 0.5)


def test_tags_of_the_model_zoo_are_read():
    cfg = get_cfg()
    merge_yacs_file(cfg, get_config_file("COCO-Detection/retinanet_R_50_FPN_1x.yaml"))
    assert cfg.MODEL.ANCHOR_GENERATOR.SIZES[0][0] == 32


@pytest.mark.parametrize(
    ("base", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch PWNED']", r"base\.yaml, line 1: .*python/object/apply:os\.system"),
        ("_BASE_: sub/../a.yaml", r"is based on itself \(_BASE_: "),
        ("_BASE_: none.yaml", r"none\.yaml: cannot be read"),
        ("[1]", r"base\.yaml: not a config \(expected a mapping, found list\)"),
        ("NO_SUCH: {KEY: 1}", r"cannot be used \(Non-existent config key: NO_SUCH\)"),
        ("_BASE_: [c0.yaml, c0.yaml]", "is based on more than 100 files"),
    ],
)
def test_one_line(base, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "sub").mkdir()
    (tmp_path / "a.yaml").write_text("_BASE_: base.yaml")
    (tmp_path / "base.yaml").write_text(base)
    for number in range(10):
        (tmp_path / f"c{number}.yaml").write_text(f"_BASE_: [c{number + 1}.yaml, c{number + 1}.yaml]")
    (tmp_path / "c10.yaml").write_text("SOLVER: {MAX_ITER: 7}")
    with pytest.raises(InputError, match=message) as caught:
        merge_yacs_file(get_cfg(), "a.yaml")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()
