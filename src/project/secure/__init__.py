"""Signing, verification and encryption of runs and models."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "make_key": ("project.secure.sign.make_key", "security", "generate a key pair for signing"),
    "sign": ("project.secure.sign.sign", "security", "sign a run or a model"),
    "verify": ("project.secure.sign.verify", "security", "verify the signature of a run or a model"),
    "encrypt": ("project.secure.encrypt.encrypt", "security", "encrypt a file, e.g. a checkpoint"),
    "decrypt": ("project.secure.encrypt.decrypt", "security", "decrypt a file"),
}
REQUIRE_SIGNATURE = "Load a checkpoint only if this public key signed it"
OPTIONS = {"require_signature": ("project.secure.sign.check_signature", REQUIRE_SIGNATURE)}
