"""The model behind the server: request limits, prediction and attribution."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from starlette.exceptions import HTTPException
from starlette.requests import Request

from project.deploy.load import load_exported
from project.errors import UserError
from project.interface import import_object
from project.output import printable
from project.runs.predictor import Scores
from project.serve import metrics
from project.serve.batcher import Batcher
from project.serve.handler import Handler, Parsed, log_odds_drop


@dataclass(frozen=True)
class Settings:
    """Arguments of `project.serve.serve`, picklable for worker processes."""

    model: Path
    threads: int
    samples: Path | None
    token: str | None
    max_concurrency: int
    max_bytes: int
    max_pixels: int
    timeout: float
    require_signature: Path | None


class Service:
    """An exported model with its request handler, batcher and concurrency limit."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        exported = load_exported(settings.model, settings.threads, settings.require_signature)
        self.target, inputs = exported.description.target, exported.description.input
        if not inputs.handler:
            raise UserError(f"serve has no handler for models of {inputs.kind}s: set `handler` of the input")
        self.handler: Handler = import_object(inputs.handler)(inputs, settings)
        self.batcher = Batcher(exported.scores, inputs.stack, metrics.BATCH_SIZE.observe)
        self.in_flight = 0
        exported.scores(inputs.graph.example)  # warm-up

    @contextmanager
    def admit(self, count: int) -> Iterator[None]:
        """Count samples as in flight, or raise 503 if this would exceed the limit."""
        if count and self.in_flight + count > max(self.settings.max_concurrency, count):
            raise overloaded()
        self.in_flight += count
        metrics.IN_FLIGHT.inc(count)
        try:
            yield
        finally:
            self.in_flight -= count
            metrics.IN_FLIGHT.dec(count)

    async def read_body(self, request: Request) -> bytes:
        """Return the body of a request; raise 413 if it is too large, 408 if it arrives too slowly."""
        max_bytes = self.settings.max_bytes
        too_large = HTTPException(413, f"the request body exceeds {max_bytes:,} bytes")
        if int(request.headers.get("content-length", 0)) > max_bytes:
            raise too_large
        parts, length = [], 0
        try:
            async with asyncio.timeout(self.settings.timeout):
                async for part in request.stream():
                    length += len(part)
                    if length > max_bytes:
                        raise too_large
                    parts.append(part)
        except TimeoutError:
            raise HTTPException(408, "the upload timed out", {"connection": "close"}) from None
        return b"".join(parts)

    async def predict(self, content_type: str, body: bytes, attribution: bool) -> dict[str, Any]:
        """Return the predictions for a request body, as specified in `openapi.yaml`."""
        parsed = await self.handler.parse(content_type, body)
        if attribution and parsed.is_list:
            raise HTTPException(400, "attribution is for one sample at a time")
        with self.admit(len(parsed.inputs) - 1):  # the first one was admitted before its body was read
            scores = await asyncio.gather(*map(self.batcher, parsed.inputs))
        results = [self.target.to_json(row) | note for row, note in zip(scores, parsed.notes, strict=True)]
        if attribution:
            results[0]["attribution"] = await self._attribute(parsed, scores[0])
        for row in scores:
            for name in self.target.predicted(row):
                metrics.PREDICTIONS.labels(printable(name)).inc()
        return {"predictions": results} if parsed.is_list else results[0]

    async def _attribute(self, parsed: Parsed, scores: Scores) -> dict[str, Any]:
        names = self.target.names
        output = max(map(names.index, self.target.predicted(scores) or names), key=scores.__getitem__)
        copies = self.handler.occlude(parsed)
        occluded = np.stack(await asyncio.gather(*map(self.batcher, copies)))
        drop = log_odds_drop(output, scores, occluded, self.target)
        lowest = float(occluded[:, output].min())
        return {"name": names[output], "lowest_probability": lowest} | await self.handler.show(parsed, drop)


def overloaded() -> HTTPException:
    """Return the error for requests beyond the concurrency limit or the timeout."""
    return HTTPException(503, "the server is busy: try again in a second", {"retry-after": "1"})
