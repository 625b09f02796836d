"""A config in YAML is read without running what it contains; what only builds a model comes back as it was saved."""

import functools

import pytest
import torch
from detectron2.config import LazyConfig
from detectron2.layers import ShapeSpec
from omegaconf import OmegaConf
from torch import nn

from maskrcnn_ext import InputError, get_config
from maskrcnn_ext.config.config_yaml import save_config
from maskrcnn_ext.config.yaml_file import PythonTag, build_tags, check_parts, read_lazy_yaml, read_settings

# Each would create the file PWNED.
HOSTILE = {
    "apply": "!!python/object/apply:os.system ['touch PWNED']",
    "new": "!!python/object/new:subprocess.Popen [['touch', 'PWNED']]",
    "source": '!!python/object/apply:maskrcnn_ext.config.config_yaml.from_source [\'__import__("os").system("touch PWNED")\', {}]',
    "source in a lambda": '!!python/object/apply:maskrcnn_ext.config.config_yaml.from_source [\'lambda c=open("PWNED", "w"): c\', {}]',
    "def": '!!python/object/apply:maskrcnn_ext.config.config_yaml.from_source [\'def f(c=open("PWNED", "w")): pass\', {}]',
    "older source": '!!python/object/apply:maskrcnn_ext.engine.saving.from_source [\'open("PWNED", "w")\', {}]',
    "eval": '!!python/object/apply:builtins.eval [\'open("PWNED", "w")\']',
    "name": "!!python/name:os.system ''",
    "through torch": "!!python/name:torch.os.system ''",
    "partial": "!!python/object/apply:functools.partial [!!python/name:subprocess.Popen '', [touch, PWNED]]",
    "partial of eval": "!!python/object/apply:functools.partial "
    '[!!python/object/apply:detectron2.utils.registry.locate [builtins.eval], \'open("PWNED", "w")\']',
    "listitems": "!!python/object/new:list {listitems: !!python/object/apply:os.system ['touch PWNED']}",
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_no_tag_runs(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "config.yaml"
    file.write_text(f"model: {{_target_: torch.nn.Identity, norm: {text}}}\n")
    assert isinstance(read_settings(file)["model"]["norm"], str)
    cfg = build_tags(read_lazy_yaml(file))
    with pytest.raises(InputError, match=r"config\.yaml: model\.norm is !!python/.*allow_pickle=true") as caught:
        check_parts(cfg, ("model",), str(file))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "PWNED").exists()


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "subprocess.Popen",
        "builtins.exec",
        "torch.hub.load",
        "torch.os.system",
        "torch.load",
        "detectron2.config.LazyConfig.load",
        "detectron2.utils.registry.locate",
        "maskrcnn_ext.config.config_yaml.from_source",
        "maskrcnn_ext.config.zoo.load_config",
        "detectron2.modeling.backbone.fpn.math.sqrt",
        "no.such.module",
        "'${other}'",
        "{_target_: torch.nn.Identity}",
    ],
)
def test_targets_that_are_no_parts(target, tmp_path):
    (tmp_path / "config.yaml").write_text(f"other: os.system\nmodel: [{{_target_: {target}, a: 1}}]\n")
    cfg = build_tags(read_lazy_yaml(tmp_path / "config.yaml"))
    with pytest.raises(InputError, match=r"model\.0\._target_=.* can be any program"):
        check_parts(cfg, ("model",), "config.yaml")


@pytest.mark.parametrize(
    "name",
    ["mask_rcnn_r50_fpn_1x.py", "domains/crowdpose.py", "cascade_mask_rcnn_r18_fpn_scratch.py", "domains/shapes"],
)
def test_shipped_configs_are_parts(name, tmp_path):
    save_config(get_config(name), tmp_path / "config.yaml")
    cfg = build_tags(read_lazy_yaml(tmp_path / "config.yaml"))
    check_parts(cfg, ("model", "dataloader.test.mapper"), "config.yaml")
    assert cfg == LazyConfig.load(str(tmp_path / "config.yaml"))


def test_parts_of_a_model_are_restored(tmp_path):
    file = tmp_path / "config.py"
    file.write_text(
        "from functools import partial\nimport torch\nfrom torch import nn\nfrom detectron2.layers import ShapeSpec\n"
        "from PIL import Image\nfrom pathlib import Path\nfrom detectron2.config import LazyCall as L\n"
        "model = L(nn.Identity)(norm=lambda c, eps=0.5: nn.LayerNorm(c, eps=eps), part=partial(nn.LayerNorm, eps=0.25),"
        " shape=ShapeSpec(channels=3), dtype=torch.float16, device=torch.device('cpu'), kind=Image.Resampling.BICUBIC,"
        " path=Path('a/b'), act=nn.functional.relu, pair=[(1, 2)])\n"
    )
    save_config(LazyConfig.load(str(file)), tmp_path / "config.yaml")
    model = build_tags(read_lazy_yaml(tmp_path / "config.yaml")).model
    check_parts(OmegaConf.create({"model": model}, flags={"allow_objects": True}), ("model",), "config.yaml")
    assert model.norm(3).eps == 0.5
    assert isinstance(model.part, functools.partial)
    assert model.part(3).eps == 0.25
    assert model.shape.channels == 3
    assert (model.dtype, model.device) == (torch.float16, torch.device("cpu"))
    assert (model.kind.name, str(model.path), model.act) == ("BICUBIC", "a/b", nn.functional.relu)
    assert model.pair == [[1, 2]]


def test_the_stock_script_saves_a_dataclass(tmp_path):
    cfg = OmegaConf.create({"model": {"shape": ShapeSpec(channels=3)}}, flags={"allow_objects": True})
    LazyConfig.save(cfg, str(tmp_path / "config.yaml"))
    shape = build_tags(read_lazy_yaml(tmp_path / "config.yaml")).model.shape
    assert shape.channels == 3


def test_a_part_of_the_users_own_code(tmp_path, monkeypatch):
    (tmp_path / "teams_parts.py").write_text("def build(c):\n    return c\n")
    monkeypatch.syspath_prepend(tmp_path)
    check_parts(OmegaConf.create({"model": {"_target_": "teams_parts.build", "c": 1}}), ("model",), "config.yaml")


def test_settings_show_names_and_sources(tmp_path):
    (tmp_path / "config.yaml").write_text(
        "a: !!python/name:torch.nn.LayerNorm ''\nb: !!python/object/apply:detectron2.utils.registry.locate [torch.float16]\n"
        "c: !!python/object/apply:maskrcnn_ext.config.config_yaml.from_source ['lambda x: x', {}]\n"
        "d: !!python/tuple [1, 2]\ne: !!python/object:a.B {c: 1}\n"
    )
    assert read_settings(tmp_path / "config.yaml") == {
        "a": "torch.nn.LayerNorm",
        "b": "torch.float16",
        "c": "lambda x: x",
        "d": [1, 2],
        "e": "!!python/object:a.B {'c': 1}",
    }


@pytest.mark.parametrize(("content", "message"), [(b"[1]", "expected a mapping, found list"), (b"\xff\xfe", "read")])
def test_another_file_is_one_line(content, message, tmp_path):
    (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=message):
        read_lazy_yaml(tmp_path / "config.yaml")
    with pytest.raises(InputError, match="cannot be read"):
        read_lazy_yaml(tmp_path / "none.yaml")
    assert PythonTag("name:a.b", "") == PythonTag("name:a.b", "")
