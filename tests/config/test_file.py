"""A config file that cannot be used is one line with its place, and its keys are checked."""

import pytest

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.file import key_faults, read_config_file
from maskrcnn_ext.config.zoo import list_configs, load_config

BASE = 'from maskrcnn_ext import get_config\ncfg = get_config("domains/shapes.py")\n'
PARTS = 'model, dataloader, optimizer, lr_multiplier, train = (cfg[k] for k in ("model", "dataloader", "optimizer", "lr_multiplier", "train"))\n'  # noqa: E501


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.py", "x = 1\ny = \n", r"a\.py, line 2: invalid syntax"),
        (
            "a.py",
            "x = 1\nimport no_such_module\n",
            r"a\.py, line 2: ModuleNotFoundError: No module named 'no_such_module'",
        ),
        ("a.py", BASE + "cfg.model.no.such.key\n", r"a\.py, line 3: ConfigAttributeError: Missing key no"),
        ("a.py", "from .gone import model\n", r"a\.py.*gone"),
        (
            "a.yaml",
            "MODEL:\n  WEIGHTS: ''\n",
            r"a\.yaml is a yacs config.*: maskrcnn-ext yaml-to-lazy .*a\.yaml -o a\.py",
        ),
        ("a.yaml", "train: [1, 2\n", r"a\.yaml, line 2: not a YAML file"),
        ("a.yaml", "- 1\n", "expected a mapping, found list"),
        (
            "a.py",
            BASE + PARTS + "train.max_itr = 5\n",
            r"train\.max_itr does not exist: did you mean train\.max_iter\?",
        ),
        ("a.py", BASE + PARTS + "train.checkpointer.perod = 5\n", r"did you mean train\.checkpointer\.period\?"),
        ("a.py", BASE + PARTS + "optimizer.rate = 5\n", "optimizer: .* takes no rate"),
        ("a.py", BASE + PARTS + "model.backbone._target_ = 'no.such.Backbone'\n", "cannot be imported"),
    ],
)
def test_a_broken_file_is_one_line(name, text, message, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message) as caught:
        load_config(str(tmp_path / name), [])
    assert "\n" not in str(caught.value)


def test_a_left_over_name_and_own_keys_are_no_faults(tmp_path):
    (tmp_path / "a.py").write_text(BASE + PARTS + "train.my_setting = 5\n")
    cfg = load_config(str(tmp_path / "a.py"), [])
    assert (cfg.train.my_setting, "cfg" in cfg) == (5, True)
    assert key_faults(cfg) == []
    assert read_config_file(str(tmp_path / "a.py")).train.my_setting == 5


@pytest.mark.parametrize("name", [name for name in list_configs() if "vit" not in name][::7])
def test_shipped_configs_have_no_fault(name):
    assert key_faults(get_config(name)) == []
