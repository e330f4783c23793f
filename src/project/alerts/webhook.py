"""Delivery of alerts to a webhook."""

import json
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

from project.errors import UserError

TIMEOUT = 10
"""Seconds."""


class Webhook:
    """Posts JSON to a URL.

    Args:
        url: Address that starts with http:// or https://. It may be secret, so messages show its host only.

    Raises:
        UserError: It is no such address.
    """

    def __init__(self, url: str) -> None:
        try:
            parts = urlsplit(url)
            self._url, self.host = url, parts.hostname or ""
        except ValueError:
            parts, self.host = urlsplit(""), ""
        if parts.scheme not in ("http", "https") or not self.host:
            raise UserError("--webhook must be an address that starts with http:// or https://")

    def post(self, content: dict[str, Any]) -> str:
        """Post an object; return why it was not delivered, or an empty string if it was."""
        body, headers = json.dumps(content).encode(), {"Content-Type": "application/json"}
        try:
            with urlopen(Request(self._url, body, headers), timeout=TIMEOUT):  # a status of 400 or above raises
                return ""
        except HTTPError as error:
            return f"{error.code} {error.reason}"
        except (OSError, HTTPException, ValueError) as error:
            return str(getattr(error, "reason", "") or error) or type(error).__name__
