"""Keys of a yacs config are read, recorded, and compared with Detectron2's defaults."""

import pytest
from detectron2.config import get_cfg

from maskrcnn_ext.config.yacs.reader import Rules, YamlReader


@pytest.fixture
def yaml():
    cfg = get_cfg()
    cfg.SOLVER.BASE_LR = 0.5
    cfg.SOLVER.STEPS = (1, 2)
    return YamlReader(cfg)


def test_values_are_read_and_recorded(yaml):
    assert yaml.unread() == ["SOLVER.BASE_LR", "SOLVER.STEPS"]
    assert yaml("SOLVER.STEPS") == [1, 2]
    assert yaml("MODEL.ANCHOR_GENERATOR.ANGLES") == [[-90, 0, 90]]
    assert yaml.unread() == ["SOLVER.BASE_LR"]
    assert yaml.is_default("SEED")
    assert not yaml.is_default("SOLVER.BASE_LR")
    assert "MODEL" in yaml
    assert "NO_SUCH_KEY" not in yaml
    with pytest.raises(KeyError):
        yaml("SOLVER.NO_SUCH_KEY")


def test_rules_translate_values_and_mark_defaults_as_optional(yaml):
    rules = Rules(yaml)
    rules.put_all("optimizer", "SOLVER", "momentum", BASE_LR="lr")
    rules.put("train.pair", "SEED", "OUTPUT_DIR")
    rules.put("train.sum", "SOLVER.BASE_LR", "SOLVER.MOMENTUM", make=lambda lr, momentum: lr + momentum)
    assert rules.values == {
        "optimizer.lr": 0.5,
        "optimizer.momentum": 0.9,
        "train.pair": [-1, "./output"],
        "train.sum": 1.4,
    }
    assert rules.optional == {"optimizer.momentum", "train.pair"}
