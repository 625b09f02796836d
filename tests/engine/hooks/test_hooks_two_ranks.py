"""With two processes the hooks compute the values of one, and both follow the same decisions."""

import json
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch.nn.parallel import DistributedDataParallel

from maskrcnn_ext.engine.hooks.ema import EMA
from maskrcnn_ext.engine.hooks.image_panel import ImagePanel, load_panel_data
from maskrcnn_ext.engine.hooks.lr_finder import LRFinder
from maskrcnn_ext.engine.hooks.model_selection import Best, EarlyStopping
from maskrcnn_ext.engine.hooks.validation_loss import ValidationLoss, build_validation_loader, compute_validation_losses
from maskrcnn_ext.engine.preserved_model import preserved_model
from maskrcnn_ext.errors import InputError
from tests.helpers.toy_training import (
    Results,
    Saved,
    Toy,
    random_states,
    same_states,
    same_weights,
    small_config,
    small_model,
    snapshot,
    toy_trainer,
)

pytestmark = pytest.mark.slow


class MainOnly(Results):
    """Results on the main process only, as of Detectron2's EvalHook."""

    def at_evaluation(self):
        if comm.is_main_process():
            super().at_evaluation()


def wrapped():
    torch.manual_seed(0)
    return DistributedDataParallel(Toy())


def work(rank, spec, folder):
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    found = {}

    cfg = small_config(spec)
    model = small_model(cfg).train()
    weights = snapshot(model)
    hook = ValidationLoss(1, DistributedDataParallel(model), lambda: build_validation_loader(cfg))
    hook.trainer = trainer = toy_trainer()
    torch.manual_seed(rank)
    before = random_states()
    with EventStorage(0) as trainer.storage:
        hook.at_evaluation()
    found["validation_loss"] = {name: value for name, (value, _) in trainer.storage.latest().items()}
    found["preserved"] = same_states(before, random_states()) and same_weights(weights, snapshot(model))

    saved, ema = Saved(), EMA(0.9)
    values = [{"m": value} for value in (1, 3, 2, 2, 9, 9)]
    best, stopping = Best(1, saved, metric="m"), EarlyStopping(1, metric="m", patience=2)
    trainer = toy_trainer([ema, MainOnly(1, values), best, stopping], model=wrapped())
    trainer.train(0, 6)
    found["stopped"] = [trainer.iter, trainer.stop_reason]
    found["best"] = [best.value, best.iteration]
    found["saved"] = len(saved.files)
    found["ema"] = [value.double().sum().item() for value in ema.state_dict()["average"].values()]
    with ema.applied(trainer.model):
        found["ema_applied"] = [value.double().sum().item() for value in trainer.model.module.parameters()]

    trainer = toy_trainer([MainOnly(1, values), Best(1, saved, metric="n")], model=wrapped())
    try:
        trainer.train(0, 2)
    except InputError as error:
        found["mistake"] = str(error)

    finder = LRFinder(lowest=1e-4, highest=1e6, steps=60, output_dir=folder)
    trainer = toy_trainer([finder], model=wrapped(), guard=finder)
    trainer.train(0, 60)
    found["lr_finder"] = [trainer.iter, trainer.stop_reason]

    panel = ImagePanel(1, DistributedDataParallel(model), lambda: load_panel_data(cfg, 1), output_dir=folder)
    panel.trainer = trainer
    panel.at_evaluation()
    Path(folder, f"{rank}.json").write_text(json.dumps(found))
    torch.distributed.destroy_process_group()


def test_all_hooks_on_two_ranks(shapes, tmp_path):
    data = json.loads(shapes.read_text())
    data["images"] = data["images"][:3]  # not as many on each rank
    kept = {image["id"] for image in data["images"]}
    data["annotations"] = [a for a in data["annotations"] if a["image_id"] in kept]
    (tmp_path / "val.json").write_text(json.dumps(data))
    spec = f"coco:{tmp_path / 'val.json'}@{shapes.parent / 'images'}"
    torch.multiprocessing.spawn(work, (spec, str(tmp_path)), nprocs=2)
    main, other = (json.loads((tmp_path / f"{rank}.json").read_text()) for rank in range(2))

    cfg = small_config(spec)
    model = small_model(cfg)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # sums of another number of threads are rounded otherwise
    with preserved_model(model):
        expected, count = compute_validation_losses(model, build_validation_loader(cfg))
    torch.set_num_threads(threads)
    assert count == 3
    assert main.pop("validation_loss") == {f"validation_loss/{name}": value for name, value in expected.items()}
    assert other.pop("validation_loss") == {}

    assert (main.pop("saved"), other.pop("saved")) == (2, 0)
    assert main == other
    assert main["preserved"]
    assert main["stopped"] == [3, "m is no better than 3 for 2 evaluations (train.early_stopping.patience)"]
    assert main["best"] == [3, 1]
    assert main["ema_applied"] == main["ema"]
    assert "train.best.metric=n: the evaluation has no such metric" in main["mistake"]
    assert main["lr_finder"][0] < 59
    assert "diverges" in main["lr_finder"][1]
    assert (tmp_path / "lr_finder.json").is_file()
    assert len(list((tmp_path / "panels").iterdir())) == 1
