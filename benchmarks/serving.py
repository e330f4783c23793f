"""How many pictures a second a server answers, and how soon, at rising concurrency: `serve` against plain FastAPI.

    pip install fastapi
    python benchmarks/serving.py --model model.onnx --images DIR [--workers 1 2] [--rounds 3] [--seconds 5]

The plain server is what a tutorial shows: one process, an `async def` that decodes the uploaded picture and asks ONNX
Runtime at its own settings, one request after the other; decoding is that of `serve`. Each server is a process of its
own, and so is the client: connections that are kept open and send a picture as soon as they have the answer to the last
one, each request a form, as browsers and libraries send them. Servers take turns, round by round; figures are medians
over the rounds. Client and server share the machine.
"""

import argparse
import asyncio
import itertools
import multiprocessing
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from project.images import find_images

CONCURRENCY = (1, 4, 16, 64)
BOUNDARY = "b0undary"


def plain(model: str) -> object:
    """The plain server."""
    import numpy as np
    from fastapi import FastAPI, UploadFile

    from project.deploy.load import load_exported
    from project.images import decode_pixels

    exported, app = load_exported(Path(model)), FastAPI()
    target = exported.description.target

    @app.post("/predict")
    async def predict(image: UploadFile) -> dict[str, object]:
        pixels = decode_pixels(await image.read()).transpose(2, 0, 1)[None]
        row = exported.probabilities(np.ascontiguousarray(pixels))[0]
        return target.answer(row)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    return app


@contextmanager
def server(kind: str, model: Path, port: int) -> Iterator[None]:
    """Start a server, `plain` or a number of workers, and stop it."""
    command = [sys.executable, __file__, "--plain", str(model), str(port)]
    if kind != "plain":
        command = [sys.executable, "-m", "project", "serve", str(model), "--port", str(port), "--workers", kind]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while subprocess.run(["curl", "-sf", f"localhost:{port}/health"], stdout=subprocess.DEVNULL).returncode:
            if process.poll() is not None or time.monotonic() > until:
                raise SystemExit(f"{' '.join(command)} does not answer")
            time.sleep(0.2)
        time.sleep(3)  # the other workers
        yield
    finally:
        process.terminate()
        process.wait()


def form(image: bytes) -> bytes:
    """A request."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    body = head.encode() + b"\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def client(port: int, requests: Iterator[bytes], until: float, times: list[float]) -> None:
    """One connection; notes the seconds of each answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (began := time.perf_counter()) < until:
        writer.write(next(requests))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"the server answered {head.decode()}")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        times.append(time.perf_counter() - began)
    writer.close()


def load(port: int, images: list[bytes], concurrency: int, seconds: float) -> tuple[float, float, float]:
    """Answers a second, and the median and 99th percentile of their milliseconds."""
    import uvloop

    async def all_clients() -> list[float]:
        requests, times = itertools.cycle([form(image) for image in images]), []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(port, requests, until, times) for _ in range(concurrency)))
        return times

    times = sorted(uvloop.run(all_clients()))
    return len(times) / seconds, 1e3 * statistics.median(times), 1e3 * times[int(0.99 * len(times))]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--workers", nargs="+", default=["1", "2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    paths = sorted(find_images(args.images))
    images = [(args.images / path).read_bytes() for path in paths[:: max(1, len(paths) // 200)]]
    found: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    kinds = ["plain", *args.workers]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for _ in range(args.rounds):
            for kind in kinds:
                with socket.create_server(("", 0)) as free:
                    port = free.getsockname()[1]
                with server(kind, args.model, port):
                    pool.apply(load, (port, images, 4, 1.0))  # warms it up
                    for concurrency in CONCURRENCY:
                        result = pool.apply(load, (port, images, concurrency, args.seconds))
                        found.setdefault((kind, concurrency), []).append(result)
    print(f"{args.model}, {len(images)} images, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'server':<12}{'at a time':>10}{'images/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for (kind, concurrency), results in sorted(found.items(), key=lambda item: (kinds.index(item[0][0]), item[0][1])):
        rate, middle, slow = (statistics.median(values) for values in zip(*results, strict=True))
        name = kind if kind == "plain" else f"serve {kind}"
        print(f"{name:<12}{concurrency:>10}{rate:>10,.0f}{middle:>10.1f}{slow:>10.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        import uvicorn

        uvicorn.run(plain(sys.argv[2]), port=int(sys.argv[3]), log_level="error", access_log=False)
    else:
        main()
