"""A tuning ends with a config that is as good as its best trial, and the same command adds to it."""

import pytest
from detectron2.config import LazyConfig

from maskrcnn_ext.cli import main
from maskrcnn_ext.cli.tune import best_config
from maskrcnn_ext.common.lock import lock_folder
from maskrcnn_ext.config.zoo import config_path, load_config
from tests.helpers.small_run import small_run, spec_of

pytest.importorskip("optuna")


def test_the_best_config_is_the_config_with_its_overrides(tmp_path):
    overrides = [
        "optimizer.lr=0.002",
        "dataloader.train.mapper.augmentations.0.short_edge_length=[320,352]",
        "model.roi_heads.mask_head._target_=maskrcnn_ext.FCNMaskHead",
        "model.roi_heads.mask_head.mask_loss=bce+dice",
        "model.roi_heads.box_predictor.loss_weight={loss_cls:1,loss_box_reg:1.5}",
        "~train.ddp",
    ]
    base = str(config_path("mask_rcnn_r50_fpn_1x.py"))
    text = best_config(base, tmp_path, overrides, title='the "best"', command="maskrcnn-ext tune a.py")
    (tmp_path / "best.py").write_text(text)
    found = load_config(str(tmp_path / "best.py"), [])
    assert found == load_config(base, overrides)
    assert "optimizer.lr = 0.002" in text


def test_mistakes_are_one_line(tmp_path, capsys):
    assert main(["tune", str(tmp_path)]) == 2
    assert main(["tune", "domains/shapes.py", "b"]) == 2
    assert main(["tune", "domains/shapes.py", "--trials", "1"]) == 2
    assert main(["tune", "domains/nothing.py", "-o", str(tmp_path / "out")]) == 2
    with lock_folder(tmp_path / "busy"):
        assert main(["tune", "domains/shapes.py", "-o", str(tmp_path / "busy")]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 5
    assert f"{tmp_path} is not the folder of a run" in errors[0]
    assert errors[1] == "maskrcnn-ext tune: error: b: expected one config, and KEY=VALUE for each override"
    assert "--trials 1: expected 2 or more" in errors[2]
    assert "no config 'domains/nothing.py'" in errors[3]
    assert "is writing into it: wait for it or stop it" in errors[4]


@pytest.mark.slow
def test_a_tuning_and_more_trials(shapes, tmp_path, capsys):
    keys = [text for text in small_run(spec_of(shapes), tmp_path) if not text.startswith("train.output_dir")]
    command = ["tune", "domains/shapes.py", "-o", str(tmp_path / "out"), "--num-gpus", "0", *keys]
    assert main([*command, "--trials", "2"]) == 0
    printed = capsys.readouterr()
    lines = printed.out.splitlines()
    assert f"train-net --config-file {tmp_path / 'out/best.py'} --num-gpus 0 " in printed.err
    assert [line.split()[0] for line in lines[:3]] == ["trial", "0", "1"]
    assert set(lines[1].split()[3:]) == {"."}, "the first trial is the config itself"
    assert f"config   {tmp_path / 'out/best.py'}" in lines
    assert main([*command, "--trials", "3"]) == 0
    again = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in again[:4]] == ["trial", "0", "1", "2"]
    assert again[2].split()[-7:] == lines[2].split()[-7:], "trials that have ended are not repeated"
    best = LazyConfig.load(str(tmp_path / "out/best.py"))
    assert best.model.backbone.out_channels == 32
    assert len(list((tmp_path / "out/trials").glob("*/model_best.pth"))) <= 1

    assert main([*command, "model.roi_heads.mask_head.conv_dims=[]", "-o", str(tmp_path / "broken")]) == 2
    assert "the config fails without any change" in capsys.readouterr().err
