"""The HTTP application: what is asked of a model, and what is refused.

Starlette and Uvicorn with a batcher of 60 lines, not LitServe 0.2.19, which stands in the way here: it has no limit on
requests at a time, answers 504 after a timeout, decodes pictures one after the other in the process of the model, to
which it hands them through a queue between processes, and on SIGTERM ends that process with what is in it.
"""

import asyncio
import hmac
import json
import time
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from project.serve import metrics
from project.serve.occlusion import COVERED
from project.serve.service import Service, Settings, overloaded

PAGE = Path(__file__).parent / "page"


def authorize(request: Request, token: str | None) -> None:
    """Refuse a request without the token, if there is one."""
    given = request.headers.get("authorization", "").encode("latin-1")
    if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise HTTPException(401, "give the token: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})


def create_app(settings: Settings) -> Starlette:
    """Return the application, with a model that is loaded and has answered once."""
    service = Service(settings)
    about = {"classes": service.description.classes.class_names, "image_size": service.size}
    about |= {"confidence_threshold": service.confidence_threshold, "samples": [name for name, _ in service.samples]}

    async def predict(request: Request) -> Response:
        began, status = time.perf_counter(), 499  # the client left, unless it is told otherwise
        try:
            authorize(request, settings.token)
            attribution = request.query_params.get("attribution", "false")
            if attribution not in ("true", "false"):
                raise HTTPException(400, "attribution is true or false")
            with service.admitted(1 + COVERED if attribution == "true" else 1):
                body = await service.body(request)
                async with asyncio.timeout(settings.seconds):
                    found = await service.answer(request.headers.get("content-type", ""), body, attribution == "true")
            status = 200
            return Response(json.dumps(found), media_type="application/json")
        except TimeoutError:
            status = 503
            raise overloaded() from None
        except Exception as error:
            if not isinstance(error, ClientDisconnect):
                status = getattr(error, "status_code", 500)
            raise
        finally:
            metrics.REQUESTS.labels(status).inc()
            metrics.SECONDS.observe(time.perf_counter() - began)

    async def ready(request: Request) -> Response:
        if service.in_work >= settings.limit:
            raise overloaded()
        return JSONResponse({"status": "ready"})

    async def sample(request: Request) -> Response:
        for number, (_, found) in enumerate(service.samples):
            if request.path_params["number"] == str(number):
                return found
        raise HTTPException(404, "no such sample")

    async def counts(request: Request) -> Response:
        authorize(request, settings.token)
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    def file(name: str) -> Any:
        return lambda request: FileResponse(PAGE / name)

    def fixed(path: str, content: Any) -> Route:
        return Route(path, JSONResponse(content), methods=["GET"])

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            fixed("/health", {"status": "alive"}),
            Route("/ready", ready),
            fixed("/model", about),
            Route("/metrics", counts),
            Route("/samples/{number}", sample),
            fixed("/openapi.json", yaml.safe_load((PAGE / "openapi.yaml").read_text(encoding="utf-8"))),
            *(Route(f"/{name}", file(name)) for name in ("page.css", "page.js", "icon.svg")),
            Route("/docs", file("docs.html")),
            Route("/", file("index.html")),
        ],
        exception_handlers={HTTPException: explain, ClientDisconnect: explain},
    )


async def explain(request: Request, error: Exception) -> Response:
    """Return an error as JSON; to a client that left, nothing."""
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    return Response(status_code=400)
