"""A server gives the answers of the file that it was given, and refuses what it must."""

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
import torch
from PIL import Image
from starlette.testclient import TestClient

from project.cli import main
from project.datamodules.images.decode import center_crop_resize as theirs
from project.deploy.crop import center_crop_resize
from project.deploy.load import load_exported
from project.images import decode_pixels
from project.secure.sign import make_key, sign
from project.serve.app import create_app
from project.serve.service import Service, Settings
from tests.serve.conftest import NAMES
from tests.serve.running import Server, picture, serving

pytestmark = pytest.mark.slow


def encoded(image: Image.Image, format: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def form(data: bytes, name: str = "image") -> tuple[bytes, str]:
    """A form with a file, and its content type."""
    head = f'--xyz\r\nContent-Disposition: form-data; name="{name}"; filename="a.jpg"\r\n\r\n'.encode()
    return head + data + b"\r\n--xyz--\r\n", "multipart/form-data; boundary=xyz"


def test_squares_are_those_of_training_to_the_last_bit() -> None:
    random = np.random.default_rng(0)
    shapes = [(1, 1), (1, 9), (7, 3), (16, 16), (33, 32), (65, 640), (400, 299), (1201, 900)]
    shapes += [tuple(shape) for shape in random.integers(1, 300, (40, 2)).tolist()]
    for height, width in shapes:
        pixels = random.integers(0, 256, (height, width, 3)).astype(np.uint8)
        for size in (1, 16, 33, 224):
            wanted = theirs(torch.from_numpy(pixels).permute(2, 0, 1), size).numpy()
            np.testing.assert_array_equal(center_crop_resize(pixels, size), wanted)


def test_answers_are_those_of_predict_exported(server: Server, model: Path, tmp_path: Path) -> None:
    folder, turned = tmp_path / "pictures", Image.Exif()
    turned[0x0112] = 6
    folder.mkdir()
    for number in range(30):
        height, width = 11 + 7 * number % 90, 12 + 13 * number % 150
        options = {"exif": turned} if number % 3 == 0 else {}
        suffix = ("jpg", "png", "webp")[number % 3]
        picture(number, height, width, number // 3 % 3).save(folder / f"{number:02d}.{suffix}", **options)
    main(["predict_exported", str(model), str(folder), "--output", str(tmp_path / "p.csv")])
    with (tmp_path / "p.csv").open(newline="") as stream:
        rows = list(csv.reader(stream))[1:]
    exported = load_exported(model)

    def check(row: list[str]) -> None:
        data = (folder / row[0]).read_bytes()
        sent = [server.ask(body=data, kind="application/octet-stream")]
        sent += [
            server.ask(body=json.dumps({"image": base64.b64encode(data).decode()}).encode(), kind="application/json")
        ]
        body, kind = form(data)
        sent += [server.ask(body=body, kind=kind), server.ask("/predict?attribution=true", data)]
        pixels = np.ascontiguousarray(decode_pixels(data).transpose(2, 0, 1)[None])
        wanted = exported.probabilities(pixels)[0].tolist()
        for answer in sent:
            assert answer.status == 200 and list(answer.json["probabilities"]) == NAMES
            np.testing.assert_allclose(list(answer.json["probabilities"].values()), wanted, rtol=0, atol=1e-6)
            np.testing.assert_allclose(list(map(float, row[3:])), wanted, rtol=0, atol=1e-6)
            assert answer.json["class"] == row[1] and answer.json["probability"] == max(
                answer.json["probabilities"].values()
            )
            assert answer.json["confident"] is (answer.json["probability"] >= 0.6) is (row[2] == "yes")

    with ThreadPoolExecutor(4) as pool:  # so that pictures go through the model together
        list(pool.map(check, rows))
    assert len({row[1] for row in rows}) == 3
    metrics = server.ask("/metrics").body.decode()
    assert 'predict_requests_total{status="200"}' in metrics
    batches = {
        float(edge): float(count) for edge, count in re.findall(r'batch_pictures_bucket{le="(\d.*?)"} (\S+)', metrics)
    }
    assert batches[1.0] < batches[32.0], "some batch had several pictures"


def test_the_evidence_lies_where_the_model_looks(server: Server) -> None:
    found = server.ask("/predict?attribution=true", encoded(picture(3, 64, 64, 0))).json
    assert found["class"] == "red"
    assert found["attribution"]["lowest_probability"] < found["probability"]
    overlay = base64.b64decode(found["attribution"]["overlay"].removeprefix("data:image/png;base64,"))
    drawn = np.asarray(Image.open(io.BytesIO(overlay)), int)
    color = drawn.max(2) - drawn.min(2)  # gray where there is none
    assert color[:, : color.shape[1] // 2].mean() > 3 * color[:, color.shape[1] // 2 :].mean()


def test_what_is_no_picture_is_refused(server: Server) -> None:
    good = encoded(picture())
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
        answer = server.ask(body=body, kind=kind)
        assert (answer.status, list(answer.json)) == (status, ["detail"]), (kind, body[:20])
    assert server.ask("/predict?attribution=perhaps", good).status == 400
    assert (server.ask("/predict").status, server.ask("/nothing").status) == (405, 404)
    assert server.ask(f"/samples/{'9' * 5000}").status == 404
    assert server.ask(body=good).status == 200


def test_the_token_is_asked_for(model: Path, tmp_path: Path) -> None:
    good, file = encoded(picture()), tmp_path / "token"
    file.write_text("s3cret\n")
    for options, environment in ((["--token_file", str(file)], {}), ([], {"PROJECT_TOKEN": "s3cret"})):
        with serving(model, *options, **environment) as guarded:
            for given in ({}, {"authorization": "Bearer wrong"}, {"authorization": "Bearer s3cret "[:-2]}):
                answer = guarded.ask(body=good, **given)
                assert (answer.status, answer.headers["www-authenticate"]) == (401, "Bearer")
            assert guarded.ask(body=good, authorization="Bearer s3cret").status == 200
            assert (guarded.ask("/metrics").status, guarded.ask("/health").status) == (401, 200)


def test_only_a_model_that_is_signed_is_served(model: Path, tmp_path: Path) -> None:
    file = tmp_path / "model.onnx"
    file.write_bytes(model.read_bytes())
    make_key(tmp_path / "key")
    sign(file, key=tmp_path / "key")
    with serving(file, "--require_signature", str(tmp_path / "key.pub")) as running:
        assert running.ask(body=encoded(picture())).status == 200
    file.write_bytes(model.read_bytes() + b"\0")
    for workers in ("1", "2"):
        args = ["serve", str(file), "--workers", workers, "--require_signature", str(tmp_path / "key.pub")]
        done = subprocess.run([sys.executable, "-m", "project", *args], capture_output=True, text=True, timeout=60)
        assert done.returncode == 2 and "altered: model.onnx" in done.stderr.splitlines()[-1]


def test_mistakes_end_in_one_line(
    model: Path, server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").write_text("")
    for args, message in (
        (["none.onnx"], "no such file"),
        ([str(model), "--port", str(server.port)], "try another --port"),
        ([str(model), "--samples", str(tmp_path)], "has no pictures"),
        ([str(model), "--token_file", str(tmp_path / "empty")], "is empty"),
        ([str(model), "--workers", "0"], "above zero"),
    ):
        with pytest.raises(SystemExit) as stopped:
            main(["serve", *args])
        assert stopped.value.code == 2 and message in capsys.readouterr().err.splitlines()[-1]


def half(server: Server, body: bytes) -> socket.socket:
    """A request whose second half is still to come."""
    connection = socket.create_connection(("127.0.0.1", server.port), timeout=30)
    head = f"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nContent-Length: {len(body)}\r\n\r\n"
    connection.sendall(head.encode() + body[: len(body) // 2])
    return connection


def in_work(server: Server, pictures: int) -> None:
    """Wait until so many pictures are."""
    until = time.monotonic() + 20
    while f"pictures_in_work {pictures}.0" not in server.ask("/metrics").body.decode():
        assert time.monotonic() < until
        time.sleep(0.05)


def rest(connection: socket.socket, body: bytes) -> bytes:
    """Send it; the answer."""
    connection.sendall(body[len(body) // 2 :])
    return connection.recv(100_000)


def test_too_many_are_told_to_come_back(model: Path) -> None:
    good = encoded(picture())
    with serving(model, "--limit", "3") as small:
        held = [half(small, good) for _ in range(3)]
        in_work(small, 3)
        for path in ("/predict", "/predict?attribution=true"):
            answer = small.ask(path, good)
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
        assert (small.ask("/ready").status, small.ask("/health").status) == (503, 200)
        assert all(rest(connection, good).startswith(b"HTTP/1.1 200") for connection in held)
        assert small.ask("/predict?attribution=true", good).status == 200, "alone it may be larger than the limit"
        with ThreadPoolExecutor(16) as pool:
            seen = list(pool.map(lambda _: small.ask("/predict?attribution=true", good).status, range(60)))
        assert set(seen) == {200, 503}


def test_what_a_dead_worker_had_in_work_is_counted_no_longer(model: Path) -> None:
    with serving(model, "--workers", "2") as losing:
        held = [half(losing, encoded(picture())) for _ in range(4)]
        in_work(losing, 4)
        parent = losing.process.pid
        for process in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
            if "spawn_main" in Path(f"/proc/{process}/cmdline").read_text():
                os.kill(int(process), signal.SIGKILL)
        for connection in held:
            with suppress(ConnectionError):
                assert connection.recv(1) == b""
        until = time.monotonic() + 30
        while time.monotonic() < until:
            with suppress(OSError, http.client.HTTPException):
                if losing.ask().status == 405:
                    break
        in_work(losing, 0)


def test_a_fault_is_counted_as_one(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise RuntimeError("planted")

    monkeypatch.setattr(Service, "answer", fail)
    plain = Settings(model, 1, None, None, 8, 10**6, 10**6, 5, None)
    with warnings.catch_warnings(), TestClient(create_app(plain), raise_server_exceptions=False) as client:
        assert (
            client.post("/predict", content=encoded(picture()), headers={"content-type": "image/png"}).status_code
            == 500
        )
        assert 'predict_requests_total{status="500"} 1.0' in client.get("/metrics").text


def test_slow_clients_lose_their_place(model: Path) -> None:
    with serving(model, "--timeout", "1") as hasty:
        began = time.monotonic()
        answer = half(hasty, encoded(picture())).recv(1000)
        assert answer.startswith(b"HTTP/1.1 408") and 0.9 < time.monotonic() - began < 10
        silent = socket.create_connection(("127.0.0.1", hasty.port), timeout=30)
        dripping = socket.create_connection(("127.0.0.1", hasty.port), timeout=30)
        dripping.sendall(b"GET /")
        began = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - began < 20:
                dripping.sendall(b"x")
                time.sleep(0.2)
        with suppress(ConnectionResetError):
            assert silent.recv(1000) == b"", "it is closed, too"


@pytest.mark.parametrize("workers", ["1", "2"])
def test_sigterm_lets_what_was_accepted_be_answered(model: Path, workers: str) -> None:
    good = encoded(picture())
    with serving(model, "--workers", workers) as ending:
        seen = {ending.ask(body=good).status for _ in range(8)}
        assert seen == {200} and 'predict_requests_total{status="200"} 8.0' in ending.ask("/metrics").body.decode()
        held = [half(ending, good) for _ in range(4)]
        in_work(ending, 4)
        ending.process.send_signal(signal.SIGTERM)
        time.sleep(1.5)
        with pytest.raises(ConnectionError):
            ending.ask("/health")
        assert all(rest(connection, good).startswith(b"HTTP/1.1 200") for connection in held)
