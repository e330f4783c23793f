"""Server processes without torch, and images for them."""

import functools
import http.client
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from tests.conftest import REPOSITORY


@dataclass
class Response:
    """An HTTP response."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, parsed as JSON."""
        return json.loads(self.body)


class Server:
    """A running server."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(
        self,
        path: str = "/predict",
        body: bytes | None = None,
        kind: str = "image/png",
        timeout: float = 30,
        **headers: str,
    ) -> Response:
        """Send a request on a new connection; a POST if it has a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            fields = {"content-type": kind} | fields
        try:
            connection.request("GET" if body is None else "POST", path, body, fields)
            response = connection.getresponse()
            return Response(response.status, {k.lower(): v for k, v in response.getheaders()}, response.read())
        finally:
            connection.close()

    def resident(self) -> float:
        """Return the resident memory in megabytes."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", status)
        return int(kilobytes) / 1000


@functools.cache
def without_torch(folder: Path) -> str:
    """Return a PYTHONPATH on which torch and lightning cannot be imported."""
    for name in ("torch", "lightning"):
        (folder / f"{name}.py").write_text("raise ImportError('serving needs no torch')")
    return os.pathsep.join([str(folder), str(REPOSITORY / "src")])


@contextmanager
def serving(model: Path, *options: str, **environment: str) -> Iterator[Server]:
    """Run a server on a free port; it must exit with code 0 on SIGTERM."""
    process = subprocess.Popen(
        [sys.executable, "-m", "project", "serve", str(model), "--port", "0", *options],
        env={**os.environ, "PYTHONPATH": without_torch(model.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        output = process.stdout.readline() + process.stdout.readline()
        match = re.search(r"http://127.0.0.1:(\d+)", output)
        assert match, output + process.stderr.read()
        server = Server(process, int(match[1]))
        deadline = time.monotonic() + 30
        while True:
            try:
                if server.ask("/ready").status == 200:
                    break
            except OSError:
                assert time.monotonic() < deadline and process.poll() is None
                time.sleep(0.05)
        yield server
        if process.poll() is None:
            process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and not errors, errors
    finally:
        process.kill()
        process.wait()


def make_image(seed: int = 0, height: int = 40, width: int = 60, color: int | None = None) -> Image.Image:
    """Return coarse noise, optionally dominated by one color channel."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    if color is not None:
        coarse[..., [c for c in range(3) if c != color]] //= 4
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
