"""Makes folders of runs like those that training writes, without training."""

import json

from detectron2.config import LazyConfig

from maskrcnn_ext import get_config

LINES = [
    {"iteration": 0, "total_loss": 3.0, "loss_cls": 1.0, "time": 0.5, "lr": 0.01},
    {"iteration": 9, "total_loss": 1.0, "loss_cls": 0.5, "time": 0.25, "lr": 0.01},
    {"iteration": 10, "segm/AP": 41.25, "segm/AP50": 70.0, "segm/APl": float("nan"), "segm/AP-disc": 50.5, "bbox/AP": 45.0},
]  # fmt: skip
LOG = """\
[11/21 04:46:16 d2.utils.events]:  eta: 0:00:01  iter: 9  total_loss: 1.0  time: 0.25  lr: 0.01  max_mem: 2048M
[11/21 04:46:16 d2.engine.hooks]: Total training time: 1 day, 2:03:04 (0:01:34 on hooks)
[11/21 04:46:43 d2.evaluation.evaluator]: Total inference pure compute time: 0:00:19 (0.415224 s / iter per device, on 1 devices)
"""


def make_run(folder, names, found, config="domains/shapes.py"):
    """Writes config, curves, log and predictions; returns the folder."""
    (folder / "inference").mkdir(parents=True)
    cfg = get_config(config)
    cfg.dataloader.test.dataset.names = names
    LazyConfig.save(cfg, str(folder / "config.yaml"))
    (folder / "metrics.json").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "log.txt").write_text(LOG)
    (folder / "inference/coco_instances_results.json").write_text(json.dumps(found))
    return folder


def shapes_run(folder, shapes):
    """Makes a run whose predictions equal the ground truth, but one object is missed and one detection has no object."""
    annotations = json.loads(shapes.read_text())["annotations"]
    found = [{**own, "score": 0.9} for own in annotations[1:]]
    nowhere = {"segmentation": [[0, 0, 3, 0, 3, 3, 0, 3]], "bbox": [0, 0, 3, 3], "score": 0.95}
    found.append({"image_id": annotations[-1]["image_id"], "category_id": 1, **nowhere})
    return make_run(folder, f"coco:{shapes}@{shapes.parent / 'images'}", found)
