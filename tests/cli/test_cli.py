"""The console command starts quickly and reports mistakes in one line."""

import os
import re
import signal
import subprocess
import sys
from importlib import import_module

import pytest

from maskrcnn_ext.cli import COMMANDS, main
from maskrcnn_ext.config.zoo import config_path, list_configs


def test_help_names_every_command_and_loads_nothing_heavy(run_python):
    code = "import sys\nfrom maskrcnn_ext.cli import main\ntry: main(['--help'])\n"
    code += "finally: print(sorted({'torch', 'numpy', 'cv2', 'detectron2'} & set(sys.modules)))"
    done = run_python("-c", code)
    assert done.stdout.strip().endswith("[]")
    assert all(re.search(rf"\n    {name}\s", done.stdout) for name in COMMANDS)


def test_no_command_lists_all_in_groups(capsys):
    assert main([]) == 2
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    for name, text in COMMANDS.items():
        assert f"    {name:<19}{text}" in lines
    assert lines.index("data:") < lines.index(next(line for line in lines if "check-data" in line))


def test_an_unknown_option_shows_the_options_of_the_command(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["split", "a", "b", "--val", "0.2", "--sede", "1"])
    assert ended.value.code == 2
    assert "usage: maskrcnn-ext split [-h] --val" in capsys.readouterr().err


def test_options_may_stand_between_inputs_and_overrides(capsys):
    assert main(["check-config", "domains/shapes.py", "train.seed=1", "--no-data", "train.max_itr=3"]) == 2
    assert "did you mean train.max_iter?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name, capsys):
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"usage: maskrcnn-ext {name}" in capsys.readouterr().out


def test_the_help_of_commands_imports_nothing_heavy(run_python):
    code = f"""
import argparse, sys
from importlib import import_module
for name in {sorted(set(COMMANDS))!r}:
    module = import_module("maskrcnn_ext.cli." + name.replace("-", "_"))
    getattr(module, "add_arguments", id)(argparse.ArgumentParser())  # train and train-net parse their own
print(sorted({{"torch", "detectron2", "omegaconf", "numpy", "yaml", "cv2"}} & set(sys.modules)))
"""
    assert run_python("-c", code).stdout.strip() == "[]"


def test_python_m_is_the_same_command(run_python):
    done = run_python("-m", "maskrcnn_ext", "--version")
    assert done.stdout.startswith("maskrcnn-ext 0.")


def test_configs_lists_each_with_its_title_and_prints_paths(capsys):
    assert main(["configs"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list_configs()
    assert all(len(line.split(maxsplit=1)) == 2 for line in lines), "every config has a title"
    assert main(["configs", "domains/nuclei.py"]) == 0
    assert capsys.readouterr().out.strip() == str(config_path("domains/nuclei.py"))


def test_a_missing_package_is_one_line(tmp_path, run_python):
    (tmp_path / "numpy.py").write_text("raise ImportError('numpy is broken')")
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); from maskrcnn_ext.cli import main; sys.exit(main(['demo']))"
    done = run_python("-c", code)
    assert done.returncode == 2
    assert done.stderr == "maskrcnn-ext demo: error: numpy is broken; `maskrcnn-ext doctor` says how to fix it\n"


def test_mistakes_are_one_line(capsys, tmp_path):
    assert main(["configs", "mask_rcnn"]) == 2
    assert main(["report", str(tmp_path)]) == 2
    errors = capsys.readouterr().err.splitlines()
    assert len(errors) == 2
    assert errors[0].startswith("maskrcnn-ext configs: error: no config 'mask_rcnn' ships")
    assert errors[1] == f"maskrcnn-ext report: error: {tmp_path} is not the folder of a run: it has no metrics.json"


@pytest.mark.parametrize("command", ["convert", "split"])
def test_a_stopped_command_prints_how_to_continue(command, capsys, monkeypatch):
    module = import_module(f"maskrcnn_ext.cli.{command}")
    monkeypatch.setattr(module, "run", lambda _: signal.raise_signal(signal.SIGTERM))
    arguments = {"convert": ["a.json", "out", "--to", "yolo"], "split": ["a.json", "out", "--val", "0.2"]}
    assert main([command, *arguments[command]]) == 75
    assert capsys.readouterr().err.endswith(f"maskrcnn-ext {command}: stopped by SIGTERM; run the same command again\n")


def test_output_that_is_cut_by_another_program_is_no_error():
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-m", "maskrcnn_ext", "configs"]
    done = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, text=True, timeout=120)
    os.close(writing)
    assert (done.returncode, done.stderr) == (141, "")
