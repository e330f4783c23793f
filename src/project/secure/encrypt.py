"""The commands `encrypt` and `decrypt`: authenticated encryption of files.

A file is split into chunks, each encrypted with AES-256-GCM. The nonce consists of the number of the chunk and a flag
for the last chunk, so that altered, missing, reordered or appended chunks are detected: the STREAM construction of
Hoang, Reyhanitabar, Rogaway and Vizar, Online Authenticated-Encryption and its Nonce-Reuse Misuse-Resistance, 2015.
The key of each file is derived from the user's key with HKDF-SHA256 and a random salt, so that nonces are never reused.

    MAGIC | salt (32 bytes) | chunk 0 | chunk 1 | ...    chunk: up to CHUNK bytes of ciphertext and a 16-byte tag
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
CHUNK = 1 << 20  # plaintext bytes per chunk
KEY_VARIABLE = "PROJECT_KEY"
"""Environment variable of the key; command line arguments are visible to other users and in the shell history."""


def encrypt(file: Path, out: Path, key_file: Path | None = None) -> None:
    """Encrypt a file; the original is kept.

    Args:
        file: The file to encrypt.
        out: The file to write; must not exist.
        key_file: File with the key, 64 hex digits (32 random bytes); by default the environment variable PROJECT_KEY.

    Raises:
        UserError: If the file or the key cannot be read, or the output cannot be written.
        Interrupted: On Ctrl-C or SIGTERM; no partial output is left.
    """
    salt = os.urandom(SALT)
    cipher = _cipher(_key(key_file), salt)
    with _open(file) as source, _create(out) as target:
        target.write(MAGIC + salt)
        for data, nonce in _chunks(source, CHUNK):
            target.write(cipher.encrypt(nonce, data, MAGIC))
    print(f"encrypted {out} ({out.stat().st_size / 1e6:,.1f} MB)")


def decrypt(file: Path, out: Path, key_file: Path | None = None) -> None:
    """Decrypt a file written by `encrypt`; the output appears only after all of it is authenticated.

    Args:
        file: The file to decrypt.
        out: The file to write, readable only by its owner; must not exist.
        key_file: File with the key; by default the environment variable PROJECT_KEY.

    Raises:
        UserError: If the file cannot be read, the key is wrong, or the file was altered, truncated or extended.
        Interrupted: On Ctrl-C or SIGTERM; no partial output is left.
    """
    key = _key(key_file)
    with _open(file) as source:
        header = source.read(len(MAGIC) + SALT)
        if len(header) < len(MAGIC) + SALT or not header.startswith(MAGIC):
            raise UserError(f"{file} was not written by `train.py encrypt`, or its header was altered")
        cipher, number = _cipher(key, header[len(MAGIC) :]), 0
        with _create(out) as target:
            try:
                for number, (data, nonce) in enumerate(_chunks(source, CHUNK + TAG)):  # noqa: B007 - for the message
                    target.write(cipher.decrypt(nonce, data, MAGIC))
            except InvalidTag:
                reason = "was altered, truncated or extended" if number else "was altered, or the key is wrong"
                raise UserError(f"{file} {reason} (chunk {number}): nothing was written") from None
    print(f"decrypted {out} ({out.stat().st_size / 1e6:,.1f} MB)")


def _chunks(source: IO[bytes], size: int) -> Iterator[tuple[bytes, bytes]]:
    """Yield chunks and their nonces; an empty file has one empty chunk, and only the last chunk may be shorter."""
    chunks = chain([source.read(size)], iter(lambda: source.read(size), b""), [b""])
    for number, (data, following) in enumerate(pairwise(chunks)):
        yield data, number.to_bytes(11, "big") + bytes([not following])


def _cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(algorithm=SHA256(), length=32, salt=salt, info=MAGIC).derive(key))


def _key(file: Path | None) -> bytes:
    source = str(file) if file else f"the environment variable {KEY_VARIABLE}"
    try:
        key = bytes.fromhex(file.read_text() if file else os.environ.get(KEY_VARIABLE, ""))
    except OSError as error:
        raise UserError(f"cannot read the key file: {error.strerror}: --key_file expects a file, not a key") from error
    except ValueError:
        key = b""
    if len(key) != 32:
        raise UserError(
            f"no key in {source}: expected 64 hex digits, e.g. from openssl rand -hex 32; pass --key_file FILE or set"
            f" {KEY_VARIABLE}"
        )
    return key


def _open(file: Path) -> IO[bytes]:
    try:
        return file.open("rb")
    except OSError as error:
        raise UserError(f"cannot read {file}: {error.strerror}") from error


@contextmanager
def _create(path: Path) -> Iterator[IO[bytes]]:
    """Create a file readable only by its owner, atomically; remove it if writing fails."""
    if path.exists():
        raise UserError(f"{path} already exists: choose another name")
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)
    with atomic_write(path, mode=0o600) as partial, partial.open("wb") as stream:
        yield stream


def _interrupt(number: int, frame: Any) -> NoReturn:
    raise Interrupted("interrupted: nothing was written", code=128 + number)
