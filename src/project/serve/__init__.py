"""HTTP server for exported models, with a web page."""

USES = ("deploy",)
COMMANDS: dict[str, tuple[str, ...]] = {
    "serve": ("project.serve.serve.serve", "deploy", "serve an exported model over HTTP, with a web page"),
}
