"""Servers, in processes that have no torch, and pictures for them."""

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
class Answer:
    """What a server said."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, read."""
        return json.loads(self.body)


class Server:
    """A server that runs."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port

    def ask(
        self,
        path: str = "/predict",
        body: bytes | None = None,
        kind: str = "image/png",
        timeout: float = 30,
        **headers: str,
    ) -> Answer:
        """One request on a connection of its own; a POST if it has a body."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout)
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        if body is not None:
            named = {"content-type": kind} | named
        try:
            connection.request("GET" if body is None else "POST", path, body, named)
            found = connection.getresponse()
            return Answer(found.status, {k.lower(): v for k, v in found.getheaders()}, found.read())
        finally:
            connection.close()

    def resident(self) -> float:
        """Megabytes of memory that it holds."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (kilobytes,) = re.findall(r"VmRSS:\s+(\d+)", status)
        return int(kilobytes) / 1000


@functools.cache
def without_torch(folder: Path) -> str:
    """A folder whose torch and lightning cannot be imported, before all others."""
    for name in ("torch", "lightning"):
        (folder / f"{name}.py").write_text("raise ImportError('serving needs no torch')")
    return os.pathsep.join([str(folder), str(REPOSITORY / "src")])


@contextmanager
def serving(model: Path, *options: str, **environment: str) -> Iterator[Server]:
    """A server on a free port; it must end well when it is told to."""
    process = subprocess.Popen(
        [sys.executable, "-m", "project", "serve", str(model), "--port", "0", *options],
        env={**os.environ, "PYTHONPATH": without_torch(model.parent), **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None and process.stderr is not None
        shown = process.stdout.readline() + process.stdout.readline()
        found = re.search(r"http://127.0.0.1:(\d+)", shown)
        assert found, shown + process.stderr.read()
        server = Server(process, int(found[1]))
        until = time.monotonic() + 30
        while True:
            try:
                if server.ask("/ready").status == 200:
                    break
            except OSError:
                assert time.monotonic() < until and process.poll() is None
                time.sleep(0.05)
        yield server
        if process.poll() is None:
            process.terminate()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0 and not errors, errors
    finally:
        process.kill()
        process.wait()


def picture(seed: int = 0, height: int = 40, width: int = 60, color: int | None = None) -> Image.Image:
    """Coarse noise, of one color (0 to 2 for RGB) if wanted."""
    random = np.random.default_rng(seed)
    coarse = random.integers(0, 256, (5, 5, 3)).astype(np.uint8)
    if color is not None:
        coarse[..., [c for c in range(3) if c != color]] //= 4
    return Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)
