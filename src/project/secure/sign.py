"""`python -m project make_key | sign | verify`: whether a run or a model is as its maker left it. Works offline."""

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

SIGNED = (
    *("**/*.ckpt", "*.onnx", "*.pt2", "*.safetensors", "config.yaml"),
    *("environment.yaml", "metrics.csv", "split.csv", "test.json", "test_predictions.csv"),
)
"""What counts in a run's folder: what is loaded, and what its claims rest on. Event files and pages change with use."""
PURPOSE = b"project signature 1\n"
"""Signed before the manifest, so that the key's signature of something else is none of a model."""


def make_key(file: Path) -> None:
    """Make an Ed25519 key pair: FILE signs and stays secret, FILE.pub is for those who verify.

    Args:
        file: The private key, readable by its owner alone; PEM without a passphrase.

    Raises:
        UserError: either file is there already, or cannot be written.
    """
    key, public = Ed25519PrivateKey.generate(), file.with_name(f"{file.name}.pub")
    if public.exists():
        raise UserError(f"{public} is there already: a key is not replaced; choose another name")
    secret = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, serialization.NoEncryption())
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as stream:
            stream.write(secret)
        public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    except FileExistsError:
        raise UserError(f"{file} is there already: a key is not replaced; choose another name") from None
    except OSError as error:
        raise UserError(f"cannot write {error.filename}: {error.strerror}") from error
    print(f"private   {file}: keep it secret")
    print(f"public    {public}: give it to those who verify ({_name(key.public_key())})")


def sign(path: Path, *, key: Path) -> None:
    """Sign a run's folder or the file of a model; the signature lies in the folder, or beside the file as FILE.sig.

    Of a folder, these are signed: checkpoints, exported models, config.yaml, environment.yaml, metrics.csv, split.csv,
    test.json and test_predictions.csv. A run that is trained on, or exported into, is to be signed again.

    Args:
        path: The folder of a run, or a file.
        key: The private key, as `make_key` writes it.

    Raises:
        UserError: there is nothing to sign, or no such key.
    """
    private = _read_key(key, private=True)
    files = _hashes(path)
    if not files:
        raise UserError(f"nothing to sign in {path}: give the folder of a run, logs/NAME/version_N, or a file")
    manifest = json.dumps({"key": _name(private.public_key()), "files": files}, indent=1).encode()
    target = signature_of(path)
    with atomic_write(target) as partial:
        partial.write_bytes(private.sign(PURPOSE + manifest).hex().encode() + b"\n" + manifest)
    print(f"signed    {target} ({', '.join(files)})")


def verify(path: Path, *, key: Path) -> None:
    """See that a run's folder or a file is as it was signed; what is not is named.

    Args:
        path: The folder of a run, or a file.
        key: The public key of whoever must have signed it, from a source that you trust.

    Raises:
        UserError: no signature, one of another key, or a file was altered, is missing or was not signed.
    """
    print(f"verified  {path} ({', '.join(verified(path, key))})")


def verified(path: Path, key: Path) -> dict[str, str]:
    """Return what a valid signature of the key says: SHA-256 in hex by path, relative to the folder."""
    public, target = _read_key(key, private=False), signature_of(path)
    try:
        signature, _, manifest = target.read_bytes().partition(b"\n")
    except OSError as error:
        raise UserError(
            f"{path} is not signed: cannot read {target} ({error.strerror}); whoever"
            " made it signs it by `python -m project sign`"
        ) from error
    try:
        raw = bytes.fromhex(signature.decode("ascii"))
        public.verify(raw, PURPOSE + manifest)
        if raw.hex().encode() != signature:  # capitals or spaces: no bit of a signature may change
            raise ValueError
    except (InvalidSignature, ValueError):
        raise UserError(
            f"{target} is no signature of {key} ({_name(public)}): {path} was signed by another key, or the signature"
            " was altered"
        ) from None
    signed: dict[str, str] = json.loads(manifest)["files"]
    found = _hashes(path)
    problems = {
        "altered": [name for name in signed if name in found and found[name] != signed[name]],
        "missing": [name for name in signed if name not in found],
        "not signed": [name for name in found if name not in signed],
    }
    if told := "; ".join(f"{what}: {', '.join(names)}" for what, names in problems.items() if names):
        raise UserError(f"{path} is not as it was signed: {told}. Do not use it; ask whoever signed it")
    return signed


def check_signature(file: Path, key: Path) -> None:
    """See, before a model is loaded, that it is signed: by FILE.sig beside it, or else with the folder of its run."""
    file = file.absolute()  # within the folder of checkpoints a bare name has no parents; links are not followed
    folders = [folder for folder in (file.parent, file.parent.parent) if signature_of(folder).is_file()]
    if signature_of(file).is_file() or not folders:
        verified(file, key)
    elif file.relative_to(folders[0]).as_posix() not in verified(folders[0], key):
        raise UserError(
            f"{file} is not among the signed files of {folders[0]}: if it may be trusted, sign it by"
            f" `python -m project sign {file} --key KEY`"
        )


def signature_of(path: Path) -> Path:
    """Return where the signature of a folder or a file lies."""
    return path / "signature" if path.is_dir() else path.with_name(f"{path.name}.sig")


def _hashes(path: Path) -> dict[str, str]:
    """Return the SHA-256 in hex of a file, or of each file of a folder that counts, by path relative to the folder."""
    base, files = path.parent, {path}
    if path.is_dir():
        base, files = path, {file for pattern in SIGNED for file in path.glob(pattern)}
    hashes = {}
    for file in sorted(files):
        try:
            with file.open("rb") as stream:
                hashes[file.relative_to(base).as_posix()] = hashlib.file_digest(stream, "sha256").hexdigest()
        except OSError as error:
            raise UserError(f"cannot read {file}: {error.strerror}") from error
    return hashes


def _name(key: Ed25519PublicKey) -> str:
    """Return a key's name, for people to compare: the beginning of its SHA-256."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def _read_key(file: Path, private: bool) -> Any:
    kind = "private" if private else "public"
    try:
        text = file.read_bytes()
        key = serialization.load_pem_private_key(text, None) if private else serialization.load_pem_public_key(text)
    except OSError as error:
        raise UserError(f"cannot read the {kind} key {file}: {error.strerror}") from error
    except (ValueError, TypeError, UnsupportedAlgorithm):
        key = None
    if not isinstance(key, Ed25519PrivateKey if private else Ed25519PublicKey):
        raise UserError(f"{file} is no {kind} Ed25519 key: make a pair by python -m project make_key FILE")
    return key
