"""Models that change hands: signed, so that an altered one is refused; encrypted where they lie."""

COMMANDS: dict[str, tuple[str, ...]] = {
    "make_key": ("project.secure.sign.make_key", "security", "a key pair to sign with"),
    "sign": ("project.secure.sign.sign", "security", "sign a run or a model"),
    "verify": ("project.secure.sign.verify", "security", "see that a run or a model is as it was signed"),
    "encrypt": ("project.secure.encrypt.encrypt", "security", "encrypt a file, such as a checkpoint"),
    "decrypt": ("project.secure.encrypt.decrypt", "security", "decrypt it"),
}
CHECK = "Load a checkpoint only if this public key signed it"
OPTIONS = {"require_signature": ("project.secure.sign.check_signature", CHECK)}
