"""Tests of the server: predictions, errors, tokens, signatures, concurrency limit and shutdown."""

import base64
import csv
import http.client
import io
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from starlette.testclient import TestClient

from project.cli import main
from project.deploy.load import load_exported
from project.images import decode
from project.secure.sign import make_key, sign
from project.serve.app import create_app
from project.serve.service import Service, Settings
from tests.serve.conftest import NAMES
from tests.serve.running import Server, make_image, serving

pytestmark = pytest.mark.slow


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def form(data: bytes, name: str = "image") -> tuple[bytes, str]:
    """Return a form with a file, and its content type."""
    head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n\r\n'.encode()
    return head + data + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"


def test_predictions_equal_those_of_predict_exported(server: Server, model: Path, tmp_path: Path) -> None:
    folder, exif = tmp_path / "images", Image.Exif()
    exif[0x0112] = 6
    folder.mkdir()
    for number in range(30):
        height, width = 11 + 7 * number % 90, 12 + 13 * number % 150
        options = {"exif": exif} if number % 3 == 0 else {}
        suffix = ("jpg", "png", "webp")[number % 3]
        make_image(number, height, width, number // 3 % 3).save(folder / f"{number:02d}.{suffix}", **options)
    main(["predict_exported", str(model), str(folder), "--output", str(tmp_path / "p.csv")])
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    exported = load_exported(model)

    def check(row: list[str]) -> None:
        data = (folder / row[0]).read_bytes()
        responses = [server.ask(body=data, kind="application/octet-stream")]
        responses += [
            server.ask(body=json.dumps({"image": base64.b64encode(data).decode()}).encode(), kind="application/json")
        ]
        body, kind = form(data)
        responses += [server.ask(body=body, kind=kind), server.ask("/predict?attribution=true", data)]
        pixels = np.ascontiguousarray(decode(data).pixels.transpose(2, 0, 1)[None])
        expected = exported.probabilities(pixels)[0].tolist()
        for response in responses:
            result = response.json
            assert response.status == 200 and list(result["probabilities"]) == NAMES
            np.testing.assert_allclose(list(result["probabilities"].values()), expected, rtol=0, atol=1e-6)
            np.testing.assert_allclose(list(map(float, row[3:])), expected, rtol=0, atol=1e-6)
            assert result["class"] == row[1] and result["probability"] == max(result["probabilities"].values())
            assert result["confident"] is (result["probability"] >= 0.6) is (row[2] == "yes")

    with ThreadPoolExecutor(4) as pool:  # concurrent requests form batches
        list(pool.map(check, rows))
    assert len({row[1] for row in rows}) == 3
    metrics = server.ask("/metrics").body.decode()
    assert 'predict_requests_total{status="200"}' in metrics
    batches = {
        float(edge): float(count) for edge, count in re.findall(r'batch_images_bucket{le="(\d.*?)"} (\S+)', metrics)
    }
    assert batches[1.0] < batches[32.0], "no batch had several images"


def test_attribution_highlights_the_half_with_larger_weights(server: Server) -> None:
    result = server.ask("/predict?attribution=true", encoded(make_image(3, 64, 64, 0))).json
    assert result["class"] == "red"
    assert result["attribution"]["lowest_probability"] < result["probability"]
    overlay = base64.b64decode(result["attribution"]["overlay"].removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(overlay)), int)
    color = pixels.max(2) - pixels.min(2)  # zero where the overlay is gray
    assert color[:, : color.shape[1] // 2].mean() > 3 * color[:, color.shape[1] // 2 :].mean()


def test_invalid_requests_are_rejected(server: Server) -> None:
    good = encoded(make_image())
    for status, kind, body in (
        (400, "image/png", b""),
        (400, "image/png", b"hello"),
        (400, "image/jpeg", good[:-50]),
        (400, "image/png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nshowpage\n"),
        (400, "application/json", b"{"),
        (400, "application/json", b"[" * 100_000),
        (400, "application/json", b'{"image": 3}'),
        (400, "application/json", b'{"image": "*"}'),
        (400, *reversed(form(good, "other"))),
        (400, "multipart/form-data", b"no boundary"),
        (400, "image/png", encoded(Image.new("L", (6000, 6000)))),
        (400, "image/jpeg", encoded(Image.new("RGB", (5100, 5000)), "JPEG")),
        (415, "text/plain", good),
        (413, "image/png", bytes(10_000_001)),
    ):
        response = server.ask(body=body, kind=kind)
        assert (response.status, list(response.json)) == (status, ["detail"]), (kind, body[:20])
    assert server.ask("/predict?attribution=perhaps", good).status == 400
    for value in ("true", "false"):
        response = server.ask(f"/predict?evidence={value}", good)
        assert (response.status, response.json["detail"]) == (400, "evidence is now attribution")
    assert (server.ask("/predict").status, server.ask("/nothing").status) == (405, 404)
    assert server.ask(f"/samples/{'9' * 5000}").status == 404
    assert server.ask(body=good).status == 200


def test_the_token_is_required(model: Path, tmp_path: Path) -> None:
    good, file = encoded(make_image()), tmp_path / "token"
    file.write_text("s3cret\n")
    for options, environment in ((["--token_file", str(file)], {}), ([], {"PROJECT_TOKEN": "s3cret"})):
        with serving(model, *options, **environment) as guarded:
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer s3cret "[:-2]}):
                response = guarded.ask(body=good, **given)
                assert (response.status, response.headers["www-authenticate"]) == (401, "Bearer")
            assert guarded.ask(body=good, authorization="Bearer s3cret").status == 200
            assert (guarded.ask("/metrics").status, guarded.ask("/health").status) == (401, 200)


def test_only_a_signed_model_is_served(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(model.read_bytes())
    make_key(tmp_path / "key")
    sign(file, key=tmp_path / "key")
    with serving(file, "--require_signature", str(tmp_path / "key.pub")) as running:
        assert running.ask(body=encoded(make_image())).status == 200
    file.write_bytes(model.read_bytes() + b"\0")
    for workers in ("1", "2"):
        args = ["serve", str(file), "--workers", workers, "--require_signature", str(tmp_path / "key.pub")]
        done = subprocess.run([sys.executable, "-m", "project", *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "altered: model.onnx" in done.stderr.splitlines()[-1]


def test_error_messages(model: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").write_text("")
    for args, message in (
        (["none.onnx"], "no such file"),
        ([str(model), "--port", str(server.port)], "try another --port"),
        ([str(model), "--samples", str(tmp_path)], "has no images that browsers can display"),
        ([str(model), "--token_file", str(tmp_path / "empty")], "is empty"),
        ([str(model), "--workers", "0"], "must be greater than 0"),
        ([str(model), "--limit", "3"], "unknown option --limit; did you mean --max_concurrency?"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["serve", *args])
        assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def half(server: Server, body: bytes) -> socket.socket:
    """Send the first half of a request."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def wait_for_in_flight(server: Server, images: int) -> None:
    """Wait until this number of images is in flight."""
    deadline = time.monotonic() + 20
    while f"images_in_flight {images}.0" not in server.ask("/metrics").body.decode():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def rest(connection: socket.socket, body: bytes) -> bytes:
    """Send the second half of a request, and return the response."""
    connection.sendall(body[len(body) // 2 :])
    return connection.recv(100_000)


def test_requests_beyond_the_limit_get_503(model: Path) -> None:
    good = encoded(make_image())
    with serving(model, "--max_concurrency", "3") as small:
        held = [half(small, good) for _ in range(3)]
        wait_for_in_flight(small, 3)
        for path in ("/predict", "/predict?attribution=true"):
            response = small.ask(path, good)
            assert (response.status, response.headers["retry-after"]) == (503, "1")
        assert (small.ask("/ready").status, small.ask("/health").status) == (503, 200)
        assert all(rest(connection, good).startswith(b"HTTP/1.1 200") for connection in held)
        assert small.ask("/predict?attribution=true", good).status == 200, "a single request may exceed the limit"
        with ThreadPoolExecutor(16) as pool:
            seen = list(pool.map(lambda _: small.ask("/predict?attribution=true", good).status, range(60)))
        assert set(seen) == {200, 503}


def test_images_of_a_dead_worker_are_no_longer_in_flight(model: Path) -> None:
    with serving(model, "--workers", "2") as losing:
        held = [half(losing, encoded(make_image())) for _ in range(4)]
        wait_for_in_flight(losing, 4)
        parent = losing.process.pid
        for process in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if "spawn_main" in Path(f"/proc/{process}/cmdline").read_text():
                os.kill(int(process), signal.SIGKILL)
        for connection in held:
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            with suppress(OSError, http.client.HTTPException):
                if losing.ask().status == 405:
                    break
        wait_for_in_flight(losing, 0)


def test_an_internal_error_is_counted(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Service, "predict", fail)
    options = Settings(model, 1, None, None, 8, 10**6, 10**6, 5, None)
    with warnings.catch_warnings(), TestClient(create_app(options), raise_server_exceptions=False) as client:
        assert (
            client.post("/predict", content=encoded(make_image()), headers={"content-type": "image/png"}).status_code
            == 500
        )
        assert 'predict_requests_total{status="500"} 1.0' in client.get("/metrics").text


def test_slow_clients_are_disconnected(model: Path) -> None:
    with serving(model, "--timeout", "1") as hasty:
        response = half(hasty, encoded(make_image())).recv(1000)
        assert response.startswith(b"HTTP/1.1 408")
        silent = socket.create_connection(("127.0.0.1", hasty.port), timeout=30)
        dripping = socket.create_connection(("127.0.0.1", hasty.port), timeout=30)
        dripping.sendall(b"GET /")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 20:
                dripping.sendall(b"x")
                time.sleep(0.2)
        with suppress(ConnectionResetError):
            assert silent.recv(1000) == b"", "the connection is closed"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_completes_accepted_requests(model: Path, workers: str) -> None:
    good = encoded(make_image())
    with serving(model, "--workers", workers) as ending:
        seen = {ending.ask(body=good).status for _ in range(8)}
        assert seen == {200} and 'predict_requests_total{status="200"} 8.0' in ending.ask("/metrics").body.decode()
        held = [half(ending, good) for _ in range(4)]
        wait_for_in_flight(ending, 4)
        ending.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        with pytest.raises(ConnectionError):
            ending.ask("/health")
        assert all(rest(connection, good).startswith(b"HTTP/1.1 200") for connection in held)
