"""`maskrcnn-ext configure`: from a folder to a config that both training scripts run."""

import os

import pytest

from maskrcnn_ext.cli import main
from maskrcnn_ext.config.zoo import load_config
from tests.helpers.labelled_images import noise, write_data


@pytest.fixture
def data(tmp_path):
    images = [(f"{i}.png", noise(64, 96, 3, seed=i)) for i in range(8)]
    return write_data(tmp_path / "data", images, [(i, 0, 5 + i, 9, 20, 24) for i in range(8)])


def test_a_folder_gets_a_plan_a_split_and_a_config(data, tmp_path, capsys):
    file = tmp_path / "my_config.py"
    assert main(["configure", str(tmp_path / "data"), "-o", str(file)]) == 0
    out = capsys.readouterr().out
    assert "held out 2 images of 8 for validation" in out
    assert "6 images to train on, 2 to validate on" in out
    assert f"train-net --config-file {file}" in out
    assert "model.roi_heads.num_classes=1" in out
    cfg = load_config(str(file), [])
    names = cfg.dataloader.train.dataset.names, cfg.dataloader.test.dataset.names
    assert names == tuple(f"{data}@list:{tmp_path}/my_config_{part}.txt" for part in ("train", "val"))
    ids = [set((tmp_path / f"my_config_{part}.txt").read_text().split()) for part in ("train", "val")]
    assert not ids[0] & ids[1]
    assert main(["configure", data, "-o", str(file)]) == 2
    assert "exists: choose another -o, or add --overwrite" in capsys.readouterr().err
    before = file.read_text().partition("import")[2]
    assert main(["configure", data, "-o", str(file), "--overwrite"]) == 0
    assert file.read_text().partition("import")[2] == before


def test_unreadable_images_are_left_out(tmp_path, capsys):
    images = [(f"{i}.png", noise(64, 64, 3, seed=i)) for i in range(5)]
    train = write_data(tmp_path / "train", images, [(0, 0, 5, 9, 20, 24)])
    val = write_data(tmp_path / "val", [*images[:2], ("bad.png", b"no image")], [(0, 0, 5, 9, 20, 24)])
    file = tmp_path / "mine.py"
    assert main(["configure", train, "--val", val, "-o", str(file), "--any-orientation"]) == 0
    assert "1 image cannot be used" in capsys.readouterr().err
    assert (tmp_path / "mine_val.txt").read_text().split() == ["1", "2"]
    assert not (tmp_path / "mine_train.txt").exists()
    assert "vertical=True" in file.read_text()


def test_one_image_validates_on_itself(tmp_path, capsys):
    name = write_data(tmp_path / "data", [("a.png", noise(64, 64, 3))], [(0, 0, 5, 9, 20, 24)])
    assert main(["configure", name, "-o", str(tmp_path / "one.py")]) == 0
    assert "validation uses the training images" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [(["nothing_here"], "no data set 'nothing_here' is registered"), (["x", "-o", "plan.yaml"], "ends with .py")],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["configure", *arguments]) == 2
    err = capsys.readouterr().err
    assert message in err
    assert err.count("\n") == 1


@pytest.mark.slow
def test_the_config_runs_under_both_scripts(data, tmp_path, stock_script, run_python):
    file = tmp_path / "my_config.py"
    assert main(["configure", data, "-o", str(file)]) == 0
    for name, script in (("ours", ["-m", "maskrcnn_ext", "train-net"]), ("stock", [stock_script])):
        keys = {"train.output_dir": tmp_path / name, "train.max_iter": 2, "train.eval_period": 0}
        keys |= {"dataloader.train.num_workers": 0, "dataloader.test.num_workers": 0}
        overrides = [f"{key}={value}" for key, value in keys.items()]
        env = {"DETECTRON2_ENV_MODULE": "maskrcnn_ext.env", "PYTHONPATH": os.environ["PYTHONPATH"]}
        done = run_python(*script, "--config-file", file, "--num-gpus", "0", *overrides, env=env)
        assert done.returncode == 0, done.stderr[-3000:]
        assert (tmp_path / name / "model_final.pth").is_file()
