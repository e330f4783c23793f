"""The HTTP application: what is asked of a model, and what is refused.

Starlette and Uvicorn with a batcher of 60 lines, not LitServe 0.2.19, which stands in the way here: it has no limit on
requests at a time, answers 504 after a timeout, decodes pictures one after the other in the process of the model, to
which it hands them through a queue between processes, and on SIGTERM ends that process with what is in it.
"""

import asyncio
import hmac
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from project.serve import metrics
from project.serve.evidence import COVERED
from project.serve.service import Service, Settings, overloaded

PAGE = Path(__file__).parent / "page"


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
        began, status = time.perf_counter(), 499  # the client left, unless it is told otherwise
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
        except ClientDisconnect:
            raise
        except Exception:
            status = 500
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
