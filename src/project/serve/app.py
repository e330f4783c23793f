"""HTTP application: routes, authorization and errors.

Starlette and Uvicorn with a small batcher rather than LitServe 0.2.19, which has no limit on concurrent requests,
answers 504 after a timeout, decodes images one by one in the model's process, passes them through a queue between
processes, and on SIGTERM kills that process with the requests in it.
"""

import asyncio
import hmac
import json
import time
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route

from project.interface import Target
from project.serve import metrics
from project.serve.handler import MAX_COPIES, PAGE
from project.serve.service import Service, Settings, overloaded


def authorize(request: Request, token: str | None) -> None:
    """Raise 401 if a token is set and the request does not carry it."""
    given = request.headers.get("authorization", "").encode("latin-1")
    if token is not None and not hmac.compare_digest(given, f"Bearer {token}".encode()):
        raise HTTPException(401, "token required: Authorization: Bearer TOKEN", {"www-authenticate": "Bearer"})


def wants_attribution(request: Request, target: Target) -> bool:
    """Return the query parameter `attribution`; raise 400 if it is invalid, or true for a model of values."""
    if "evidence" in request.query_params:
        raise HTTPException(400, "evidence is now attribution")
    value = request.query_params.get("attribution", "false")
    if value not in ("true", "false"):
        raise HTTPException(400, "attribution must be true or false")
    if value == "true" and target.scores_name != "probabilities":
        raise HTTPException(400, f"attribution is for models of classes or labels, and this one predicts {target.kind}")
    return value == "true"


def create_app(settings: Settings) -> Starlette:
    """Load the model, run it once, and return the application."""
    service = Service(settings)
    target = service.target
    thresholds = {
        name: getattr(target, name)
        for name in ("confidence_threshold", "set_threshold", "thresholds")
        if hasattr(target, name)
    }
    handler = service.handler
    model_info: dict[str, Any] = {"kind": target.kind, "names": target.names} | handler.info
    model_info |= thresholds | {"samples": [name for name, _ in handler.samples]}
    files = {file.name: file for folder in (PAGE, handler.page) for file in folder.iterdir() if file.is_file()}

    async def predict(request: Request) -> Response:
        start, status = time.perf_counter(), 499  # client closed the request, unless set below
        try:
            authorize(request, settings.token)
            attribution = wants_attribution(request, target)
            with service.admit(1 + MAX_COPIES if attribution else 1):
                body = await service.read_body(request)
                async with asyncio.timeout(settings.timeout):
                    result = await service.predict(request.headers.get("content-type", ""), body, attribution)
            status = 200
            return Response(json.dumps(result), media_type="application/json")
        except TimeoutError:
            status = 503
            raise overloaded() from None
        except Exception as error:
            if not isinstance(error, ClientDisconnect):
                status = getattr(error, "status_code", 500)
            raise
        finally:
            metrics.REQUESTS.labels(status).inc()
            metrics.LATENCY.observe(time.perf_counter() - start)

    async def ready(request: Request) -> Response:
        if service.in_flight >= settings.max_concurrency:
            raise overloaded()
        return JSONResponse({"status": "ready"})

    async def sample(request: Request) -> Response:
        for number, (_, response) in enumerate(handler.samples):
            if request.path_params["number"] == str(number):
                return response
        raise HTTPException(404, "no such sample")

    async def prometheus(request: Request) -> Response:
        authorize(request, settings.token)
        return Response(metrics.exposition(), media_type="text/plain; version=0.0.4")

    def file(name: str) -> Any:
        return lambda request: FileResponse(files[name])

    def fixed(path: str, content: Any) -> Route:
        return Route(path, JSONResponse(content), methods=["GET"])

    return Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            fixed("/health", {"status": "alive"}),
            Route("/ready", ready),
            fixed("/model", model_info),
            Route("/metrics", prometheus),
            Route("/samples/{number}", sample),
            fixed("/openapi.json", handler.openapi()),
            *(Route(f"/{name}", file(name)) for name in files if name.endswith((".css", ".js", ".svg"))),
            Route("/docs", file("docs.html")),
            Route("/", file("index.html")),
        ],
        exception_handlers={HTTPException: error_response, ClientDisconnect: error_response},
    )


async def error_response(request: Request, error: Exception) -> Response:
    """Return an error as JSON, or an empty response if the client disconnected."""
    if isinstance(error, HTTPException):
        return JSONResponse({"detail": error.detail}, error.status_code, error.headers)
    return Response(status_code=400)
