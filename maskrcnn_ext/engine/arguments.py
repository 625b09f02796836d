"""The command line of training: Detectron2's flags, which may stand before or after the overrides, and what ours adds."""

from __future__ import annotations

import argparse

_EPILOG = """examples:
  train:              %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei
  go on:              %(prog)s --config-file domains/nuclei.py train.output_dir=output/nuclei --resume
  evaluate:           %(prog)s --config-file domains/nuclei.py --eval-only train.init_checkpoint=output/nuclei/model_final.pth
  without a GPU:      %(prog)s --config-file domains/nuclei.py --num-gpus 0
  two machines:       %(prog)s --num-gpus 8 --num-machines 2 --machine-rank 0 --dist-url tcp://HOST0:29500 ...   (and rank 1 on the other)
  torchrun:           torchrun --nproc-per-node 8 %(prog)s --config-file ...
  SLURM:              srun --ntasks-per-node 8 python %(prog)s --config-file ...

exit status: 0 done; 2 a mistake in the input, in one line; 75 stopped by SIGTERM or SIGUSR1 after writing a checkpoint: run the same
command with --resume.
"""


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the training script."""
    made = argparse.ArgumentParser(
        description="Trains or evaluates a LazyConfig, as Detectron2's tools/lazyconfig_train_net.py.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--config-file", required=True, metavar="FILE", help="a LazyConfig, or the name of a shipped one")
    made.add_argument("--resume", action="store_true", help="go on from the last checkpoint of train.output_dir")
    made.add_argument("--eval-only", action="store_true", help="evaluate train.init_checkpoint")
    made.add_argument(
        "--num-gpus", type=int, default=1, metavar="N", help="per machine; without CUDA: processes, 0 or 1 for one"
    )
    made.add_argument("--num-machines", type=int, default=1, metavar="N")
    made.add_argument("--machine-rank", type=int, default=0, metavar="N", help="from 0")
    made.add_argument(
        "--dist-url", default="auto", metavar="URL", help="where machine 0 listens; one machine finds a free port"
    )
    made.add_argument(
        "--print-config", action="store_true", help="print the config, and where each value comes from; do nothing else"
    )
    made.add_argument("opts", nargs="*", metavar="KEY=VALUE", help="overrides; +KEY=VALUE adds a key")
    return made


def parse(argv: list[str] | None = None) -> argparse.Namespace:
    """Parses the command line; flags and overrides may be mixed."""
    return parser().parse_intermixed_args(argv)
