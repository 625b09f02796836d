"""The web application: a page, predictions, health. It reads uploads within limits and decodes nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from maskrcnn_ext.common.extras import require
from maskrcnn_ext.serving.answers import MASKS, Request, error_answer
from maskrcnn_ext.serving.workers import Workers

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.exceptions import HTTPException
    from starlette.requests import Request as WebRequest
    from starlette.responses import Response

# Python refuses to read the longest numbers.
_DIGITS = 18
_PAGE = Path(__file__).with_name("page.html")
# The page loads nothing, and sends images to its own server only.
_PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


def build_app(workers: Workers, *, max_bytes: int = 32 * 2**20, seconds: float = 30) -> Starlette:
    """Returns the application.

    ``GET /`` is a page to drop an image on. ``POST /predict`` takes the bytes of an image file as its body, and ``threshold`` (0.5) and
    ``masks`` (rle, polygons or none) in its query; it returns ``width``, ``height`` and ``objects``, each with ``class``,
    ``category_id``, ``score``, ``bbox`` [x, y, width, height], ``segmentation`` (COCO RLE, or polygons) and, if the model predicts them,
    ``mask_score`` and ``keypoints``. An error is ``{"error": message}``. ``GET /health`` is 200 if a process is ready, else 503;
    ``GET /info`` has the model's name, classes and limits.

    Args:
        workers: started processes; they end with the application.
        max_bytes: of an upload.
        seconds: longest time of an upload.

    Raises:
        InputError: starlette is not installed.

    Example::

        uvicorn.run(build_app(workers), host="127.0.0.1", port=8000)
    """
    applications, exceptions, responses, routing, requests = (
        require(f"starlette.{name}", extra="serve", purpose="serving")
        for name in ("applications", "exceptions", "responses", "routing", "requests")
    )

    def reply(status: int, body: bytes) -> Response:
        response: Response = responses.Response(body, status, media_type="application/json")
        return response

    async def refuse(request: WebRequest, error: HTTPException) -> Response:
        asked = f"{request.method:.20} {request.url.path:.100}"
        known = "GET /, GET /health, GET /info and POST /predict"
        response = reply(*error_answer(error.status_code, f"{asked}: {error.detail.lower()}; there are {known}"))
        response.headers.update(error.headers or {})
        return response

    async def page(_: WebRequest) -> Response:
        response: Response = responses.FileResponse(_PAGE, headers=_PAGE_HEADERS)
        return response

    async def health(_: WebRequest) -> Response:
        found = workers.health()
        response: Response = responses.JSONResponse(found, 200 if found["status"] == "ok" else 503)
        return response

    async def info(_: WebRequest) -> Response:
        limits = {"bytes": max_bytes, "seconds": seconds, "pixels": workers.max_pixels}
        response: Response = responses.JSONResponse({**workers.info, "limits": limits})
        return response

    async def predict(request: WebRequest) -> Response:
        settings = _settings(request)
        if isinstance(settings, str):
            return reply(*error_answer(400, settings))
        if request.headers.get("content-type", "").startswith("multipart/"):
            return reply(*error_answer(415, "send the file itself, such as curl --data-binary @image.jpg, not a form"))
        try:
            content = await asyncio.wait_for(_read(request, max_bytes), seconds)
        except asyncio.TimeoutError:
            return reply(*error_answer(408, f"the upload took longer than {seconds:g} seconds"))
        except requests.ClientDisconnect:  # no client reads this
            return reply(*error_answer(400, "the upload was interrupted"))
        if content is None:
            return reply(*error_answer(413, f"the upload has more than {max_bytes} bytes"))
        return reply(*await workers.predict(Request(content, **settings)))

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with workers:
            yield

    app: Starlette = applications.Starlette(
        routes=[
            routing.Route("/", page),
            routing.Route("/health", health),
            routing.Route("/info", info),
            routing.Route("/predict", predict, methods=["POST"]),
        ],
        lifespan=lifespan,
        exception_handlers={exceptions.HTTPException: refuse},
    )
    return app


def _settings(request: WebRequest) -> dict[str, Any] | str:
    """Returns the settings in a query, or an error message."""
    query = dict(request.query_params)
    unknown = sorted(query.keys() - {"threshold", "masks"})
    if unknown:
        return f"{unknown[0]}: no such setting; there are threshold and masks"
    masks = query.get("masks", "rle")
    if masks not in MASKS:
        return f"masks={masks}: expected {', '.join(MASKS)}"
    try:
        threshold = float(query.get("threshold", 0.5))
    except ValueError:
        threshold = -1.0
    if not 0 <= threshold <= 1:
        return f"threshold={query['threshold']}: expected a number from 0 to 1"
    return {"threshold": threshold, "masks": masks}


async def _read(request: WebRequest, max_bytes: int) -> bytes | None:
    """Returns the body of a request; None as soon as it has more bytes than are allowed."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and (len(announced) > _DIGITS or int(announced) > max_bytes):
        return None
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > max_bytes:
            return None
    return bytes(content)
