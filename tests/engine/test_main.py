"""The training command: its flags, and mistakes in the input reported in one line."""

import re

import pytest

from maskrcnn_ext.engine.main import build_parser, main, parse_args


def test_flags_and_overrides_may_be_mixed():
    args = parse_args(["--config-file", "a.py", "train.max_iter=1", "--resume", "+b.c=2", "--num-gpus", "0"])
    assert (args.config_file, args.resume, args.num_gpus, args.opts) == (
        "a.py",
        True,
        0,
        ["train.max_iter=1", "+b.c=2"],
    )


def test_has_every_flag_of_detectron2():
    from detectron2.engine import default_argument_parser

    theirs = {option for action in default_argument_parser()._actions for option in action.option_strings}
    assert theirs <= {option for action in build_parser()._actions for option in action.option_strings}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--config-file", "domains/shape.py"],
            "no config 'domains/shape.py' ships .*did you mean .*domains/shapes.py",
        ),
        (["--config-file", "domains/shapes.py", "train.max_iter"], "cannot read the override 'train.max_iter'"),
        (["--config-file", "domains/shapes.py", "~train.device"], r"the config has no train\.device"),
        (["--config-file", "domains/shapes.py", "train.seed.a=1"], "'train.seed.a=1': train.seed is 1, which has no"),
        (
            ["--config-file", "domains/shapes.py", "dataloader.train.dataset.names=nope"],
            "no data set 'nope' is registered",
        ),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys, tmp_path):
    assert main([*arguments, f"train.output_dir={tmp_path}"] if "names" in arguments[-1] else arguments) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert re.match(f"error: {message}", error)
