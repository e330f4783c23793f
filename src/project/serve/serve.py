"""The command `serve`: an HTTP server for an exported model; ONNX needs no torch."""

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
"""Headers of every response."""


def serve(
    model: Path,
    host: str = "127.0.0.1",
    port: int = 8000,
    workers: int = 1,
    samples: Path | None = None,
    token_file: Path | None = None,
    max_concurrency: int = 256,
    max_megabytes: float = 10,
    max_megapixels: float = 25,
    timeout: float = 30,
    require_signature: Path | None = None,
) -> None:
    """Serve an exported model over HTTP, with a web page; SIGTERM stops it after the requests in flight are answered.

    If the environment variable PROJECT_TOKEN or --token_file sets a token, requests must send it as `Authorization:
    Bearer TOKEN`.

    Args:
        model: A model exported by `train.py export`. ONNX models need no torch.
        host: Address to listen on; 0.0.0.0 for all network interfaces.
        port: Port to listen on; 0 for any free port.
        workers: Number of worker processes; each loads the model and uses an equal share of the processors.
        samples: A folder of images, or texts as for `predict_exported`, up to six of which the page offers as
            examples.
        token_file: A file that contains the token.
        max_concurrency: Maximum number of images or texts in flight per worker, beyond which requests get 503. A
            request with attribution counts as 50.
        max_megabytes: Maximum size of a request body.
        max_megapixels: Maximum size of an image, checked before it is decoded.
        timeout: Seconds for a request body to arrive, and again for the prediction.
        require_signature: Load the model only if this public key signed it.

    Raises:
        UserError: If the model, the samples or the token cannot be read, the model is not signed by the key, or the
            port is in use.
    """
    if min(workers, max_concurrency, max_megabytes, max_megapixels, timeout) <= 0:
        options = "--workers, --max_concurrency, --max_megabytes, --max_megapixels and --timeout"
        raise UserError(f"{options} must be greater than 0")
    if workers > 1:  # must be set before the first import of prometheus_client
        shared = tempfile.TemporaryDirectory()
        os.environ["PROMETHEUS_MULTIPROC_DIR"] = shared.name
    import uvicorn

    from project.serve.app import create_app
    from project.serve.protocol import CLIENT_TIMEOUT, Protocol, Workers
    from project.serve.service import Service, Settings

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    settings = Settings(
        model=model,
        threads=max(1, cores // workers),
        samples=samples,
        token=_token(token_file),
        max_concurrency=max_concurrency,
        max_bytes=int(max_megabytes * 1e6),
        max_pixels=int(max_megapixels * 1e6),
        timeout=timeout,
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
        timeout_graceful_shutdown=int(timeout + CLIENT_TIMEOUT),
    )
    if workers > 1:
        Service(settings)  # raises errors once, in this process rather than in each worker
    else:
        config.load()
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        sock = socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}, port {port} ({error}): try another --port") from error
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: sys.exit(0))  # uvicorn raises the signal again after it has stopped
    address = f"[{host}]" if ":" in host else host
    print(f"serving   {model}, {pluralize(workers, 'worker')}", flush=True)
    print(f"open      http://{address}:{sock.getsockname()[1]}  (press Ctrl-C to stop)", flush=True)
    Workers(config, sockets=[sock]).run() if workers > 1 else uvicorn.Server(config).run(sockets=[sock])


def _token(file: Path | None) -> str | None:
    try:
        token = os.environ.get(TOKEN) if file is None else file.read_text(encoding="ascii").strip()
    except (OSError, ValueError) as error:
        raise UserError(f"cannot read --token_file {file}: {error}") from error
    if token is not None and not (token.isascii() and token.isprintable() and token):
        raise UserError(
            f"the token in {file or TOKEN} is empty or not printable ASCII: generate one with openssl rand -hex 32"
        )
    return token
