"""`python -m project encrypt | decrypt`: files that lie on disks which others may read.

A file is cut into chunks, each sealed by AES-256-GCM with a nonce of its number and of whether it is the last one, so
that none can be altered, left out, moved or appended unseen: the STREAM construction of Hoang, Reyhanitabar, Rogaway
and Vizar, Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015. Each file has its own key,
derived from the user's by HKDF-SHA256 with a random salt, so that no nonce is ever used twice under one key.

    MAGIC | salt (32 bytes) | chunk 0 | chunk 1 | ...    a chunk: up to CHUNK bytes, encrypted, and a tag of 16
"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, pairwise
from pathlib import Path
from typing import IO, Any, NoReturn

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from project.errors import Interrupted, UserError
from project.files import atomic_write

MAGIC, SALT, TAG = b"project encrypted 1\n", 32, 16
CHUNK = 1 << 20  # bytes of a file that are sealed, and held in memory, at a time
VARIABLE = "PROJECT_KEY"
"""The environment variable that a key may come in; on a command line, other users and the shell's history see it."""


def encrypt(file: Path, out: Path, key_file: Path | None = None) -> None:
    """Encrypt a file; it stays where it is.

    Args:
        file: What to encrypt.
        out: Where to; it must not exist.
        key_file: 32 random bytes as 64 hex digits; by default the environment variable PROJECT_KEY holds them.

    Raises:
        UserError: no such file or key, or the result cannot be written.
        Interrupted: by Ctrl-C or SIGTERM; nothing is left.
    """
    salt = os.urandom(SALT)
    cipher = _cipher(_key(key_file), salt)
    with _source(file) as source, _new(out) as target:
        target.write(MAGIC + salt)
        for data, nonce in _chunks(source, CHUNK):
            target.write(cipher.encrypt(nonce, data, MAGIC))
    print(f"encrypted {out} ({out.stat().st_size / 1e6:,.1f} MB)")


def decrypt(file: Path, out: Path, key_file: Path | None = None) -> None:
    """Decrypt what `encrypt` wrote; the result gets its name only once all of it is known to be genuine.

    Args:
        file: What to decrypt.
        out: Where to, readable by its owner alone; it must not exist.
        key_file: The key that it was encrypted by; by default the environment variable PROJECT_KEY holds it.

    Raises:
        UserError: no such file, another key, or the file was altered, cut short or lengthened.
        Interrupted: by Ctrl-C or SIGTERM; nothing is left.
    """
    key = _key(key_file)
    with _source(file) as source:
        header = source.read(len(MAGIC) + SALT)
        if len(header) < len(MAGIC) + SALT or not header.startswith(MAGIC):
            raise UserError(f"{file} is no file that python -m project encrypt wrote, or its beginning was altered")
        cipher, number = _cipher(key, header[len(MAGIC) :]), 0
        with _new(out) as target:
            try:
                for number, (data, nonce) in enumerate(_chunks(source, CHUNK + TAG)):  # noqa: B007 - for the message
                    target.write(cipher.decrypt(nonce, data, MAGIC))
            except InvalidTag:
                what = "altered, cut short or lengthened" if number else "altered, or this is not its key"
                raise UserError(f"{file} was {what} (chunk {number}): nothing was written") from None
    print(f"decrypted {out} ({out.stat().st_size / 1e6:,.1f} MB)")


def _chunks(source: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield chunks and their nonces; there is one even in an empty file, and only the last may be short."""
    chunks = chain([source.read(size)], iter(lambda: source.read(size), b""), [b""])
    for number, (data, following) in enumerate(pairwise(chunks)):
        yield data, number.to_bytes(11, "big") + bytes([not following])


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=MAGIC).derive(key))


def _key(file: Path | None) -> bytes:
    where = str(file) if file else f"the environment variable {VARIABLE}"
    try:
        key = bytes.fromhex(file.read_text() if file else os.environ.get(VARIABLE, ""))
    except OSError as error:
        raise UserError(f"cannot read the key file: {error.strerror}: give a file by --key_file, not a key") from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UserError(
            f"no key in {where}: give --key_file FILE with 64 random hex digits, as from openssl rand -hex 32,"
            f" or set {VARIABLE}"
        )
    return key


def _source(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


@contextmanager
def _new(path: Path) -> Iterator[IO[bytes]]:
    """A file for its owner alone that gets its name once it is whole, and is gone if it never is."""
    if path.exists():
        raise UserError(f"{path} is there already: it is not replaced; choose another name")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with atomic_write(path, mode=0o600) as partial, partial.open("wb") as stream:
        yield stream


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted("stopped: nothing was written", code=128 + number)
