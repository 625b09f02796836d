"""A saved config loads again and is equal, also with lambdas, which Detectron2's own format cannot load."""

import threading
from pathlib import Path

import pytest
import torch
from detectron2 import model_zoo
from detectron2.config import LazyConfig, instantiate
from omegaconf import OmegaConf
from torch import nn

from maskrcnn_ext import InputError, compat, get_config
from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.config.zoo import list_configs
from tests.conftest import ROOT

NAMES = [name for name in list_configs() if compat.has_vit() or "vitdet" not in name]
LSJ = "new_baselines/mask_rcnn_R_50_FPN_100ep_LSJ.py"

HOLDS_ANYTHING = '''
from functools import partial
import torch
import torch.nn as layers
from detectron2.config import LazyCall as L
from detectron2.layers import ShapeSpec
from detectron2.modeling import ResNet
from PIL import Image
from torch import nn

EPS = 0.25

def local(c, eps=EPS):
    """A docstring."""
    return nn.BatchNorm2d(c, eps=eps)

def maker(groups):
    return lambda c: layers.GroupNorm(groups, c)

part = L(nn.Sequential)(
    function=local,
    lambda_=lambda c, eps=EPS: nn.LayerNorm(c, eps=eps),
    closure=maker(4),
    method=ResNet.make_stage,
    partial_=partial(nn.LayerNorm, eps=1e-6),
    partial_of_local=partial(local, eps=0.5),
    class_=nn.Linear,
    imported=torch.nn.functional.relu,
    builtin=len,
    dtype=torch.float16,
    device=torch.device("cpu"),
    enum=Image.Resampling.BICUBIC,
    shape=ShapeSpec(channels=3),
    tuple_=(1, 2),
    none=None,
    text="${.none}",
    umlaut="ä: 'x'",
    number=1e-7,
)
plain = dict(nested=[local, {"deep": lambda: EPS}])
target = L(local)(c=3)
c = dict(x=1)  # has the name of a parameter
'''


def layout(model: nn.Module) -> dict[str, torch.Size]:
    return {name: tensor.shape for name, tensor in model.state_dict().items()}


@pytest.fixture
def holder(tmp_path):
    file = tmp_path / "holder.py"
    file.write_text(HOLDS_ANYTHING)
    save_config(LazyConfig.load(str(file)), tmp_path / "config.yaml")
    file.unlink()  # what is saved must not need it
    return LazyConfig.load(str(tmp_path / "config.yaml"))


def test_functions_are_restored(holder):
    part = holder.part
    assert part.function(3).eps == 0.25
    assert part.lambda_(3).eps == 0.25
    assert part.closure(8).num_groups == 4
    assert part.partial_(3).eps == 1e-6
    assert part.partial_of_local(3).eps == 0.5
    assert part.imported is torch.nn.functional.relu
    assert part.builtin is len
    assert part.class_ is nn.Linear
    assert part.method.__qualname__ == "ResNet.make_stage"
    assert holder.plain.nested[0](3).eps == holder.plain.nested[1].deep() == 0.25
    assert instantiate(holder.target).num_features == 3


def test_values_are_restored(holder):
    part = holder.part
    assert part.dtype is torch.float16
    assert part.device == torch.device("cpu")
    assert part.enum.name == "BICUBIC"
    assert (part.shape.channels, part.shape.height) == (3, None)
    assert part.tuple_ == [1, 2]  # omegaconf makes a list of it in the config file already
    assert OmegaConf.to_container(holder, resolve=False)["part"]["text"] == "${.none}"
    assert part.umlaut == "ä: 'x'"
    assert part.number == 1e-7


def test_a_lambda_in_a_config_of_an_older_release_loads(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_text(
        "optimizer: {factor: !!python/object/apply:maskrcnn_ext.engine.saving.from_source ['lambda x: 2 * x', {}]}\n"
    )
    with pytest.warns(DeprecationWarning, match=r"has moved to maskrcnn_ext\.config\.config_yaml\.from_source"):
        assert LazyConfig.load(str(file)).optimizer.factor(3) == 6


def test_saving_again_writes_the_same(holder, tmp_path):
    save_config(holder, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()


def test_lambdas_on_one_line_are_distinguished(tmp_path):
    file = tmp_path / "two.py"
    file.write_text("part = dict(both=[lambda x: x + 1, lambda x: x + 2])\n")
    save_config(LazyConfig.load(str(file)), tmp_path / "config.yaml")
    assert [f(0) for f in LazyConfig.load(str(tmp_path / "config.yaml")).part.both] == [1, 2]


@pytest.mark.parametrize("thing", [nn.Linear(1, 1), threading.Lock(), torch.zeros(2)], ids=lambda t: type(t).__name__)
def test_an_unsavable_value_is_one_line_and_keeps_the_file(thing, tmp_path):
    file = tmp_path / "config.yaml"
    cfg = get_config("domains/shapes")
    save_config(cfg, file)
    before = file.read_text()
    OmegaConf.update(cfg, "optimizer.params.deep", {"list": [1, thing]}, force_add=True)
    with pytest.raises(InputError, match=rf"optimizer\.params\.deep\.list\.1 is a {type(thing).__name__}") as caught:
        save_config(cfg, file)
    assert "\n" not in str(caught.value)
    assert file.read_text() == before
    assert [path.name for path in tmp_path.iterdir()] == ["config.yaml"]


def test_detectron2s_own_large_scale_jittering_config(tmp_path):
    """Its heads' norm is a lambda."""
    cfg = model_zoo.get_config(LSJ)
    LazyConfig.save(cfg, str(tmp_path / "stock.yaml"))
    with pytest.raises(Exception, match="while constructing a Python object"):
        LazyConfig.load(str(tmp_path / "stock.yaml"))

    save_config(cfg, tmp_path / "config.yaml")
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    # on the CPU: that norm cannot be built on another device's context
    assert layout(instantiate(again.model.roi_heads.mask_head)) == layout(instantiate(cfg.model.roi_heads.mask_head))
    assert type(instantiate(again.model.roi_heads.box_head).conv1.norm).__name__ == "NaiveSyncBatchNorm"


PROJECTS = sorted(str(path) for path in (ROOT / "projects").glob("*/*.py"))


QUICK = ("mask_rcnn_r50_fpn_lsj_100ep.py", "cascade_mask_rcnn_r18_fpn_scratch.py", "domains/crowdpose.py")


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in [*NAMES, *PROJECTS]],
    ids=lambda name: "/".join(Path(name).parts[-2:]),
)
def test_every_config_reloads_with_the_same_keys_and_shapes(name, tmp_path):
    cfg = LazyConfig.load(name) if name in PROJECTS else get_config(name)
    save_config(cfg, tmp_path / "config.yaml")
    again = LazyConfig.load(str(tmp_path / "config.yaml"))
    with torch.device("cpu" if "net" in cfg.model.backbone else "meta"):
        assert layout(instantiate(again.model)) == layout(instantiate(cfg.model))
    save_config(again, tmp_path / "again.yaml")
    assert (tmp_path / "again.yaml").read_text() == (tmp_path / "config.yaml").read_text()
    OmegaConf.resolve(again)
