"""Private names of Detectron2, fvcore and torch: the functions of compat.py work, and no other module uses such names.

The tests do not need compiled operators, so that they also run on a checkout of Detectron2's main branch on the import path.
"""

import ast
import importlib
import inspect
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.structures import Boxes, Instances
from torch import nn

import maskrcnn_ext
from maskrcnn_ext import compat

PACKAGE = Path(maskrcnn_ext.__file__).parent


def test_the_kind_of_detectron2_is_recognised():
    assert compat.detectron2_kind() == ("v0.6" if issubclass(ShapeSpec, tuple) else "main")
    try:
        import detectron2._C  # noqa: F401
    except ImportError:
        assert not compat.has_compiled_operators()
    else:
        assert compat.has_compiled_operators()


def test_vit_is_required_with_a_reason(monkeypatch):
    assert compat.has_vit() == (compat.detectron2_kind() == "main")
    monkeypatch.setattr(compat, "has_vit", lambda: False)
    with pytest.raises(maskrcnn_ext.InputError, match="main branch"):
        compat.require_vit()


def test_local_process_groups_reach_comm(tmp_path, monkeypatch):
    import torch.distributed as dist
    from detectron2.utils import comm

    monkeypatch.setattr(comm, "_LOCAL_PROCESS_GROUP", None)
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        compat.set_local_process_group(1)
        assert (comm.get_local_rank(), comm.get_local_size()) == (0, 1)
    finally:
        dist.destroy_process_group()


def test_hooks_of_a_trainer():
    from detectron2.engine import HookBase, TrainerBase

    hooks = [HookBase(), HookBase()]
    trainer = TrainerBase()
    trainer.register_hooks(hooks)
    assert compat.registered_hooks(trainer) == hooks


def test_images_of_the_storage():
    from detectron2.utils.events import EventStorage

    with EventStorage(7) as storage:
        storage.put_image("masks", torch.zeros(3, 2, 2))
    ((name, pixels, iteration),) = compat.stored_images(storage)
    assert (name, tuple(pixels.shape), iteration) == ("masks", (3, 2, 2), 7)


def test_prefixes_are_stripped_if_every_name_has_one():
    state = {"module.a": 1, "module.b": 2}
    compat.strip_prefix(state, "module.")
    assert state == {"a": 1, "b": 2}
    compat.strip_prefix(state, "module.")
    assert state == {"a": 1, "b": 2}


def test_the_scaler_leaves_out_the_step_of_a_fused_optimizer():
    parameter = nn.Parameter(torch.ones(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0, momentum=0.9, fused=True)
    compat.let_scaler_skip_steps(optimizer)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
    scaler.scale(parameter.sum() * float("inf")).backward()
    scaler.step(optimizer)
    assert parameter.item() == 1
    assert not optimizer.state


def test_checkpointed_blocks_keep_names_and_run_twice():
    calls = []

    class Block(nn.Linear):
        def forward(self, x):
            calls.append(1)
            return super().forward(x).relu()

    block = Block(2, 2)
    wrapped = compat.checkpoint_wrapper(block, lambda: (nullcontext(), nullcontext()))
    assert list(wrapped.state_dict()) == ["weight", "bias"]
    wrapped(torch.ones(1, 2, requires_grad=True)).sum().backward()
    assert len(calls) == 2
    assert block.weight.grad is not None


@pytest.mark.parametrize("fuse_type", ["sum", "avg"])
def test_fuse_type_of_an_fpn(fuse_type):
    assert compat.fpn_fuse_type(_fpn(fuse_type)) == fuse_type


def _fpn(fuse_type="sum"):
    from detectron2.modeling.backbone import FPN, BasicStem, ResNet
    from detectron2.modeling.backbone.resnet import BasicBlock

    stages = [ResNet.make_stage(BasicBlock, 1, stride_per_block=[s], in_channels=8, out_channels=8) for s in (1, 2)]
    bottom_up = ResNet(BasicStem(3, 8), stages, out_features=["res2", "res3"])
    return FPN(bottom_up, ["res2", "res3"], 8, fuse_type=fuse_type)


def test_results_are_rescaled_to_the_stored_images():
    raw = Instances((10, 20), pred_boxes=Boxes(torch.tensor([[0.0, 0.0, 10.0, 5.0]])))
    (image,) = compat.rescale_to_inputs([raw], [{"height": 20, "width": 60}], [(10, 20)])
    found = image["instances"]
    assert found.image_size == (20, 60)
    assert found.pred_boxes.tensor.tolist() == [[0, 0, 30, 10]]


def test_a_module_changes_its_class_in_place():
    class Doubled(Conv2d):
        def forward(self, x):
            return 2 * super().forward(x)

    conv = Conv2d(1, 1, 1)
    x = torch.ones(1, 1, 1, 1)
    before = conv(x)
    assert compat.change_class(conv, Doubled) is conv
    assert torch.equal(conv(x), 2 * before)
    with pytest.raises(TypeError, match="not a subclass"):
        compat.change_class(nn.Linear(1, 1), Doubled)


def test_a_replaced_child_is_also_replaced_in_the_lists_of_an_fpn():
    fpn = _fpn()
    index = fpn.lateral_convs.index(fpn.fpn_lateral2)
    compat.replace_child(fpn, "fpn_lateral2", new := nn.Identity())
    assert fpn.fpn_lateral2 is new
    assert fpn.lateral_convs[index] is new


def test_load_hooks_run_before_weights_are_taken():
    layer, seen = nn.Linear(1, 1), []
    compat.register_load_pre_hook(layer, lambda module, *_: seen.append(module.weight.item()))
    before = layer.weight.item()
    layer.load_state_dict(nn.Linear(1, 1).state_dict())
    assert seen == [before]


def test_forward_hooks_are_found():
    layer = nn.ReLU()
    assert not compat.has_forward_hooks(layer)
    handle = layer.register_forward_pre_hook(lambda *_: None)
    assert compat.has_forward_hooks(layer)
    handle.remove()
    layer.register_forward_hook(lambda *_: None)
    assert compat.has_forward_hooks(layer)


def test_batch_norms_and_dropouts_are_recognised():
    class DropPath(nn.Module):
        pass

    assert compat.is_batch_norm(nn.BatchNorm2d(1))
    assert compat.is_batch_norm(nn.SyncBatchNorm(1))
    assert not compat.is_batch_norm(nn.GroupNorm(1, 1))
    assert not compat.is_batch_norm(nn.InstanceNorm2d(1))
    assert compat.is_dropout(nn.Dropout())
    assert compat.is_dropout(nn.Dropout2d())
    assert compat.is_dropout(DropPath())
    assert not compat.is_dropout(nn.Identity())


def test_norms_of_tensors():
    norms = compat.tensor_norms([torch.tensor([3.0, 4.0]), torch.zeros(2, 2), torch.tensor([float("nan")])])
    assert [norm.item() for norm in norms[:2]] == [5, 0]
    assert norms[2].isnan()


def test_instruction_sets_are_known_ones():
    assert set(compat.cpu_instructions()) <= {"AVX2", "AVX-512", "AVX-512 VNNI", "AVX-512 BF16", "AMX"}
    if torch.backends.cpu.get_cpu_capability() in ("AVX2", "AVX512"):
        assert "AVX2" in compat.cpu_instructions()


def test_the_fused_convolution_computes_convolution_and_relu():
    operator = compat.fused_cpu_convolution()
    if operator is None:
        pytest.skip("this torch has no oneDNN")
    x, weight, bias = torch.randn(1, 2, 5, 5), torch.randn(3, 2, 3, 3), torch.randn(3)
    found = operator(x, weight, bias, [1, 1], [1, 1], [1, 1], 1, "relu", [], "")
    torch.testing.assert_close(found, nn.functional.conv2d(x, weight, bias, padding=1).relu())


def test_operators_are_observed_with_their_results():
    seen = []
    with compat.observed_operators(lambda operator, args, _, result: seen.append((operator, args, result))):
        product = torch.ones(2, 3) @ torch.ones(3, 4)
    operator, args, result = seen[-1]
    assert operator is torch.ops.aten.mm
    assert [tuple(tensor.shape) for tensor in compat.tensors_in((args, {"out": [result]}, 1))] == [
        (2, 3),
        (3, 4),
        (2, 4),
    ]
    assert result is product


def test_the_onnx_exporter_is_quiet_and_loud_again():
    assert hasattr(torch._C, "_jit_set_onnx_log_enabled")
    with compat.quiet_onnx_exporter():
        pass


@pytest.mark.parametrize("path", sorted(compat.INHERITED_MEMBERS))
def test_inherited_members_exist(path):
    module, _, name = path.rpartition(".")
    cls = getattr(importlib.import_module(module), name)
    source = "".join(inspect.getsource(base) for base in cls.__mro__[:-1])
    for member in compat.INHERITED_MEMBERS[path]:
        assert hasattr(cls, member) or f"self.{member} =" in source, f"{path} has no {member}"


# Not private in spite of the underscore: methods of named tuples, OmegaConf's key, and os._exit.
PUBLIC = {"_asdict", "_exit", "_replace", "_fields", "_target_"}
MODULES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in sorted(PACKAGE.rglob("*.py"))
    if path != PACKAGE / "compat.py"
}


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def defined_names(tree):
    """Returns the names that a module defines: functions, classes, variables, and attributes that it assigns to `self` or `cls`."""
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            names.add(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store) and is_own_instance(node.value):
            names.add(node.attr)
    return names


def is_own_instance(node):
    is_super = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "super"
    return is_super or (isinstance(node, ast.Name) and node.id in ("self", "cls"))


def private_uses(tree, of_package):
    """Yields "line: name" of each private name that a module takes from another package.

    A private attribute of `self` may come from any class of this package, one of another object only from the module itself.
    """
    of_module = defined_names(tree)
    of_self = {*of_module, *of_package, *(name for names in compat.INHERITED_MEMBERS.values() for name in names)}
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.Attribute):
            allowed = of_self if is_own_instance(node.value) else of_module
            names = [node.attr] if node.attr not in allowed else []
            if node.attr == "__class__" and isinstance(node.ctx, ast.Store):
                yield f"{node.lineno}: __class__"
        elif isinstance(node, ast.Import | ast.ImportFrom):
            module = getattr(node, "module", None) or ""
            names = [part for alias in node.names for part in f"{module}.{alias.name}".split(".")]
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("getattr", "setattr"):
            names = [node.args[1].value] if isinstance(node.args[1], ast.Constant) else []
        yield from (f"{node.lineno}: {name}" for name in names if is_private(name))


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("trainer._hooks", ["1: _hooks"]),
        ("from torch.nn.modules.batchnorm import _BatchNorm", ["1: _BatchNorm"]),
        ("import torch.utils._pytree", ["1: _pytree"]),
        ("getattr(torch.cpu, '_is_amx_tile_supported')", ["1: _is_amx_tile_supported"]),
        ("module.__class__ = Other", ["1: __class__"]),
        ("self._unknown()", ["1: _unknown"]),
        ("self._eval_box_proposals(); self._of_package; node._target_; type(x).__name__", []),
        ("class A:\n def f(self, other):\n  self._x = other._x", []),
    ],
)
def test_private_names_are_found(code, found):
    assert list(private_uses(ast.parse(code), {"_of_package"})) == found


def test_no_other_module_uses_private_names_of_another_package():
    of_package = set().union(*map(defined_names, MODULES.values()))
    found = [f"{name}:{use}" for name, tree in MODULES.items() for use in private_uses(tree, of_package)]
    assert not found, "use or add a function of compat.py: " + ", ".join(found)


def test_overridden_private_members_are_listed():
    for path, tree in MODULES.items():
        if not any(isinstance(node, ast.ClassDef) and node.bases for node in ast.walk(tree)):
            continue
        module = importlib.import_module(".".join(["maskrcnn_ext", *path.removesuffix(".py").split("/")]))
        for cls in [cls for cls in vars(module).values() if inspect.isclass(cls) and cls.__module__ == module.__name__]:
            for base in cls.__mro__[1:]:
                if base.__module__.split(".")[0] in ("detectron2", "fvcore", "torch"):
                    overridden = {name for name in vars(cls) if is_private(name) and name in vars(base)}
                    # Metaclasses make the latter two: ABCMeta, and torch's for autograd functions.
                    allowed = {*_inherited_from(base), "_abc_impl", "_backward_cls"}
                    assert overridden <= allowed, f"{cls} overrides {overridden - allowed} of {base}"


def _inherited_from(base):
    for path, names in compat.INHERITED_MEMBERS.items():
        module, _, name = path.rpartition(".")
        if issubclass(getattr(importlib.import_module(module), name), base):
            yield from names
