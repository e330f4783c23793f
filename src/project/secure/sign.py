"""The commands `make_key`, `sign` and `verify`: Ed25519 signatures of runs and models."""

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat

from project.errors import UserError
from project.files import atomic_write

SIGNED_FILES = (
    *("**/*.ckpt", "*.onnx", "*.pt2", "*.safetensors", "config.yaml"),
    *("environment.yaml", "metrics.csv", "split.csv", "test.json", "test_predictions.csv"),
)
"""Files of a run folder that are signed. Event files and reports are not, as they change with use."""
PREFIX = b"project signature 1\n"
"""Signed together with the manifest, so that other signatures of the same key are not valid for a model."""


def make_key(file: Path) -> None:
    """Generate an Ed25519 key pair: a private key FILE for signing, and a public key FILE.pub for verification.

    Args:
        file: The private key to write, readable only by its owner; PEM without a passphrase.

    Raises:
        UserError: If either file exists, or cannot be written.
    """
    key, public = Ed25519PrivateKey.generate(), file.with_name(f"{file.name}.pub")
    if public.exists():
        raise UserError(f"{public} already exists: choose another name")
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(pem)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except FileExistsError:
        raise UserError(f"{file} already exists: choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"private   {file}: keep it secret")
    print(f"public    {public}: distribute it for verification ({_fingerprint(key.public_key())})")


def sign(path: Path, *, key: Path) -> None:
    """Sign a run folder (writes `signature` into it) or a single file (writes FILE.sig).

    The signature of a run covers checkpoints, exported models, config.yaml, environment.yaml, metrics.csv, split.csv,
    test.json and test_predictions.csv. A run must be signed again after it is resumed or a model is exported into it.

    Args:
        path: A run folder, or a file.
        key: The private key, as written by `make_key`.

    Raises:
        UserError: If there is nothing to sign, or the key cannot be read.
    """
    private = _read_key(key, private=True)
    files = _hashes(path)
    if not files:
        raise UserError(f"nothing to sign in {path}: pass a run folder, e.g. logs/NAME/version_N, or a file")
    manifest = json.dumps({"key": _fingerprint(private.public_key()), "files": files}, indent=1).encode()
    target = signature_of(path)
    with atomic_write(target) as partial:
        partial.write_bytes(private.sign(PREFIX + manifest).hex().encode() + b"\n" + manifest)
    print(f"signed    {target} ({', '.join(files)})")


def verify(path: Path, *, key: Path) -> None:
    """Verify the signature of a run folder or a file, and report altered, missing and unsigned files.

    Args:
        path: A run folder, or a file.
        key: The public key of the signer, from a trusted source.

    Raises:
        UserError: If there is no signature by the key, or a file was altered, is missing or was not signed.
    """
    print(f"verified  {path} ({', '.join(verified_hashes(path, key))})")


def verified_hashes(path: Path, key: Path) -> dict[str, str]:
    """Verify a signature and return the signed SHA-256 hashes in hex, by path relative to the run folder."""
    public, target = _read_key(key, private=False), signature_of(path)
    try:
        signature, _, manifest = target.read_bytes().partition(b"\n")
    except OSError as error:
        raise UserError(
            f"{path} is not signed: cannot read {target} ({error.strerror}); ask its author to run `train.py sign`"
        ) from error
    try:
        raw = bytes.fromhex(signature.decode("ascii"))
        public.verify(raw, PREFIX + manifest)
        if raw.hex().encode() != signature:  # reject other spellings of the same bytes, e.g. uppercase
            raise ValueError
    except (InvalidSignature, ValueError):
        raise UserError(
            f"{target} is not a signature by {key} ({_fingerprint(public)}): {path} was signed with another key, or the"
            " signature was altered"
        ) from None
    signed: dict[str, str] = json.loads(manifest)["files"]
    actual = _hashes(path)
    problems = {
        "altered": [name for name in signed if name in actual and actual[name] != signed[name]],
        "missing": [name for name in signed if name not in actual],
        "not signed": [name for name in actual if name not in signed],
    }
    if summary := "; ".join(f"{problem}: {', '.join(names)}" for problem, names in problems.items() if names):
        raise UserError(f"{path} does not match its signature: {summary}. Do not use it; contact the signer")
    return signed


def check_signature(file: Path, key: Path) -> None:
    """Verify a model before it is loaded, by FILE.sig next to it or else by the signature of its run folder."""
    file = file.absolute()  # a relative path may lack parents; symbolic links are not resolved
    folders = [folder for folder in (file.parent, file.parent.parent) if signature_of(folder).is_file()]
    if signature_of(file).is_file() or not folders:
        verified_hashes(file, key)
    elif file.relative_to(folders[0]).as_posix() not in verified_hashes(folders[0], key):
        raise UserError(
            f"{file} is not among the signed files of {folders[0]}: if you trust it, sign it with"
            f" `train.py sign {file} --key KEY`"
        )


def signature_of(path: Path) -> Path:
    """Return the path of the signature of a run folder or a file."""
    return path / "signature" if path.is_dir() else path.with_name(f"{path.name}.sig")


def _hashes(path: Path) -> dict[str, str]:
    """Return SHA-256 hashes in hex of a file, or of the signed files of a run folder, by relative path."""
    base, files = path.parent, {path}
    if path.is_dir():
        base, files = path, {file for pattern in SIGNED_FILES for file in path.glob(pattern)}
    hashes = {}
    for file in sorted(files):
        try:
            with file.open("rb") as stream:
                hashes[file.relative_to(base).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
    return hashes


def _fingerprint(key: Ed25519PublicKey) -> str:
    """Return the fingerprint of a key, the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read_key(file: Path, private: bool) -> Any:
    kind = "private" if private else "public"
    try:
        pem = file.read_bytes()
        key = serialization.load_pem_private_key(pem, None) if private else serialization.load_pem_public_key(pem)
    except OSError as error:
        raise UserError(f"cannot read the {kind} key {file}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise UserError(f"{file} is not a {kind} Ed25519 key: generate a pair with `train.py make_key FILE`")
    return key
