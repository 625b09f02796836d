"""``maskrcnn-ext train-net`` does exactly what ``scripts/train_net.py`` does."""

import json
import shlex

import pytest
import torch

from maskrcnn_ext.cli import main
from tests.conftest import ROOT
from tests.helpers.small_run import small_run, spec_of

SCRIPT = (ROOT / "scripts/train_net.py",)
COMMAND = ("-m", "maskrcnn_ext", "train-net")


def test_help_names_the_command_and_imports_nothing_heavy(run_python):
    code = (
        "import sys; from maskrcnn_ext.cli import main\ntry: main(['train-net', '--help'])\nexcept SystemExit: pass\n"
    )
    done = run_python("-c", code + "print(sorted({'torch', 'numpy', 'omegaconf', 'detectron2'} & set(sys.modules)))")
    assert done.stdout.startswith("usage: maskrcnn-ext train-net ")
    assert "maskrcnn-ext train-net --config-file domains/nuclei.py --num-gpus 0" in done.stdout
    assert done.stdout.splitlines()[-1] == "[]"


def test_a_mistake_is_one_line_and_status_2(capsys):
    assert main(["train-net", "--config-file", "domains/shape.py"]) == 2
    assert "no config 'domains/shape.py' ships" in capsys.readouterr().err.splitlines()[-1]


def test_the_command_and_the_script_print_the_same_config(run_python, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)  # where the script runs: files are named from there
    arguments = ["--print-config", "train.max_iter=7", "--config-file", "domains/shapes.py", "--num-gpus", "0"]
    script = run_python(*SCRIPT, *arguments)
    assert main(["train-net", *arguments]) == 0
    assert "train.max_iter: 7  # override 'train.max_iter=7'" in script.stdout
    printed = capsys.readouterr()
    assert printed.out == script.stdout
    assert script.stderr.endswith(printed.err)
    last = shlex.split(printed.err.splitlines()[-1])
    assert last[1:] == ["train-net", "--config-file", "domains/shapes.py", "--num-gpus", "0", "train.max_iter=7"]


@pytest.mark.slow
def test_the_command_and_the_script_train_the_same_model(run_python, shapes, tmp_path):
    # No detections: the final evaluation of an untrained model would take most of the time.
    settings = {"train.max_iter": 2, "train.device": "cpu", "model.roi_heads.box_predictor.test_score_thresh": 1.0}
    losses, weights = [], []
    for name, program in (("script", SCRIPT), ("command", COMMAND)):
        overrides = small_run(spec_of(shapes), tmp_path / name, **settings)
        done = run_python(*program, "--config-file", "domains/shapes.py", *overrides, env={"OMP_NUM_THREADS": "1"})
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / name / "metrics.json").read_text().splitlines()
        losses.append([value for line in lines if (value := json.loads(line).get("total_loss")) is not None])
        weights.append(torch.load(tmp_path / name / "model_final.pth", weights_only=True)["model"])
    assert len(losses[0]) == 2
    assert losses[0] == losses[1]
    assert all(torch.equal(weight, weights[1][key]) for key, weight in weights[0].items())
