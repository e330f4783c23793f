"""The HTTP application: what is asked of a model, and what is refused.

Starlette and Uvicorn with a batcher of 60 lines, not LitServe 0.2.19, which stands in the way here: it has no limit on
requests at a time, answers 504 after a timeout, decodes pictures one after the other in the process of the model, to
which it hands them through a queue between processes, and on SIGTERM ends that process with what is in it.
"""

import asyncio
import functools
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from project.deploy.load import Probabilities, load_exported
from project.deploy.square import to_square
from project.images import Pixels
from project.serve import metrics
from project.serve.batches import Batcher
from project.serve.evidence import COVERED, cover, losses, overlay
from project.serve.samples import Sample, read_samples
from project.serve.upload import decode_picture, encoded_picture, is_small, limit_pixels

PAGE = Path(__file__).parent / "page"
SHORT = 16 * 1024
"""Bytes of a body that is unpacked at once; a thread takes longer to wake."""


@dataclass(frozen=True)
class Settings:
    """What `project.serve.serve` was told; plain values, so that workers get them too."""

    model: Path
    threads: int
    samples: Path | None
    token: str | None
    limit: int
    max_bytes: int
    max_pixels: int
    seconds: float
    require_signature: Path | None


class Service:
    """A model and the requests to it."""

    def __init__(self, settings: Settings) -> None:
        if settings.require_signature is not None:
            from project.secure.sign import check_signature

            check_signature(settings.model, settings.require_signature)
        limit_pixels(settings.max_pixels)
        self.settings = settings
        self.exported = load_exported(settings.model, settings.threads)
        self.about: dict[str, Any] = self.exported.metadata["data_description"]
        self.names, self.size = self.exported.class_names, int(self.about["image_size"])
        self.sure_above: float | None = self.exported.metadata.get("sure_above")
        self.samples: list[Sample] = read_samples(settings.samples) if settings.samples else []
        self.batcher = Batcher(self.exported.probabilities, metrics.BATCH.observe)
        self.decoders = ThreadPoolExecutor(max(1, settings.threads))
        self.in_work = 0
        self.exported.probabilities(np.zeros((1, 3, self.size, self.size), np.uint8))  # the first is slow

    @contextmanager
    def admitted(self, pictures: int) -> Iterator[None]:
        """Count pictures as being in work.

        Raises:
            HTTPException: 503, there are too many.
        """
        if self.in_work + pictures > max(self.settings.limit, pictures):
            raise overloaded()
        self.in_work += pictures
        metrics.IN_WORK.inc(pictures)
        try:
            yield
        finally:
            self.in_work -= pictures
            metrics.IN_WORK.dec(pictures)

    async def body(self, request: Request) -> bytes:
        """What was sent.

        Raises:
            HTTPException: 413 if it is too long, 408 if it comes too slowly.
        """
        most = self.settings.max_bytes
        too_long = HTTPException(413, f"more than {most:,} bytes")
        if int(request.headers.get("content-length", 0)) > most:
            raise too_long
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.settings.seconds):
                async for part in request.stream():
                    length += len(part)
                    if length > most:
                        raise too_long
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, "the picture took too long to arrive", {"connection": "close"}) from None
        return b"".join(parts)

    async def answer(self, content_type: str, body: bytes, evidence: bool) -> dict[str, Any]:
        """Class and probabilities of the picture in a body; see `openapi.yaml`.

        Raises:
            HTTPException: 400 or 415, it is none.
        """
        in_thread = functools.partial(asyncio.get_running_loop().run_in_executor, self.decoders)
        short = len(body) <= SHORT
        data = encoded_picture(content_type, body) if short else await in_thread(encoded_picture, content_type, body)
        pixels, square = self._prepare(data) if short and is_small(data) else await in_thread(self._prepare, data)
        row: Probabilities = await self.batcher(square)
        best = int(row.argmax())
        shares = [round(share, 6) for share in row.tolist()]  # as in predictions.csv
        found = {"class": self.names[best], "probability": shares[best]}
        if self.sure_above is not None:
            found["sure"] = float(row[best]) >= self.sure_above
        found["probabilities"] = dict(zip(self.names, shares, strict=True))
        if evidence:
            rows = await asyncio.gather(*map(self.batcher, cover(square, self.about["mean"])))
            after = np.stack(rows)
            loss = losses(best, row, after)
            found["evidence"] = {
                "lowest_probability": float(after[:, best].min()),
                "overlay": await in_thread(overlay, pixels, loss),
            }
        metrics.CLASSES.labels(self.names[best]).inc()
        return found

    def _prepare(self, data: bytes) -> tuple[Pixels, Pixels]:
        pixels = decode_picture(data)
        return pixels, to_square(pixels, self.size)


def overloaded() -> HTTPException:
    """Refuses what there is no room or no time for."""
    return HTTPException(503, "busy: try again in a second", {"retry-after": "1"})


def authorise(request: Request, token: str | None) -> None:
    """See that a request brings the token, if there is one.

    Raises:
        HTTPException: 401.
    """
    given = request.headers.get("authorization", "").encode("latin-1")
    if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise HTTPException(401, "give the token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})


def create_app(settings: Settings) -> Starlette:
    """The application, with a model that is loaded and has answered once.

    Raises:
        UserError: the model or a sample cannot be read, or is not signed as it must be.
    """
    service = Service(settings)
    samples = {str(number): sample for number, sample in enumerate(service.samples)}
    schema = yaml.safe_load((PAGE / "openapi.yaml").read_text(encoding="utf-8"))

    async def predict(request: Request) -> Response:
        began, status = time.perf_counter(), 499  # the client left
        try:
            authorise(request, settings.token)
            evidence = request.query_params.get("evidence", "false")
            if evidence not in ("true", "false"):
                raise HTTPException(400, "evidence is true or false")
            with service.admitted(1 + COVERED if evidence == "true" else 1):
                body = await service.body(request)
                async with asyncio.timeout(settings.seconds):
                    content_type = request.headers.get("content-type", "")
                    found = await service.answer(content_type, body, evidence == "true")
            status = 200
            return Response(json.dumps(found), media_type="application/json")
        except TimeoutError:
            status = 503
            raise overloaded() from None
        except HTTPException as error:
            status = error.status_code
            raise
        finally:
            metrics.REQUESTS.labels(status).inc()
            metrics.SECONDS.observe(time.perf_counter() - began)

    async def health(request: Request) -> Response:
        return JSONResponse({"status": "alive"})

    async def ready(request: Request) -> Response:
        if service.in_work >= settings.limit:
            raise overloaded()
        return JSONResponse({"status": "ready"})

    async def model(request: Request) -> Response:
        about = {"classes": service.names, "image_size": service.size, "sure_above": service.sure_above}
        return JSONResponse(about | {"samples": [sample.name for sample in service.samples]})

    async def sample(request: Request) -> Response:
        found = samples.get(request.path_params["number"])
        if found is None:
            raise HTTPException(404, "no such sample")
        return Response(found.data, media_type=found.media_type)

    async def counts(request: Request) -> Response:
        authorise(request, settings.token)
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    async def openapi(request: Request) -> Response:
        return JSONResponse(schema)

    def file(name: str) -> Any:
        return lambda request: FileResponse(PAGE / name)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        service.decoders.shutdown()
        service.batcher.thread.shutdown()

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/model", model),
            Route("/metrics", counts),
            Route("/samples/{number}", sample),
            Route("/openapi.json", openapi),
            *(Route(f"/{name}", file(name)) for name in ("page.css", "page.js", "icon.svg")),
            Route("/docs", file("docs.html")),
            Route("/", file("index.html")),
        ],
        exception_handlers={HTTPException: explain, ClientDisconnect: leave},
        lifespan=lifespan,
    )


async def explain(request: Request, error: Exception) -> Response:
    """An error as JSON."""
    assert isinstance(error, HTTPException)
    return JSONResponse({"detail": error.detail}, error.status_code, error.headers)


async def leave(request: Request, error: Exception) -> Response:
    """Nobody reads it."""
    return Response(status_code=400)
