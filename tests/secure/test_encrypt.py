"""Tests of encryption: corrupted files, wrong keys and interrupted decryption."""

import os
import random
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import pytest

from project.cli import main
from project.errors import UserError
from project.secure import encrypt as module
from project.secure.encrypt import MAGIC, SALT, TAG, decrypt, encrypt

SMALL = 64
"""Chunk size in bytes for the tests of every chunk boundary."""
HEADER = len(MAGIC) + SALT


@pytest.fixture(autouse=True)
def restored_signals() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def key(tmp_path: Path) -> Path:
    file = tmp_path / "key"
    file.write_text(secrets.token_hex(32) + "\n")
    return file


def decryption_error(content: bytes, folder: Path, key: Path) -> str:
    """Return the error message for an encrypted file with this content; no output may be left."""
    (folder / "bad").write_bytes(content)
    before = sorted(os.listdir(folder))
    with pytest.raises(UserError) as error:
        decrypt(folder / "bad", folder / "out", key)
    assert sorted(os.listdir(folder)) == before
    return str(error.value)


@pytest.mark.parametrize("size", [0, 1, SMALL - 1, SMALL, SMALL + 1, 3 * SMALL, 5 * SMALL + 7])
def test_round_trip_and_detection_of_every_corruption(
    size: int, tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHUNK", SMALL)
    plain, draw = random.Random(size).randbytes(size), random.Random(0)
    (tmp_path / "plain").write_bytes(plain)
    encrypt(tmp_path / "plain", tmp_path / "sealed", key)
    sealed = (tmp_path / "sealed").read_bytes()
    decrypt(tmp_path / "sealed", tmp_path / "back", key)
    assert (tmp_path / "back").read_bytes() == plain
    assert size < 16 or plain[:16] not in sealed

    step = SMALL + TAG
    borders = [*range(HEADER, len(sealed), step), len(sealed)]
    chunks = [sealed[start:end] for start, end in pairwise(borders)]
    for border in borders[:-1]:
        for length in (border - 1, border, border + 1):
            decryption_error(sealed[:length], tmp_path, key)
    for more in (b"x", chunks[-1], chunks[0], bytes(step)):
        decryption_error(sealed + more, tmp_path, key)
    for _ in range(100):
        flipped = bytearray(sealed)
        flipped[draw.randrange(len(sealed))] ^= 1 << draw.randrange(8)
        decryption_error(bytes(flipped), tmp_path, key)
    for at in range(len(chunks) - 1):
        swapped = [*chunks[:at], chunks[at + 1], chunks[at], *chunks[at + 2 :]]
        decryption_error(sealed[:HEADER] + b"".join(swapped), tmp_path, key)
        decryption_error(sealed[:HEADER] + b"".join(chunks[:at] + chunks[at + 1 :]), tmp_path, key)
        decryption_error(sealed[:HEADER] + b"".join(chunks[: at + 1] + chunks[at:]), tmp_path, key)


def test_a_chunk_of_another_file_is_foreign(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CHUNK", SMALL)
    sealed = []
    for name in ("one", "two"):
        (tmp_path / name).write_bytes(bytes(2 * SMALL))
        encrypt(tmp_path / name, tmp_path / f"{name}.sealed", key)
        sealed.append((tmp_path / f"{name}.sealed").read_bytes())
    assert sealed[0][HEADER:] != sealed[1][HEADER:]  # the same content never reads the same twice
    border = HEADER + SMALL + TAG
    assert "(chunk 1)" in decryption_error(sealed[0][:border] + sealed[1][border:], tmp_path, key)


def test_keys(tmp_path: Path, key: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "plain").write_bytes(b"weights")
    monkeypatch.setenv("PROJECT_KEY", key.read_text())
    main(["encrypt", str(tmp_path / "plain"), str(tmp_path / "sealed")])
    main(["decrypt", str(tmp_path / "sealed"), str(tmp_path / "back"), "--key_file", str(key)])
    assert (tmp_path / "back").read_bytes() == b"weights"
    assert (tmp_path / "back").stat().st_mode & 0o777 == 0o600
    monkeypatch.setenv("PROJECT_KEY", secrets.token_hex(32))
    with pytest.raises(SystemExit) as stopped:
        main(["decrypt", str(tmp_path / "sealed"), str(tmp_path / "other")])
    assert stopped.value.code == 2 and not (tmp_path / "other").exists()
    assert "the key is wrong" in capsys.readouterr().err.splitlines()[-1]
    for bad in ("", "abc", "not hexadecimal", key.read_text() + "00"):
        monkeypatch.setenv("PROJECT_KEY", bad)
        with pytest.raises(UserError, match="no key in the environment variable PROJECT_KEY"):
            encrypt(tmp_path / "plain", tmp_path / "other")
    typed = key.read_text().strip()
    with pytest.raises(UserError, match="--key_file expects a file, not a key") as error:
        encrypt(tmp_path / "plain", tmp_path / "other", Path(typed))
    assert typed not in str(error.value)


def test_error_messages(tmp_path: Path, key: Path) -> None:
    (tmp_path / "plain").write_bytes(b"weights")
    with pytest.raises(UserError, match="already exists"):
        encrypt(tmp_path / "plain", tmp_path / "plain", key)
    with pytest.raises(UserError, match=r"cannot read .*none: No such file"):
        encrypt(tmp_path / "none", tmp_path / "out", key)
    with pytest.raises(UserError, match=r"cannot write .*out: No such file"):
        encrypt(tmp_path / "plain", tmp_path / "none" / "out", key)
    with pytest.raises(UserError, match="was not written by `train.py encrypt`"):
        decrypt(tmp_path / "plain", tmp_path / "out", key)
    assert (tmp_path / "plain").read_bytes() == b"weights"


MEASURE = r"""
import re, sys
from pathlib import Path
from project.secure.encrypt import decrypt, encrypt
folder = Path(sys.argv[1])
def memory(what):
    return int(re.search(what + r":\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024
Path("/proc/self/clear_refs").write_text("5")  # reset the peak
before = memory("VmRSS")
encrypt(folder / "plain", folder / "sealed", folder / "key")
decrypt(folder / "sealed", folder / "back", folder / "key")
print(memory("VmHWM") - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the peak of memory can be reset only on Linux")
def test_memory_is_limited_to_a_few_chunks(tmp_path: Path, key: Path) -> None:
    content = random.Random(0).randbytes(1 << 20) * 50
    (tmp_path / "plain").write_bytes(content)
    done = subprocess.run([sys.executable, "-c", MEASURE, tmp_path], capture_output=True, text=True, check=True)
    assert (tmp_path / "back").read_bytes() == content
    print(done.stdout)
    assert float(done.stdout.splitlines()[-1]) < 16


SLOW_DECRYPTION = """
import sys, time
from pathlib import Path
from project.errors import report_errors
from project.secure import encrypt as module
chunks = module._chunks
def slow_chunks(*args):
    for number, chunk in enumerate(chunks(*args)):
        yield chunk
        if number == 20:
            print("halfway", flush=True)
            time.sleep(60)
module._chunks = slow_chunks
folder = Path(sys.argv[1])
with report_errors():
    module.decrypt(folder / "sealed", folder / "back", folder / "key")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_interrupted_decryption_leaves_no_output(how: signal.Signals, tmp_path: Path, key: Path) -> None:
    (tmp_path / "plain").write_bytes(bytes(40 << 20))
    encrypt(tmp_path / "plain", tmp_path / "sealed", key)
    before = sorted(os.listdir(tmp_path))
    command = [sys.executable, "-c", SLOW_DECRYPTION, str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "halfway\n"
    process.send_signal(how)
    _, shown = process.communicate(timeout=60)
    left = sorted(set(os.listdir(tmp_path)) - set(before))
    if how == signal.SIGKILL:  # no cleanup is possible: the partial file is hidden and readable only by its owner
        assert [name.startswith(".partial_") for name in left] == [True]
        assert (tmp_path / left[0]).stat().st_mode & 0o777 == 0o600
    else:
        assert not left and process.returncode == 128 + how and shown == "interrupted: nothing was written\n"
    decrypt(tmp_path / "sealed", tmp_path / "back", key)
    assert (tmp_path / "back").stat().st_size == 40 << 20
