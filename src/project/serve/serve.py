"""The tool `serve`: an exported model behind HTTP; with one in ONNX, without torch."""

import functools
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from project.errors import UserError
from project.output import pluralize

TOKEN = "PROJECT_TOKEN"
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:;"
    " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}
"""Sent with every answer."""


def serve(
    model: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    samples: Path | None = None,
    token_file: Path | None = None,
    limit: int = 256,
    max_megabytes: float = 10,
    max_megapixels: float = 25,
    timeout: float = 30,
    require_signature: Path | None = None,
) -> None:
    """Answer over HTTP what is in a picture, and show a page to try it on; SIGTERM ends it once all are answered.

    The environment variable PROJECT_TOKEN, or --token_file, holds what requests must bring as `Authorization: Bearer`.

    Args:
        model: What `train.py export` wrote. One in ONNX needs no torch.
        host: The address to listen on; 0.0.0.0 for all of this machine.
        port: The port to listen on; 0 for one that is free.
        workers: Processes that answer, each with the model and its share of the processors.
        samples: A folder of pictures, a few of which the page offers to those who have none at hand.
        token_file: A file with the token.
        limit: Pictures in work at a time, in each worker; beyond, requests are answered 503. One with a heat map counts
            as 50.
        max_megabytes: The longest body that is read.
        max_megapixels: The largest picture that is decoded.
        timeout: Seconds that a picture may take to arrive, and again to be answered.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: the model, a sample or the token cannot be read, the model is not signed so, or the port is taken.
    """
    if min(workers, limit, max_megabytes, max_megapixels, timeout) <= 0:
        raise UserError("--workers, --limit, --max_megabytes, --max_megapixels and --timeout are above zero")
    if workers > 1:  # before the first import of prometheus_client
        shared = tempfile.TemporaryDirectory()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared.name
    import uvicorn

    from project.serve.app import create_app
    from project.serve.protocol import PATIENCE, Protocol, Workers
    from project.serve.service import Service, Settings

    settings = Settings(
        model=model,
        threads=max(1, len(os.sched_getaffinity(0)) // workers),
        samples=samples,
        token=_token(token_file),
        limit=limit,
        max_bytes=int(max_megabytes * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        seconds=timeout,
        require_signature=require_signature,
    )
    config = uvicorn.Config(
        *(functools.partial(create_app, settings), host, port),
        factory=True,
        http=Protocol,
        ws="none",
        workers=workers,
        access_log=False,
        log_level="error",
        headers=list(HEADERS.items()),
        server_header=False,
        timeout_graceful_shutdown=int(timeout + PATIENCE),
    )
    if workers > 1:
        Service(settings)  # a mistake is told once, not by each worker
    else:
        config.load()
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error}): try another --port") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # what uvicorn ends with, once all are answered
    address = f"[{host}]" if ":" in host else host
    print(f"serving   {model}, {pluralize(workers, 'worker')}", flush=True)
    print(f"open      http://{address}:{sock.getsockname()[1]}  (Ctrl-C stops it)", flush=True)
    Workers(config, sockets=[sock]).run() if workers > 1 else uvicorn.Server(config).run(sockets=[sock])


def _token(file: Path | None) -> str | None:
    try:
        token = os.environ.get(TOKEN) if file is None else file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --token_file {file}: {error}") from error
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise UserError(
            f"the token in {file or TOKEN} is empty, or not printable ASCII: openssl rand -hex 32 makes one"
        )
    return token
