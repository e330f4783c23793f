"""Fuzzing of a real server: 10,000 invalid requests, with valid ones in between, and conformance to OpenAPI."""

import base64
import io
import itertools
import json
import socket
import struct
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from project.deploy.load import load_exported
from project.images import decode
from tests.serve.running import Server, make_image, serving

pytestmark = pytest.mark.slow
REQUESTS, EVERY, WARM = 10_000, 100, 2_500
GROWTH = 40
"""Maximum growth of memory in megabytes over the last three quarters of the requests."""
Random = np.random.Generator


def encoded(image: Image.Image, format: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


EXIF = Image.Exif()
EXIF.update({0x0112: 6, 0x010F: "somebody", 0x9286: b"x" * 20, 0x829A: (1, 50)})
GOOD = [encoded(make_image(1), format) for format in ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF")]
GOOD += [encoded(make_image(1), format, exif=EXIF) for format in ("JPEG", "TIFF", "PNG")]


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def huge_png(random: Random) -> bytes:
    """Return a small PNG whose header declares gigabytes of pixels."""
    width, height = (int(2 ** random.uniform(13, 31)) for _ in "ab")
    head = struct.pack(
        ">IIBBBBB", width, height, int(random.choice([1, 8, 16])), int(random.choice([0, 2, 3, 6])), 0, 0, 0
    )
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(10_000))) + chunk(b"IEND", b"")
    )


def huge_others(random: Random) -> bytes:
    """Return a decompression bomb in another format."""
    big = int(random.integers(20_000, 65_535))
    jpeg = bytearray(GOOD[1])
    at = jpeg.find(b"\xff\xc0")
    jpeg[at + 5 : at + 9] = struct.pack(">HH", big, big)
    gif = bytearray(GOOD[2])
    gif[6:10] = struct.pack("<HH", big, big)
    bmp = bytearray(GOOD[3])
    bmp[18:26] = struct.pack("<ii", big, -big)
    return bytes((jpeg, gif, bmp)[random.integers(3)])


def cut(random: Random) -> bytes:
    data = GOOD[random.integers(len(GOOD))]
    return data[: random.integers(len(data))]


def flipped(random: Random) -> bytes:
    data = bytearray(GOOD[random.integers(len(GOOD))])
    for at in random.integers(0, len(data), random.integers(1, 30)):
        data[at] = random.integers(256)
    return bytes(data)


def noise(random: Random) -> bytes:
    head = (
        b"",
        b"\xff\xd8\xff",
        b"GIF89a",
        b"BM",
        b"II*\0",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"%!PS-Adobe",
        b"<svg ",
        b"PK\x03\x04",
        b"P6\n",
    )
    return head[random.integers(len(head))] + random.bytes(random.integers(0, 2000))


def anything(random: Random, depth: int = 3) -> Any:
    """Return a random JSON value."""
    kind = random.integers(8 if depth else 6)
    if kind == 6:
        return [anything(random, depth - 1) for _ in range(random.integers(4))]
    if kind == 7:
        return {str(random.choice(["image", "", "a"])): anything(random, depth - 1) for _ in range(random.integers(4))}
    text = base64.b64encode(noise(random)).decode()
    return (None, True, float(random.normal() * 10**300), "\ud800\0", text, text[: random.integers(len(text) + 1)])[
        kind
    ]


def request(body: bytes, kind: str = "image/png", path: str = "/predict", more: str = "") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n{more}\r\n"
    return head.encode("latin-1") + body


def as_json(random: Random) -> bytes:
    bodies = (
        json.dumps(anything(random)).encode(),
        json.dumps({"image": anything(random)}).encode(),
        b'{"image": ' * int(random.integers(1, 20_000)),
        random.bytes(random.integers(0, 500)),
        b'{"image": "' + base64.b64encode(cut(random)) + b'"}',
    )
    return request(bodies[random.integers(len(bodies))], "application/json")


def as_form(random: Random) -> bytes:
    disposition = (
        'form-data; name="image"; filename="a"',
        'form-data; name="b"',
        "x" * 5000,
        'form-data; name="image"',
        "",
    )
    parts = b"".join(
        b"--xyz\r\nContent-Disposition: "
        + disposition[random.integers(5)].encode()
        + b"\r\n\r\n"
        + cut(random)
        + b"\r\n"
        for _ in range(random.choice([0, 1, 2, 40]))
    )
    body = parts + (b"--xyz--\r\n", b"--xyz", b"", random.bytes(20))[random.integers(4)]
    kinds = (
        "multipart/form-data; boundary=xyz",
        "multipart/form-data; boundary=",
        "multipart/form-data",
        "multipart/form-data; boundary=" + "y" * 300,
    )
    return request(body[: random.integers(len(body) + 1)], kinds[random.choice(4, p=[0.7, 0.1, 0.1, 0.1])])


def as_image(random: Random) -> bytes:
    makers: tuple[Callable[[Random], bytes], ...] = (cut, flipped, noise, huge_png, huge_others)
    kinds = ("image/png", "application/octet-stream", "image/*", "image/jpeg; a=b", "text/html", "", "\xff")
    attribution = ("", "?attribution=true", "?attribution=%00", "?" + "attribution=1&" * 50)
    path = "/predict" + attribution[random.choice(4, p=[0.85, 0.05, 0.05, 0.05])]
    return request(makers[random.integers(5)](random), kinds[random.integers(7)], path)


def as_http(random: Random) -> bytes:
    """Return an invalid or unusual HTTP request."""
    head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"
    requests = (
        random.bytes(random.integers(1, 3000)),
        b"GET /" + b"a" * int(random.integers(10, 60_000)) + b" HTTP/1.1\r\n\r\n",
        f"{head}X: {'y' * int(random.integers(30_000, 200_000))}\r\n\r\n".encode(),
        (head + "A: b\r\n" * int(random.integers(1, 8000)) + "\r\n").encode(),
        f"{head}Content-Length: -1\r\n\r\n".encode(),
        f"{head}Content-Length: 99999999999999999999\r\n\r\n".encode(),
        f"{head}Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\nabcd".encode(),
        f"{head}Transfer-Encoding: chunked\r\n\r\nzz\r\n".encode(),
        f"{head}Transfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n\r\n".encode(),
        f"{head}Content-Length: 11000000\r\n\r\n".encode() + bytes(100_000),
        b"GET / HTTP/1.1\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: eA==\r\n\r\n",
        b"CONNECT x:1 HTTP/1.1\r\n\r\n",
        b"TRACE /predict HTTP/1.0\r\n\r\n",
        b"GET /samples/%ff%00..%2f..%2fetc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /" + b"../" * 10 + b"etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
        b"DELETE /metrics HTTP/1.1\r\nHost: x\r\n\r\n" * 20,
        request(cut(random), more="Authorization: " + "\xe9" * 50 + "\r\n"),
        request(cut(random), more="Expect: 100-continue\r\n"),
    )
    return requests[random.integers(len(requests))]


def send(port: int, number: int) -> int:
    """Send an invalid request, one in ten truncated, and return the status code, 0 if there was no response."""
    random = np.random.default_rng(number)
    makers = (as_image, as_image, as_json, as_form, as_http)
    data = makers[random.integers(5)](random)
    with (
        suppress(ConnectionError, TimeoutError),
        socket.create_connection(("127.0.0.1", port), timeout=5) as connection,
    ):
        if random.random() < 0.1:
            connection.sendall(data[: random.integers(len(data) + 1)])
            return 0
        connection.sendall(data)
        response = connection.recv(1000)
        if response.startswith(b"HTTP/1.1 100"):  # the final response may have arrived with it
            response = response.partition(b"\r\n\r\n")[2] or connection.recv(1000)
        return int(response[9:12] or 0)
    return 0


def test_ten_thousand_invalid_requests(model: Path) -> None:
    exported = load_exported(model)
    good = [encoded(make_image(number, 30 + number, 50), "PNG") for number in range(10)]
    expected = [exported.scores(np.ascontiguousarray(decode(data).pixels.transpose(2, 0, 1)[None]))[0] for data in good]
    with serving(model) as attacked:
        idle = [socket.create_connection(("127.0.0.1", attacked.port)) for _ in range(50)]
        for connection in idle[::2]:  # incomplete requests
            connection.sendall(b"POST /predict HTTP/1.1\r\nContent-Length: 1000\r\nContent-Type: image/png\r\n\r\nabc")
        seen: Counter[int] = Counter()
        resident = []
        with ThreadPoolExecutor(6) as pool:
            for first in range(0, REQUESTS, EVERY):
                seen.update(pool.map(send, itertools.repeat(attacked.port), range(first, first + EVERY)))
                index = first // EVERY % len(good)
                response = attacked.ask(body=good[index])
                assert response.status == 200
                np.testing.assert_allclose(
                    list(response.json["probabilities"].values()), expected[index], rtol=0, atol=1e-6
                )
                resident.append(attacked.resident())
        for connection in idle:
            connection.close()
        assert not {status for status in seen if status >= 500 and status != 503}, seen
        assert seen[400] > REQUESTS / 4 and {200, 404, 405, 413, 415, 431} <= {*seen}, seen
        before, after = np.median(resident[WARM // EVERY : WARM // EVERY + 10]), np.median(resident[-10:])
        assert after - before < GROWTH, f"{before:.0f} MB became {after:.0f} MB"
        print(dict(seen), f"{before:.0f} MB, {after:.0f} MB")


def test_responses_conform_to_openapi(server: Server) -> None:
    checks = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]
    schema = schemathesis.openapi.from_url(f"http://127.0.0.1:{server.port}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    assert {operation.path for operation in operations} >= {"/predict", "/model", "/ready", "/health", "/metrics"}
    for operation in operations:

        @settings(max_examples=60, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def check(case: Any) -> None:
            case.call_and_validate(checks=checks)

        check()
