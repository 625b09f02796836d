"""Processes batch what waits, and are replaced when they die, hang, or cannot start again."""

import asyncio
import json
import os
import signal

import pytest

from maskrcnn_ext.errors import InputError
from maskrcnn_ext.serving.answers import Request
from maskrcnn_ext.serving.workers import MAX_WAITING, Workers
from tests.helpers.served_models import HANGS, KILLS, Source, png


def serve(source, body, **options):
    """Runs the coroutine function with started workers, within a minute."""

    async def run():
        workers = Workers(source.load, **options)
        await asyncio.to_thread(workers.start)
        async with workers:
            return await asyncio.wait_for(body(workers), 60)

    return asyncio.run(run())


async def until(condition):
    while not condition():
        await asyncio.sleep(0.01)


def statuses(answers):
    return [status for status, _ in answers]


@pytest.mark.slow
def test_images_that_wait_share_batches(tmp_path):
    log = tmp_path / "log"

    async def body(workers):
        answers = await asyncio.gather(*(workers.predict(Request(png(20 + i))) for i in range(7)))
        health = workers.health()
        return answers, health

    answers, health = serve(Source(log=log), body, batch=4)
    assert [json.loads(body)["width"] for _, body in answers] == list(range(20, 27))
    assert sum(map(int, log.read_text().split())) == 7
    assert max(map(int, log.read_text().split())) == 4
    assert health["status"] == "ok"
    assert [process["state"] for process in health["processes"]] == ["ready"]


def test_one_image_kills_the_process_and_the_others_are_answered():
    async def body(workers):
        answers = await asyncio.gather(*(workers.predict(Request(png(width))) for width in (8, KILLS, 9, 10)))
        return answers, await workers.predict(Request(png())), workers.health()

    answers, later, health = serve(Source(), body)
    assert statuses(answers) == [200, 503, 200, 200]
    assert b"died" in answers[1][1]
    assert later[0] == 200
    assert health["restarts"] >= 1


@pytest.mark.slow
def test_a_process_that_is_killed_without_work_is_replaced():
    async def body(workers):
        os.kill(workers.health()["processes"][0]["pid"], signal.SIGKILL)
        await until(lambda: workers.health()["restarts"] == 1 and workers.health()["status"] == "ok")
        return await workers.predict(Request(png()))

    assert serve(Source(), body)[0] == 200


@pytest.mark.slow
def test_an_image_beyond_the_time_limit_costs_the_process_not_the_server():
    async def body(workers):
        late = await workers.predict(Request(png(HANGS)))
        await until(lambda: workers.health()["restarts"] == 1 and workers.health()["status"] == "ok")
        return late, await workers.predict(Request(png()))

    late, later = serve(Source(), body, seconds=2)
    assert late == (504, b'{"error": "no answer within 2 seconds"}')
    assert later[0] == 200


def test_a_process_that_cannot_start_again_is_a_state_of_health(tmp_path):
    stop = tmp_path / "stop"

    async def body(workers):
        stop.touch()
        answers = await asyncio.gather(workers.predict(Request(png(KILLS))), workers.predict(Request(png())))
        return answers, await workers.predict(Request(png())), workers.health()

    answers, later, health = serve(Source(stop), body, batch=1)
    assert {*statuses(answers), later[0]} == {503}
    assert b"no such file" in later[1]
    assert health["status"] == "failed"
    assert health["processes"][0]["error"] == "model.pth: no such file"


@pytest.mark.slow
def test_a_model_that_does_not_load_is_an_error_at_the_start(tmp_path):
    (tmp_path / "stop").touch()
    workers = Workers(Source(tmp_path / "stop").load, count=2)
    with pytest.raises(InputError, match=r"model\.pth: no such file"):
        workers.start()


@pytest.mark.slow
def test_more_images_than_may_wait_are_refused():
    async def body(workers):
        tasks = [asyncio.create_task(workers.predict(Request(png(HANGS))))]
        await until(lambda: not workers.health()["waiting"])
        tasks += [asyncio.create_task(workers.predict(Request(png()))) for _ in range(MAX_WAITING + 3)]
        done, waiting = await asyncio.wait(tasks, timeout=1)
        for task in waiting:
            task.cancel()
        return [task.result()[0] for task in done]

    # The process takes no more images than one, so three or four of the others find no place.
    refused = serve(Source(), body, batch=1)
    assert refused[:3] == [503] * 3
    assert len(refused) <= 4
