"""Starts the processes of a training, or joins those that torchrun or SLURM's srun started."""

from __future__ import annotations

import argparse
import multiprocessing
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from maskrcnn_ext.common.text import first_line
from maskrcnn_ext.engine.worker_signals import SIGNALS
from maskrcnn_ext.errors import InputError

_ADDRESS_IN_USE = re.compile("EADDRINUSE|[Aa]ddress already in use")


@dataclass(frozen=True)
class RankInfo:
    """Rank and rendezvous address that torchrun or srun assigned to this process.

    Attributes:
        rank: rank among all processes, from 0.
        world_size: number of processes.
        local_rank: rank on this machine, from 0.
        local_world_size: number of processes on this machine.
        address: host that rank 0 listens on.
        port: port that rank 0 listens on.
    """

    rank: int
    world_size: int
    local_rank: int
    local_world_size: int
    address: str
    port: int


def read_rank_info(environment: Mapping[str, str]) -> RankInfo | None:
    """Reads the variables that torchrun or srun sets; returns None if neither started this process.

    Raises:
        InputError: a variable is missing, or srun runs different numbers of tasks on the machines.

    Example:
        >>> read_rank_info({}) is None
        True
    """
    if (
        "TORCHELASTIC_RUN_ID" in environment
        or {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= environment.keys()
    ):
        names = ["RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"]
        values = dict(zip(names, _read_variables(environment, names, "torchrun"), strict=True))
        rank, world, local, per_machine, port = (
            _whole_number(name, values[name]) for name in names if name != "MASTER_ADDR"
        )
        return RankInfo(rank, world, local, per_machine, values["MASTER_ADDR"], port)
    # Only a task of srun has SLURM_STEP_ID; a batch script alone has SLURM_NTASKS without it.
    if environment.get("SLURM_NTASKS", "1") != "1" and "SLURM_STEP_ID" in environment:
        names = ["SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID", "SLURM_JOB_ID", "SLURM_STEP_TASKS_PER_NODE"]
        *numbers, tasks = _read_variables(environment, names, "srun")
        rank, world, local, job = (_whole_number(name, value) for name, value in zip(names, numbers, strict=False))
        per_machine = _whole_number(names[-1], tasks.split("(")[0].split(",")[0])
        if world % per_machine:
            raise InputError(
                f"srun has started {tasks} tasks on the machines: start equally many on each (--ntasks-per-node)"
            )
        address = environment.get("MASTER_ADDR") or _find_first_host(environment)
        # Jobs that share a machine need different ports.
        port = _whole_number("MASTER_PORT", environment.get("MASTER_PORT") or str(20000 + job % 20000))
        return RankInfo(rank, world, local, per_machine, address, port)
    return None


def _whole_number(name: str, value: str) -> int:
    if not value.isdecimal():
        raise InputError(
            f"the environment variable {name} is {value!r}, expected a whole number: unset it, or start with torchrun"
        )
    return int(value)


def _read_variables(environment: Mapping[str, str], names: Sequence[str], program: str) -> list[str]:
    missing = [name for name in names if not environment.get(name)]
    if missing:
        raise InputError(f"{program} has started this process, but {', '.join(missing)} is not set in its environment")
    return [environment[name] for name in names]


def _find_first_host(environment: Mapping[str, str]) -> str:
    hosts = environment.get("SLURM_STEP_NODELIST") or environment.get("SLURM_JOB_NODELIST", "")
    if "[" not in hosts:
        return hosts.split(",")[0] or "127.0.0.1"
    try:
        done = subprocess.run(["scontrol", "show", "hostnames", hosts], capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InputError(f"cannot find the first of the hosts {hosts} (scontrol: {error}): set MASTER_ADDR") from error
    return done.stdout.split()[0]


def launch(body: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    """Runs `body` in every process of the training.

    Args:
        body: takes `args` and returns an exit status; it must be importable, since spawned processes import it.
        args: parsed by :func:`maskrcnn_ext.engine.main.parse_args`.

    Returns:
        The exit status of this process.

    Raises:
        InputError: the flags contradict each other or the machine, or `body` raised one.
    """
    rank_info = read_rank_info(os.environ)
    if rank_info is not None:
        return _run_as_rank(body, args, rank_info)
    if args.num_machines > 1 and not args.dist_url.startswith("tcp://"):
        raise InputError(
            f"--num-machines {args.num_machines} needs --dist-url tcp://HOST:PORT, where the machine of rank 0 listens, on every machine"
        )
    if not 0 <= args.machine_rank < args.num_machines:
        raise InputError(
            f"--machine-rank {args.machine_rank}: expected 0 to {args.num_machines - 1}, as --num-machines is {args.num_machines}"
        )
    return _run_spawned(body, args) if starts_processes(args) else body(args)


def starts_processes(args: argparse.Namespace) -> bool:
    """Returns whether this process starts those of the training, instead of training itself."""
    return read_rank_info(os.environ) is None and args.num_machines * max(args.num_gpus, 1) > 1


def _run_as_rank(body: Callable[[argparse.Namespace], int], args: argparse.Namespace, info: RankInfo) -> int:
    import torch
    import torch.distributed as dist
    from torch.distributed.rendezvous import rendezvous

    from maskrcnn_ext.compat import set_local_process_group

    if torch.cuda.is_available():
        torch.cuda.set_device(info.local_rank)
    os.environ.update(
        MASTER_ADDR=info.address, MASTER_PORT=str(info.port), RANK=str(info.rank), WORLD_SIZE=str(info.world_size)
    )
    try:
        store, _, _ = next(rendezvous("env://"))
    except RuntimeError as error:  # torch has no narrower type in all versions
        raise InputError(_port_message(f"{info.address}:{info.port}", error)) from error
    # After a restart, torchrun's store still contains the addresses of the previous processes.
    store = dist.PrefixStore(f"attempt_{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, store=store, rank=info.rank, world_size=info.world_size)
    set_local_process_group(info.local_world_size)
    try:
        return body(args)
    finally:
        dist.destroy_process_group()


def _run_spawned(body: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> int:
    import torch
    from detectron2.engine import launch as detectron2_launch
    from torch.multiprocessing import ProcessExitedException, ProcessRaisedException

    if torch.cuda.is_available() and args.num_gpus > torch.cuda.device_count():
        raise InputError(f"--num-gpus {args.num_gpus}, but this machine has {torch.cuda.device_count()}")
    try:
        with _signals_forwarded():
            detectron2_launch(
                _run_and_exit,
                args.num_gpus,
                num_machines=args.num_machines,
                machine_rank=args.machine_rank,
                dist_url=args.dist_url,
                args=(body, args),
            )
    except ProcessExitedException as error:
        if error.exit_code > 0:
            return int(error.exit_code)
        raise InputError(
            f"a training process was killed by {error.signal_name or error.exit_code}: if the kernel did so, memory ran out (use fewer "
            "images per process, or fewer loader workers); --resume continues from the last checkpoint"
        ) from error
    except ProcessRaisedException as error:
        found = re.search(r"^maskrcnn_ext\.[\w.]+: (.*)", str(error), re.MULTILINE)
        if found is None and _ADDRESS_IN_USE.search(str(error)):
            raise InputError(_port_message(args.dist_url, error)) from error
        if found is None:
            raise
        raise InputError(found[1]) from error
    return 0


def _port_message(address: str, error: Exception) -> str:
    if _ADDRESS_IN_USE.search(str(error)):
        return f"another program uses the port of {address}: choose another one (--dist-url tcp://HOST:PORT, or MASTER_PORT)"
    return f"cannot join the other processes at {address} ({first_line(error)})"


def _run_and_exit(body: Callable[[argparse.Namespace], int], args: argparse.Namespace) -> None:
    status = body(args)
    if status:
        sys.exit(status)


@contextmanager
def _signals_forwarded() -> Iterator[None]:
    """Forwards the signals that stop training to the spawned processes: a scheduler may signal only the first process."""
    interrupted = False

    def forward(number: int, _: FrameType | None) -> None:
        nonlocal interrupted
        children = multiprocessing.active_children()
        if number == signal.SIGINT and interrupted:
            for child in children:
                child.kill()
            raise KeyboardInterrupt
        # A terminal sends Ctrl-C to the children as well, and they take a second one as the wish to stop at once.
        interrupted = interrupted or number == signal.SIGINT
        for child in children:
            if child.pid is not None:
                os.kill(child.pid, signal.SIGTERM if number == signal.SIGINT else number)

    before = {number: signal.signal(number, forward) for number in SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
