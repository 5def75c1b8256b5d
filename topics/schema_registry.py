"""A schema registry over HTTP: the two calls of Confluent's REST protocol that a log needs.

The address is the registry's own, with the path that some serve this protocol under and a user
where one is asked for: http://USER:PASSWORD@HOST:8081/apis/ccompat/v7. Requests run in threads.
"""

import asyncio
import base64
import http.client
import json
import ssl
from typing import Any
from urllib.parse import SplitResult, quote, unquote, urlsplit

from madlog.schemas import IncompatibleSchema
from madlog.topics.errors import LogUnavailable, WrongAddress

__all__ = ("HttpSchemaRegistry",)

_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_ANSWER_BYTES_MAX = 4 << 20
_NO_SUCH_SCHEMA = 40403
_DENIED = (401, 403)
_REFUSED = (409, 422)
_SETTING = "MADLOG_SCHEMA_REGISTRY_URL"


class HttpSchemaRegistry:
    """A registry at an address; raises WrongAddress, LogUnavailable when it does not serve."""

    def __init__(self, url: str, *, timeout_s: float = 10.0) -> None:
        self._parts = _checked(url)
        self._timeout_s = timeout_s
        self._headers = {"Accept": f"{_MEDIA_TYPE}, application/json"}
        if self._parts.username is not None:
            user = f"{unquote(self._parts.username)}:{unquote(self._parts.password or '')}"
            token = base64.b64encode(user.encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        host = self._parts.netloc.rpartition("@")[2]
        # Without the user: this stands in messages.
        self.url = f"{self._parts.scheme}://{host}{self._parts.path.rstrip('/')}"

    async def register(self, subject: str, schema_text: str) -> int:
        """Return the schema's id, a new one if the subject lacks it.

        Raises IncompatibleSchema when the registry refuses it.
        """
        path = f"/subjects/{quote(subject, safe='')}/versions"
        status, answer = await self._ask("POST", path, {"schema": schema_text})
        if status in _REFUSED:
            raise IncompatibleSchema(
                f"the schema registry at {self.url} refused the schema of {subject} ({status}"
                f"{_words(answer)}): see the compatibility that is set for this subject"
            )
        number = answer.get("id")
        if status != 200 or type(number) is not int or not 0 <= number < 2**32:
            raise self._unexpected("POST", path, status, answer)
        return number

    async def schema_text(self, number: int) -> str | None:
        """Return the Avro schema of an id, None where there is none."""
        path = f"/schemas/ids/{number}"
        status, answer = await self._ask("GET", path)
        if status == 404 and answer.get("error_code") == _NO_SUCH_SCHEMA:
            return None
        text = answer.get("schema")
        if status != 200 or not isinstance(text, str):
            raise self._unexpected("GET", path, status, answer)
        return text if answer.get("schemaType", "AVRO") == "AVRO" else None

    async def _ask(
        self, method: str, path: str, body: dict[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        try:
            status, data = await asyncio.to_thread(self._request, method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise LogUnavailable(
                f"the schema registry at {self.url} cannot be reached "
                f"({str(error) or type(error).__name__}): see that it runs, or correct {_SETTING}"
            ) from error
        if status in _DENIED:
            raise LogUnavailable(
                f"the schema registry at {self.url} denied {method} {path} ({status}): "
                f"put a user that may do this into {_SETTING}, https://USER:PASSWORD@HOST"
            )
        try:
            answer = json.loads(data)
        except ValueError:
            answer = None
        return status, answer if isinstance(answer, dict) else {}

    def _request(self, method: str, path: str, body: dict[str, str] | None) -> tuple[int, bytes]:
        parts, host = self._parts, self._parts.hostname or ""
        connection = (
            http.client.HTTPSConnection(
                host, parts.port, timeout=self._timeout_s, context=ssl.create_default_context()
            )
            if parts.scheme == "https"
            else http.client.HTTPConnection(host, parts.port, timeout=self._timeout_s)
        )
        headers, data = self._headers, None
        if body is not None:
            headers, data = {**headers, "Content-Type": _MEDIA_TYPE}, json.dumps(body).encode()
        try:
            connection.request(method, parts.path.rstrip("/") + path, body=data, headers=headers)
            response = connection.getresponse()
            return response.status, response.read(_ANSWER_BYTES_MAX)
        finally:
            connection.close()

    def _unexpected(
        self, method: str, path: str, status: int, answer: dict[str, Any]
    ) -> LogUnavailable:
        return LogUnavailable(
            f"{self.url} answered {method} {path} with {status}{_words(answer)}: "
            f"see that {_SETTING} is the address of a schema registry, its path included"
        )


def _checked(url: str) -> SplitResult:
    try:
        parts = urlsplit(url)
        named = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        named = (
            named and not parts.query and not parts.fragment and url.isascii() and url.isprintable()
        )
    except ValueError:  # a port that is no number
        named = False
    if not named:
        # Without the address, which may hold a password.
        raise WrongAddress(
            f"{_SETTING} is not the address of a schema registry: write http://HOST:PORT, "
            "or https://USER:PASSWORD@HOST:PORT/PATH"
        )
    return parts


def _words(answer: dict[str, Any]) -> str:
    message = answer.get("message")
    return f": {' '.join(message.split())[:300]}" if isinstance(message, str) and message else ""
