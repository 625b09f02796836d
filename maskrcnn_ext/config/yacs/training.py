"""What each key of a yacs config about training and data is in a LazyConfig."""

from __future__ import annotations

from maskrcnn_ext.config.yacs.reader import Rules
from maskrcnn_ext.errors import InputError


def training_rules(rules: Rules) -> None:
    """Adds what optimizer, schedule and `train` must say."""
    yaml = rules.yaml
    names = {"lr": "BASE_LR", "momentum": "MOMENTUM", "nesterov": "NESTEROV", "weight_decay": "WEIGHT_DECAY"}
    names |= {"params.weight_decay_norm": "WEIGHT_DECAY_NORM", "params.weight_decay_bias": "WEIGHT_DECAY_BIAS"}
    rules.put_all("optimizer", "SOLVER", names | {"params.bias_lr_factor": "BIAS_LR_FACTOR"})
    if yaml("SOLVER.BIAS_LR_FACTOR") != 1:
        rules.values["optimizer.params.base_lr"] = "${..lr}"
    rules.put("train.init_checkpoint", "MODEL.WEIGHTS")
    rules.put("train.eval_period", "TEST.EVAL_PERIOD")
    names = {"max_iter": "MAX_ITER", "amp.enabled": "AMP.ENABLED", "checkpointer.period": "CHECKPOINT_PERIOD"}
    rules.put_all("train", "SOLVER", names)
    for key, source in {"output_dir": "OUTPUT_DIR", "seed": "SEED", "cudnn_benchmark": "CUDNN_BENCHMARK"}.items():
        rules.put(f"train.{key}", source)
    if "FLOAT32_PRECISION" in yaml:  # since Detectron2's main branch
        rules.put("train.float32_precision", "FLOAT32_PRECISION")
    if not yaml.is_default("MODEL.DEVICE"):  # else the machine's: CUDA where there is one
        rules.put("train.device", "MODEL.DEVICE")
    last = yaml("SOLVER.MAX_ITER")
    rules.put("lr_multiplier.warmup_length", "SOLVER.WARMUP_ITERS", make=lambda length: min(length / last, 1.0))
    rules.put_all("lr_multiplier", "SOLVER", {"warmup_method": "WARMUP_METHOD", "warmup_factor": "WARMUP_FACTOR"})
    if yaml("SOLVER.LR_SCHEDULER_NAME") == "WarmupMultiStepLR":
        steps = [step for step in yaml("SOLVER.STEPS") if step < last]
        gamma = yaml("SOLVER.GAMMA")
        rules.values["lr_multiplier.scheduler.values"] = [gamma**k for k in range(len(steps) + 1)]
        rules.values["lr_multiplier.scheduler.milestones"] = [*steps, last]
    elif yaml("SOLVER.LR_SCHEDULER_NAME") == "WarmupCosineLR":
        yaml.read |= {"SOLVER.STEPS", "SOLVER.GAMMA"}
    else:
        raise InputError(
            f"SOLVER.LR_SCHEDULER_NAME={yaml('SOLVER.LR_SCHEDULER_NAME')}: expected WarmupMultiStepLR or WarmupCosineLR"
        )


def data_rules(rules: Rules) -> None:
    """Adds what the loaders and the evaluator must say."""
    yaml, train, test = rules.yaml, "dataloader.train", "dataloader.test"
    for split, source in ((train, "DATASETS.TRAIN"), (test, "DATASETS.TEST")):
        names = yaml(source)
        if not names or (split == test and len(names) > 1):
            raise InputError(
                f"{source}={tuple(names)}: expected one{' or more' if split == train else ''}, as in {source} \"('coco_2017_val',)\""
            )
        rules.values[f"{split}.dataset.names"] = names[0] if len(names) == 1 else names
        rules.put(f"{split}.num_workers", "DATALOADER.NUM_WORKERS")
    rules.put(f"{train}.dataset.filter_empty", "DATALOADER.FILTER_EMPTY_ANNOTATIONS")
    rules.put(f"{train}.aspect_ratio_grouping", "DATALOADER.ASPECT_RATIO_GROUPING")
    rules.put(f"{train}.total_batch_size", "SOLVER.IMS_PER_BATCH")
    names = {"use_instance_mask": "MODEL.MASK_ON", "use_keypoint": "MODEL.KEYPOINT_ON", "image_format": "INPUT.FORMAT"}
    for key, source in (names | {"instance_mask_format": "INPUT.MASK_FORMAT"}).items():
        rules.put(f"{train}.mapper.{key}", source)
    rules.put_all(
        f"{train}.mapper.augmentations.0",
        "INPUT",
        {"short_edge_length": "MIN_SIZE_TRAIN", "max_size": "MAX_SIZE_TRAIN"},
    )
    rules.put(f"{train}.mapper.augmentations.0.sample_style", "INPUT.MIN_SIZE_TRAIN_SAMPLING")
    rules.put_all(
        f"{test}.mapper.augmentations.0", "INPUT", {"short_edge_length": "MIN_SIZE_TEST", "max_size": "MAX_SIZE_TEST"}
    )
    rules.put("dataloader.evaluator.kpt_oks_sigmas", "TEST.KEYPOINT_OKS_SIGMAS")
