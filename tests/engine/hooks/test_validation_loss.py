"""The validation loss equals that of a plain loop, is the same every time, and does not affect training."""

import copy
import json
import math

import numpy as np
import pytest
import torch
from detectron2.config import LazyConfig, instantiate
from detectron2.data import DatasetMapper
from detectron2.data import transforms as T
from detectron2.engine import hooks
from detectron2.utils.events import EventStorage
from torch import nn

from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, build_validation_loader, compute_validation_losses
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import (
    random_states,
    same_states,
    same_weights,
    small_config,
    small_model,
    snapshot,
    toy_samples,
    toy_trainer,
)


@pytest.fixture(scope="module")
def spec(shapes, tmp_path_factory):
    """Three of the generated images, of which one has no objects."""
    data = json.loads(shapes.read_text())
    data["images"] = data["images"][:3]
    kept = {image["id"] for image in data["images"][:2]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    file = tmp_path_factory.mktemp("validation") / "val.json"
    file.write_text(json.dumps(data))
    return f"coco:{file}@{shapes.parent / 'images'}"


@pytest.fixture(scope="module")
def cfg(spec):
    return small_config(spec)


@pytest.fixture(scope="module")
def model(cfg):
    """Its running statistics differ from those of any image."""
    model = small_model(cfg).train()
    for name, buffer in model.named_buffers():
        if name.endswith("running_var"):
            buffer.fill_(1.5)
    return model


def losses_of(model, loader):
    with preserved_model(model):
        return compute_validation_losses(model, loader)


def without_sampling(cfg):
    """A model that keeps every anchor and proposal: nothing in it is drawn at random."""
    cfg = copy.deepcopy(cfg)
    cfg.model.proposal_generator.update(batch_size_per_image=10**6, positive_fraction=1.0)
    cfg.model.roi_heads.update(batch_size_per_image=10**6, positive_fraction=1.0)
    return small_model(cfg)


def test_it_is_a_plain_loop_over_the_images(cfg):
    model = without_sampling(cfg)
    mapper = DatasetMapper(
        True, augmentations=[], image_format="BGR", use_instance_mask=True, instance_mask_format="bitmask"
    )
    expected = {}
    records = instantiate(cfg.dataloader.test.dataset)
    assert [len(record["annotations"]) > 0 for record in records] == [True, True, False]
    direct = copy.deepcopy(model).train()
    for module in direct.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    with torch.no_grad(), EventStorage():
        for record in records:
            for name, value in direct([mapper(copy.deepcopy(record))]).items():
                expected[name] = expected.get(name, 0.0) + value.item() / len(records)

    found, count = losses_of(model, build_validation_loader(cfg))
    assert count == 3
    assert found.keys() == {"total_loss", *expected}
    assert expected.keys() >= {"loss_cls", "loss_box_reg", "loss_mask", "loss_rpn_cls", "loss_rpn_loc"}
    for name, value in expected.items():
        assert found[name] == pytest.approx(value, rel=1e-6), name
    assert found["total_loss"] == pytest.approx(sum(expected.values()), rel=1e-6)


def test_it_is_the_same_on_every_call_and_leaves_no_trace(cfg, model):
    hook = ValidationLoss(1, model, lambda: build_validation_loader(cfg))
    hook.trainer = trainer = toy_trainer()
    model.backbone.eval()  # a mode that is not that of all
    modes = [module.training for module in model.modules()]
    torch.manual_seed(5)
    before, weights = random_states(), snapshot(model)
    values = []
    for iteration in (3, 4):
        with EventStorage(iteration) as trainer.storage:
            hook.at_evaluation()
            found = trainer.storage.latest()
        assert {position for _, position in found.values()} == {iteration}
        values.append({name: value for name, (value, _) in found.items()})
        assert same_states(before, random_states())
        assert same_weights(weights, snapshot(model))
        assert [module.training for module in model.modules()] == modes
        assert all(parameter.grad is None for parameter in model.parameters())
        torch.rand(1), np.random.rand()  # training continues
        before = random_states()
    model.train()
    assert values[0] == values[1]
    assert all(name.startswith("validation_loss/") for name in values[0]), "and no other scalar of the model"
    assert "validation_loss/total_loss" in values[0]


def test_it_depends_on_the_weights_but_not_on_the_split_of_the_images(cfg, model):
    batches = list(build_validation_loader(cfg))
    whole, _ = losses_of(model, batches)
    again, _ = losses_of(model, [[image for batch in reversed(batches) for image in batch]])
    assert again == whole, "another order, another batch size"
    other = copy.deepcopy(model)
    with torch.no_grad():
        next(other.roi_heads.mask_head.parameters()).mul_(2)
    assert losses_of(other, batches)[0] != whole


def test_training_is_the_same_without_it():
    def train(with_hook):
        trainer = toy_trainer()
        drawn = []
        draw = hooks.CallbackHook(after_step=lambda _: drawn.append((torch.rand(1).item(), np.random.rand())))
        loader = torch.utils.data.DataLoader([[sample] for sample in toy_samples(7, seed=1)], batch_size=None)
        losses = ValidationLoss(2, trainer.model, lambda: loader)
        trainer.register_hooks([losses, draw] if with_hook else [draw])
        np.random.seed(0)
        trainer.train(0, 6)
        return snapshot(trainer.model), drawn, trainer.storage.latest()

    plain, drawn, scalars = train(False)
    with_hook, drawn_with, scalars_with = train(True)
    assert same_weights(plain, with_hook)
    assert drawn == drawn_with
    names = {f"validation_loss/{name}" for name in ("total_loss", "loss_a", "loss_b")}
    assert scalars_with.keys() - scalars.keys() == names


def test_the_mean_of_losses_that_are_not_finite():
    class Bad(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, batch):
            return {"loss": self.weight.sum() + batch[0]["value"]}

    found, _ = losses_of(Bad(), [[{"value": math.inf}], [{"value": -math.inf}]])
    assert math.isnan(found["total_loss"])
    assert losses_of(Bad(), [[{"value": 1.0}, {"value": 2.0}], [{"value": 6.0}]])[0]["loss"] == 3.0


def test_the_loader_has_ground_truth_and_augments_as_the_test_does(cfg, spec):
    cfg = LazyConfig.apply_overrides(copy.deepcopy(cfg), ["dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper"])
    cfg.dataloader.test.mapper.augmentations = [{"_target_": T.Resize, "shape": [64, 80]}]
    cfg.dataloader.test.mapper.image_format = "BGR"
    wrapped = copy.deepcopy(cfg)
    wrapped.dataloader.train.mapper = {
        "_target_": "maskrcnn_ext.data.mapping.augmentation.loader.SeededMapper",
        "mapper": cfg.dataloader.train.mapper,
        "seed": 0,
    }
    before = copy.deepcopy(wrapped)
    for config in (cfg, wrapped):
        images = [image for batch in build_validation_loader(config) for image in batch]
        assert [image["image_id"] for image in images] == [
            r["image_id"] for r in instantiate(cfg.dataloader.test.dataset)
        ]
        assert {tuple(image["image"].shape) for image in images} == {(3, 64, 80)}
        assert [len(image["instances"]) > 0 for image in images] == [True, True, False]
        assert images[0]["instances"].has("gt_masks")
    assert wrapped == before, "the config stays as it is"


def test_a_random_augmentation_of_the_test_draws_the_same_every_time(cfg):
    cfg = copy.deepcopy(cfg)
    cfg.dataloader.test.mapper.augmentations = [
        {"_target_": T.RandomCrop, "crop_type": "absolute", "crop_size": [40, 40]}
    ]
    loader = build_validation_loader(cfg)
    one, other = ([image["image"] for batch in loader for image in batch] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


def test_mistakes(cfg, spec, shapes, tmp_path, model):
    broken = copy.deepcopy(cfg)
    del broken.dataloader.test.mapper.augmentations
    with pytest.raises(InputError, match=r"dataloader.test.mapper has none"):
        build_validation_loader(broken)

    data = json.loads(shapes.read_text())
    data["images"][1]["file_name"] = "gone.png"
    file = tmp_path / "val.json"
    file.write_text(json.dumps(data))
    lost = small_config(f"coco:{file}@{shapes.parent / 'images'}")
    lost = LazyConfig.apply_overrides(lost, ["dataloader.train.mapper._target_=maskrcnn_ext.SafeMapper"])
    lost.dataloader.train.mapper.max_bad_share = 1.0
    with pytest.raises(InputError, match=r"gone.png cannot be used, but the validation loss needs all images"):
        list(build_validation_loader(lost))

    with pytest.raises(InputError, match=r"a.png has no annotations"):
        losses_of(model, [[{"image": torch.zeros(3, 32, 32), "file_name": "a.png"}]])
