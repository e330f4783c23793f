"""An exported model behind HTTP, and a page to try it on."""

USES = ("deploy",)
COMMANDS: dict[str, tuple[str, ...]] = {
    "serve": ("project.serve.serve.serve", "deploy", "answer over HTTP by an exported model, with a page"),
}
