"""Throughput and latency of `serve` at increasing concurrency, compared with a plain FastAPI server.

    pip install fastapi
    python benchmarks/serving.py --model model.onnx --images DIR [--workers 1 2] [--rounds 3] [--seconds 5]

The plain server follows typical tutorials: one process, an `async def` endpoint that decodes the uploaded image and
runs ONNX Runtime with default options, one request at a time. It decodes images like `serve`. Client and servers run in
separate processes on the same machine. The client keeps connections open, and each sends its next image, as a form, as
soon as the previous response arrives. Servers alternate in each round; results are medians over the rounds.
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
    """Return the plain FastAPI application."""
    import numpy as np
    from fastapi import FastAPI, UploadFile

    from project.deploy.load import load_exported
    from project.images import decode

    exported, app = load_exported(Path(model)), FastAPI()
    target = exported.description.target

    @app.post("/predict")
    async def predict(image: UploadFile) -> dict[str, object]:
        pixels = decode(await image.read()).pixels.transpose(2, 0, 1)[None]
        row = exported.scores(np.ascontiguousarray(pixels))[0]
        return target.to_json(row)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "alive"}

    return app


@contextmanager
def server(kind: str, model: Path, port: int) -> Iterator[None]:
    """Run the plain server, or `serve` with a number of workers."""
    command = [sys.executable, __file__, "--plain", str(model), str(port)]
    if kind != "plain":
        command = [sys.executable, "-m", "project", "serve", str(model), "--port", str(port), "--workers", kind]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while subprocess.run(["curl", "-sf", f"localhost:{port}/health"], stdout=subprocess.DEVNULL).returncode:
            if process.poll() is not None or time.monotonic() > deadline:
                raise SystemExit(f"{' '.join(command)} does not respond")
            time.sleep(0.2)
        time.sleep(3)  # for the other workers
        yield
    finally:
        process.terminate()
        process.wait()


def form(image: bytes) -> bytes:
    """Return an HTTP request with an image as a form."""
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="a.jpg"\r\nContent-Type: image/jpeg'
    body = head.encode() + b"\r\n\r\n" + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    return (
        f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: multipart/form-data; boundary={BOUNDARY}\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body


async def client(port: int, requests: Iterator[bytes], until: float, times: list[float]) -> None:
    """Send requests on one connection, and record the latency of each in seconds."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    while (start := time.perf_counter()) < until:
        writer.write(next(requests))
        head = (await reader.readuntil(b"\r\n\r\n")).lower()
        if not head.startswith(b"http/1.1 200"):
            raise SystemExit(f"the server responded with {head.decode()}")
        await reader.readexactly(int(head.partition(b"content-length: ")[2].split()[0]))
        times.append(time.perf_counter() - start)
    writer.close()


def load(port: int, images: list[bytes], concurrency: int, seconds: float) -> tuple[float, float, float]:
    """Return throughput in images/s, and the median and 99th percentile of the latency in milliseconds."""
    import uvloop

    async def all_clients() -> list[float]:
        requests, times = itertools.cycle([form(image) for image in images]), []
        until = time.perf_counter() + seconds
        await asyncio.gather(*(client(port, requests, until, times) for _ in range(concurrency)))
        return times

    times = sorted(uvloop.run(all_clients()))
    return len(times) / seconds, 1e3 * statistics.median(times), 1e3 * times[int(0.99 * len(times))]


def main() -> None:
    """Run the benchmark and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--workers", nargs="+", default=["1", "2"])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5)
    args = parser.parse_args()
    paths = sorted(find_images(args.images))
    images = [(args.images / path).read_bytes() for path in paths[:: max(1, len(paths) // 200)]]
    results: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    kinds = ["plain", *args.workers]
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        for _ in range(args.rounds):
            for kind in kinds:
                with socket.create_server(("", 0)) as free:
                    port = free.getsockname()[1]
                with server(kind, args.model, port):
                    pool.apply(load, (port, images, 4, 1.0))  # warm-up
                    for concurrency in CONCURRENCY:
                        result = pool.apply(load, (port, images, concurrency, args.seconds))
                        results.setdefault((kind, concurrency), []).append(result)
    print(f"{args.model}, {len(images)} images, {os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}")
    print(f"{'server':<12}{'clients':>10}{'images/s':>10}{'p50 ms':>10}{'p99 ms':>10}")
    for (kind, concurrency), rounds in sorted(results.items(), key=lambda item: (kinds.index(item[0][0]), item[0][1])):
        rate, p50, p99 = (statistics.median(values) for values in zip(*rounds, strict=True))
        name = kind if kind == "plain" else f"serve {kind}"
        print(f"{name:<12}{concurrency:>10}{rate:>10,.0f}{p50:>10.1f}{p99:>10.1f}")


if __name__ == "__main__":
    if sys.argv[1:2] == ["--plain"]:
        import uvicorn

        uvicorn.run(plain(sys.argv[2]), port=int(sys.argv[3]), log_level="error", access_log=False)
    else:
        main()
