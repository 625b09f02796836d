"""Settings of the training script: the keys and values of Detectron2's configs/common/train.py, but an available device and few files."""

import torch

train = dict(
    output_dir="./output",
    init_checkpoint="",
    max_iter=90000,
    amp=dict(enabled=False),
    ddp=dict(broadcast_buffers=False, find_unused_parameters=False, fp16_compression=False),
    checkpointer=dict(period=5000, max_to_keep=2),  # beside model_final and model_best; null keeps all
    eval_period=5000,
    log_period=20,
    device="cuda" if torch.cuda.is_available() else "cpu",
)
if train["device"] == "cpu":
    # Several processes without CUDA: DistributedDataParallel must not get a device.
    train["ddp"]["device_ids"] = None
