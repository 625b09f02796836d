"""``maskrcnn-ext serve``: answers predictions over HTTP, and shows a page to drop an image on."""

from __future__ import annotations

import argparse
import socket
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from maskrcnn_ext.errors import InputError

if TYPE_CHECKING:
    from maskrcnn_ext.serving.detectors import ModelSource

_OPTIMIZED_DTYPES = ("fp32", "bf16", "auto")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declares the command's arguments."""
    parser.add_argument(
        "models",
        nargs="+",
        metavar="MODEL",
        help="folder of a training run, or a config; several runs, or the folder of `train --folds`, are an ensemble; or an exported model "
        "(.onnx, .xml, .pt2, .ts, or the folder of `export --to opencv`)",
    )
    parser.add_argument("--weights", help="a checkpoint (default: the best or else the last of the run)")
    parser.add_argument("--host", default="127.0.0.1", help="address; 0.0.0.0 for all (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 for any free port (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes, each with the model in memory (default: %(default)s)"
    )
    parser.add_argument(
        "--batch", type=int, default=4, help="most waiting images that are predicted at once (default: %(default)s)"
    )
    parser.add_argument(
        "--time-limit",
        type=float,
        default=30,
        metavar="SECONDS",
        help="of an upload, and of waiting and prediction together (default: %(default)s)",
    )
    parser.add_argument(
        "--max-mb", type=float, default=32, metavar="MIB", help="largest upload in MiB (default: %(default)s)"
    )
    parser.add_argument(
        "--max-megapixels", type=float, default=50, metavar="MP", help="largest image (default: %(default)s)"
    )
    parser.add_argument("--device", help="such as cuda:1 or cpu (default: a GPU if available)")
    parser.add_argument(
        "--optimize",
        nargs="?",
        const="fp32",
        choices=_OPTIMIZED_DTYPES,
        metavar="DTYPE",
        help="optimize the model for speed first, in fp32, bf16 or auto",
    )


def run(args: argparse.Namespace) -> int:
    """Serves until Ctrl-C or SIGTERM."""
    for name in ("workers", "batch"):
        if getattr(args, name) < 1:
            raise InputError(f"--{name} {getattr(args, name)}: expected at least 1")
    for name in ("time_limit", "max_mb", "max_megapixels"):
        if not getattr(args, name) > 0:
            raise InputError(f"--{name.replace('_', '-')} {getattr(args, name):g}: expected more than 0")
    from maskrcnn_ext.common.extras import require
    from maskrcnn_ext.common.stopping import Stopped, stoppable
    from maskrcnn_ext.serving.app import build_app
    from maskrcnn_ext.serving.workers import Workers

    uvicorn = require("uvicorn", extra="serve", purpose="serving")
    try:
        listener = socket.create_server((args.host, args.port))
    except (OSError, OverflowError) as error:
        raise InputError(
            f"--host {args.host} --port {args.port}: {getattr(error, 'strerror', None) or error}"
        ) from None
    with listener, stoppable():
        workers = Workers(
            _source(args).load,
            count=args.workers,
            batch=args.batch,
            seconds=args.time_limit,
            max_pixels=int(args.max_megapixels * 1e6),
        )
        app = build_app(workers, max_bytes=int(args.max_mb * 2**20), seconds=args.time_limit)
        try:
            workers.start()
            host, port = listener.getsockname()[:2]
            print(f"http://{host}:{port}", flush=True)
            print("stop with Ctrl-C", file=sys.stderr, flush=True)
            config = uvicorn.Config(app, log_level="warning", server_header=False)
            uvicorn.Server(config).run(sockets=[listener])
        except Stopped as signal_name:
            print(f"stopped by {signal_name}", file=sys.stderr)
        finally:
            workers.stop()
    return 0


def _source(args: argparse.Namespace) -> ModelSource:
    from maskrcnn_ext.serving.detectors import EXPORTED_SUFFIXES, ModelSource

    models = tuple(args.models)
    source = ModelSource(
        models, args.weights, args.device, args.optimize or "fp32", args.optimize is not None, _threads(args.workers)
    )
    if source.is_exported:
        return source
    from maskrcnn_ext.inference.loading import members_of, read_config

    members = tuple(member for model in models for member in members_of(model) or [model])
    for member in members:
        if Path(member).is_file() and Path(member).suffix not in (".py", ".yaml", ".yml"):
            raise InputError(
                f"{member}: cannot be served: expected the folder of a run, a config, an exported model "
                f"({', '.join(EXPORTED_SUFFIXES)}), or the folder that `export --to opencv` has written"
            )
        read_config(member)  # raises for a wrong path now, not after the start of a process
    return replace(source, models=members)


def _threads(workers: int) -> int:
    """Returns the number of threads of each of several processes; 0, the default of the runtime, for one."""
    from maskrcnn_ext.common.cores import usable_cores

    return 0 if workers == 1 else max(1, usable_cores() // workers)
