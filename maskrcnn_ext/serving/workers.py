"""Processes that hold a model: they batch the images that wait, and are replaced when they die or take too long."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import signal
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from multiprocessing.connection import Connection
from typing import Any

from maskrcnn_ext.common.text import one_line
from maskrcnn_ext.errors import InputError
from maskrcnn_ext.serving.answers import Answer, Answerer, Request, error_answer
from maskrcnn_ext.serving.detectors import Detector

logger = logging.getLogger(__name__)

# With more images waiting, further ones are refused.
MAX_WAITING = 64
# Seconds between checks that a process without work is alive.
_CHECK_EVERY = 1.0
# Raised by a connection whose process has died.
_DIED = (EOFError, OSError)


@dataclass
class _Job:
    """A request, and the answer that its client waits for."""

    request: Request
    answer: asyncio.Future[Answer]

    def finish(self, answer: Answer) -> None:
        """Sets the answer, unless the request has timed out."""
        if not self.answer.done():
            self.answer.set_result(answer)


class Worker:
    """A process that holds a model.

    Attributes:
        state: "loading", "ready" or "failed".
        error: why it failed.
        info: ``name`` and ``classes`` of the model.
        pid: id of the process.
    """

    def __init__(self, load: Callable[[], Detector], max_pixels: int) -> None:
        """Starts no process yet."""
        self._load = load
        self._max_pixels = max_pixels
        self.state, self.error = "loading", ""
        self.info: dict[str, Any] = {}
        self._process: Any = None

    def start(self) -> None:
        """Starts a process and waits until the model is loaded; sets `state`."""
        self.state = "loading"
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(self._load, self._max_pixels, theirs), daemon=True)
        self._process.start()
        theirs.close()  # or the end of the process would not end the connection
        try:
            reply = json.loads(self._connection.recv_bytes())
        except _DIED:
            reply = {"error": "the process was killed while it loaded the model, possibly because memory ran out"}
        self.error = reply.pop("error", "")
        self.info = reply
        self.state = "failed" if self.error else "ready"

    @property
    def pid(self) -> int | None:
        """The id of the process."""
        return self._process.pid if self._process else None

    def is_alive(self) -> bool:
        """Returns whether the process runs."""
        return bool(self._process.is_alive())

    def answer(self, requests: Sequence[Request]) -> list[Answer]:
        """Returns the answers of the process.

        Raises:
            EOFError: the process has died, as with OSError.
        """
        settings = [{key: value for key, value in asdict(one).items() if key != "content"} for one in requests]
        connection = self._connection  # a later one belongs to another process
        connection.send_bytes(json.dumps(settings).encode())
        for request in requests:
            connection.send_bytes(request.content)
        replies = [connection.recv_bytes() for _ in requests]
        return [(int(reply[:3]), reply[3:]) for reply in replies]

    def stop(self) -> None:
        """Kills the process, so that :meth:`answer` raises in the thread that waits for it."""
        if self._process:
            self._process.kill()
            self._process.join()


def _work(load: Callable[[], Detector], max_pixels: int, connection: Connection) -> None:
    """Answers requests until the connection ends, which it does when the server ends in any way."""
    warnings.filterwarnings("ignore", module="torch")  # they address authors of programs
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all processes of a terminal; the server decides
    try:
        detector = load()
    except Exception as error:  # the server reports it
        connection.send_bytes(json.dumps({"error": one_line(error)}).encode())
        return
    answer = Answerer(detector, max_pixels)
    connection.send_bytes(json.dumps({"name": detector.name, "classes": list(detector.classes)}).encode())
    while True:
        try:
            settings = json.loads(connection.recv_bytes())
            requests = [Request(connection.recv_bytes(), **one) for one in settings]
            for status, body in answer(requests):
                connection.send_bytes(b"%d" % status + body)
        except _DIED:
            return


class Workers:
    """A number of processes with the same model, and the images that wait for them.

    The first free process takes all images that wait, up to the size of a batch, and waits for no further ones: batches form under load.

    Example:
        ::

            workers = Workers(ModelSource(("output/nuclei",)).load)
            workers.start()
            async with workers:
                status, body = await workers.predict(Request(Path("cells.png").read_bytes()))
    """

    def __init__(
        self,
        load: Callable[[], Detector],
        *,
        count: int = 1,
        batch: int = 4,
        seconds: float = 30,
        max_pixels: int = 50_000_000,
    ) -> None:
        """Starts no process yet.

        Args:
            load: loads the model, in each process; it is pickled.
            count: number of processes.
            batch: most images of a batch.
            seconds: longest time from the arrival of an image to its answer.
            max_pixels: of an image.
        """
        self._workers = [Worker(load, max_pixels) for _ in range(count)]
        self._batch, self._seconds, self.max_pixels = batch, seconds, max_pixels
        self._waiting: asyncio.Queue[_Job] = asyncio.Queue()
        # Each thread waits for one process.
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="worker")
        self._tasks: list[asyncio.Task[None]] = []
        self._restarts = 0

    def start(self) -> None:
        """Starts the processes and waits until all are ready.

        Raises:
            InputError: the model cannot be loaded.
        """
        list(self._threads.map(Worker.start, self._workers))
        failed = next((worker for worker in self._workers if worker.state == "failed"), None)
        if failed:
            self.stop()
            raise InputError(failed.error)

    def stop(self) -> None:
        """Ends the processes."""
        for worker in self._workers:
            worker.stop()
        self._threads.shutdown()

    async def __aenter__(self) -> Workers:
        self._tasks = [asyncio.create_task(self._serve(worker)) for worker in self._workers]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._tasks:
            task.cancel()
        self.stop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def info(self) -> dict[str, Any]:
        """``name`` and ``classes`` of the model."""
        return self._workers[0].info

    @property
    def _is_failed(self) -> bool:
        return all(worker.state == "failed" for worker in self._workers)

    def _failure(self) -> Answer:
        return error_answer(503, f"no process works: {self._workers[0].error}")

    def health(self) -> dict[str, Any]:
        """Returns ``status``: "ok" if a process is ready, else "loading" or "failed"; and the state of each process."""
        states = [worker.state for worker in self._workers]
        status = "ok" if "ready" in states else "loading" if "loading" in states else "failed"
        processes = [
            {"pid": worker.pid, "state": worker.state, **({"error": worker.error} if worker.error else {})}
            for worker in self._workers
        ]
        return {"status": status, "waiting": self._waiting.qsize(), "restarts": self._restarts, "processes": processes}

    async def predict(self, request: Request) -> Answer:
        """Returns the answer to a request: 200 with the objects, or an error.

        The errors are 400, 413 or 415 of the image, 500 of the model, 503 if the process died, too many images wait or no process works,
        and 504 after the time limit.
        """
        if self._is_failed:
            return self._failure()
        if self._waiting.qsize() >= MAX_WAITING:
            return error_answer(503, f"{MAX_WAITING} images wait already: try again later")
        job = _Job(request, asyncio.get_running_loop().create_future())
        self._waiting.put_nowait(job)
        try:
            return await asyncio.wait_for(job.answer, self._seconds)
        except asyncio.TimeoutError:
            return error_answer(504, f"no answer within {self._seconds:g} seconds")

    async def _serve(self, worker: Worker) -> None:
        """Answers waiting requests with a process, until it cannot be started again."""
        while worker.state == "ready":
            jobs: list[_Job] = []
            with contextlib.suppress(asyncio.TimeoutError):
                jobs.append(await asyncio.wait_for(self._waiting.get(), _CHECK_EVERY))
            if not worker.is_alive():
                logger.warning("process %s died: restarting it", worker.pid)
                await self._restart(worker)
            while len(jobs) < self._batch and not self._waiting.empty():
                jobs.append(self._waiting.get_nowait())
            await self._answer(worker, jobs)
        while self._is_failed and not self._waiting.empty():
            self._waiting.get_nowait().finish(self._failure())

    async def _answer(self, worker: Worker, jobs: Sequence[_Job], *, again: bool = True) -> None:
        """Answers jobs with a process. If it dies, they are tried again, one by one, so that only the image at fault is lost."""
        jobs = [job for job in jobs if not job.answer.done()]  # without those that have timed out
        if not jobs:
            return
        if worker.state == "failed":
            for job in jobs:
                job.finish(self._failure())
            return
        loop = asyncio.get_running_loop()
        requests = [job.request for job in jobs]
        running = loop.run_in_executor(self._threads, worker.answer, requests)
        try:
            answers = await asyncio.wait_for(asyncio.shield(running), self._seconds)
        except (asyncio.TimeoutError, *_DIED) as error:
            is_late = isinstance(error, asyncio.TimeoutError)
            logger.warning("process %s %s: restarting it", worker.pid, "takes too long" if is_late else "died")
            await self._restart(worker)
            await asyncio.gather(running, return_exceptions=True)
            if again:
                for job in jobs:
                    await self._answer(worker, [job], again=False)
                return
            answers = [error_answer(503, "the process died while it predicted the image") for _ in jobs]
        for job, answer in zip(jobs, answers, strict=True):
            job.finish(answer)

    async def _restart(self, worker: Worker) -> None:
        worker.stop()
        self._restarts += 1
        worker.state = "loading"
        await asyncio.to_thread(worker.start)
        if worker.state == "failed":
            logger.error("a process cannot be started again: %s", worker.error)
