"""Several processes train one run: started here, or by torchrun; if one dies, all end with one message."""

import json
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import wait
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch.multiprocessing import start_processes

from eqgan.console import fail
from eqgan.training.ranks import rank, world_size

LOST = 75  # status of a process that ended because another one did
INTERRUPTED = 130
PATIENCE = 5.0  # seconds that the others have to notice that a process died
_MEETING = "EQGAN_MEETING"  # folder in which the processes of one machine meet

Command = Callable[[Sequence[str]], dict[str, Any]]


def processes_to_start(trainer: Mapping[str, Any]) -> int:
    """How many processes the settings of the Trainer ask for; 0 if this one has its part already.

    Under torchrun it joins the others.

    Raises:
        ValueError: for devices that make no sense.
    """
    if world_size() > 1:
        return 0
    if dist.is_available() and dist.is_torchelastic_launched() and int(os.environ["WORLD_SIZE"]) > 1:
        _join("env://", int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"]))
        return 0
    devices = trainer.get("devices", 1)
    if devices in ("auto", -1, "-1"):
        on_cpu = trainer.get("accelerator") == "cpu" or not torch.cuda.is_available()
        devices = 1 if on_cpu else torch.cuda.device_count()
    count = len(devices) if isinstance(devices, list) else devices
    if not isinstance(count, int) or count < 1:
        raise ValueError(f"--devices: expected a number from 1, a list of GPUs or auto, got {devices!r}")
    if count > 1 and trainer.get("num_nodes", 1) != 1:
        raise ValueError("trainer.num_nodes: start the processes of several machines with torchrun")
    return count if count > 1 else 0


def together(command: Command, words: Sequence[str], count: int) -> dict[str, Any]:
    """Runs a command of the command line in ``count`` processes that share its work.

    Args:
        command: given the words in each of them.

    Returns:
        What the first process returned.

    Raises:
        SystemExit: when any of them ended otherwise, after all have; one line says why.
    """
    # a server that has imported all this forks fast; CUDA's users must not fork
    method = "spawn" if torch.cuda.is_available() else "forkserver"
    multiprocessing.get_context("forkserver").set_forkserver_preload([command.__module__])
    with TemporaryDirectory(prefix="eqgan-") as meeting:
        arguments = (command, list(words), count, meeting, dict(os.environ))
        context = start_processes(_process, arguments, nprocs=count, join=False, start_method=method)
        interrupted = _until_all_ended(context.processes, Path(meeting))
        statuses = [int(process.exitcode) for process in context.processes]
        if any(statuses) or interrupted:
            _explain(statuses, interrupted, Path(meeting))
        return dict(json.loads((Path(meeting) / "result.json").read_text()))


def announce(name: str) -> None:
    """Tells the process that waits for the others which run this is."""
    if rank() == 0 and _MEETING in os.environ:
        (Path(os.environ[_MEETING]) / "name").write_text(name)


def dismissed() -> bool:
    """Whether this process is stopped because another one died: then that is what will be told."""
    return _MEETING in os.environ and (Path(os.environ[_MEETING]) / "over").exists()


def lost(error: BaseException) -> bool:
    """Whether an error only says that another process is gone."""
    told = r"gloo|NCCL|Connection (closed|reset|refused)|Broken pipe|Socket"
    distributed = isinstance(error, dist.DistError) or re.search(told, str(error)) is not None
    return world_size() > 1 and distributed


def _process(
    number: int, command: Command, words: list[str], count: int, meeting: str, environment: dict[str, str]
) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    os.environ.clear()
    os.environ |= environment
    os.environ |= {"RANK": str(number), "LOCAL_RANK": str(number), "GROUP_RANK": "0", _MEETING: meeting}
    os.environ |= {"WORLD_SIZE": str(count), "LOCAL_WORLD_SIZE": str(count)}
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    if number:
        _quiet(Path(meeting) / f"errors-{number}")
    _join(f"file://{meeting}/store", number, count)
    result = command(words)
    if number == 0:
        (Path(meeting) / "result.json").write_text(json.dumps(result))
    dist.destroy_process_group()


def _end_with_parent() -> None:
    """The process that waits for all is gone, however it went: nobody is left to stop this one."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGINT)


def _join(address: str, number: int, count: int) -> None:
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    dist.init_process_group(backend, init_method=address, rank=number, world_size=count)


def _quiet(errors: Path) -> None:
    """The first process speaks for all; what another one complains of is kept."""
    sys.stdout.flush()
    for stream, path in ((1, os.devnull), (2, str(errors))):
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
        os.dup2(descriptor, stream)
        os.close(descriptor)


def _until_all_ended(processes: Sequence[Any], meeting: Path) -> bool:
    """Waits; once a process failed or an interrupt came, the others have some seconds to end by themselves.

    Returns:
        Whether there was an interrupt.
    """
    interrupted, deadlines = False, []
    while alive := [process for process in processes if process.exitcode is None]:
        try:
            wait([process.sentinel for process in alive], timeout=0.2 if deadlines else 1.0)
        except KeyboardInterrupt:  # a terminal tells all processes, kill -INT this one alone
            interrupted = True
        if not deadlines and (interrupted or any(process.exitcode for process in processes)):
            now = time.monotonic()
            deadlines = [(now + PATIENCE, signal.SIGINT), (now + 4 * PATIENCE, signal.SIGKILL)]
            if interrupted:
                deadlines[0] = (now + 1, signal.SIGINT)
        while deadlines and deadlines[0][0] < time.monotonic():
            if not interrupted:
                (meeting / "over").touch()
            _send(alive, deadlines.pop(0)[1])
            if not deadlines:
                deadlines = [(float("inf"), signal.SIGKILL)]
    return interrupted


def _send(processes: Sequence[Any], number: signal.Signals) -> None:
    for process in processes:
        if process.exitcode is None:
            os.kill(process.pid, number)


def _explain(statuses: list[int], interrupted: bool, meeting: Path) -> None:
    """Ends this process as the run ended; says why, unless the first process has said so."""
    if interrupted or INTERRUPTED in statuses:
        if statuses[0] != INTERRUPTED:
            sys.stderr.write("stopped\n")
        raise SystemExit(INTERRUPTED)
    if statuses[0] not in (0, LOST) and statuses[0] > 0:
        raise SystemExit(statuses[0])
    number = next((i for i, status in enumerate(statuses) if status not in (0, LOST)), 0)
    name = meeting / "name"
    on = f". Go on with --resume {name.read_text()}" if name.exists() else ""
    fail(
        f"process {number} of {len(statuses)} {_told(statuses[number], meeting / f'errors-{number}')}; the "
        f"others were stopped, at most the epoch under way is lost{on}"
    )


def _told(status: int, errors: Path) -> str:
    if status < 0:
        return f"was killed ({signal.Signals(-status).name})"
    lines = errors.read_text().strip().splitlines() if errors.exists() else []
    why = lines[-1].removeprefix("eqgan: error: ") if lines else f"status {status}"
    return f"failed ({why})"
