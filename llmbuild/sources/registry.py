"""An OCI registry: https://github.com/opencontainers/distribution-spec, spoken through oras' client.

oras does the requests, and the protocols of tokens and logins.  Its own uploads read whole files into memory and cannot be
continued, its logins read docker's configuration and run the helpers that it names, and it waits up to two minutes between
attempts: none of that is used.  Credentials come from the environment, LLMBUILD_REGISTRY_USERNAME and LLMBUILD_REGISTRY_PASSWORD,
and go to the registry that LLMBUILD_REGISTRY names (host, or host:port) and to the server of tokens that it names; never in clear
text to another machine.
"""

from __future__ import annotations

import os
import re
import urllib.parse
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from llmbuild.canonical import CHUNK, Digest
from llmbuild.errors import FetchError, ToolchainError, UsageError
from llmbuild.jsontext import parse_json
from llmbuild.sources import request
from llmbuild.sources.request import TransientError, header_number
from llmbuild.urls import in_clear_text, is_loopback, same_origin, shown

MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
FILEPATH = "org.cncf.model.filepath"
"""The annotation of a layer with the path of its file (https://github.com/modelpack/model-spec)."""
MOST_MANIFEST = 4 << 20
"""The most bytes of a manifest, which registries limit too."""

_HOST = re.compile(r"(localhost|[A-Za-z0-9-]+(\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(:[0-9]{1,5})?")
_PART = r"[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PART}(/{_PART})*")
_HANDSHAKE_S, _SILENCE_S = 30.0, 300.0
_USERNAME, _PASSWORD, _REGISTRY = "LLMBUILD_REGISTRY_USERNAME", "LLMBUILD_REGISTRY_PASSWORD", "LLMBUILD_REGISTRY"


@dataclass(frozen=True, slots=True)
class Repository:
    """A repository of a registry: `host` with its port, `path` without slashes around it."""

    host: str
    path: str

    @staticmethod
    def parse(text: str) -> Repository:
        """Raises UsageError for what is none."""
        host, slash, path = text.partition("/")
        if not slash or not _HOST.fullmatch(host) or not _PATH.fullmatch(path) or len(text) > 255:
            raise UsageError(
                f"'{text}' is not a repository of a registry",
                why="it is a host and a path of lower-case letters, digits and single '.', '_', '-' and '/' between them",
                fix="write host/path, such as ghcr.io/org/name",
            )
        return Repository(host, path)

    def __str__(self) -> str:
        return f"{self.host}/{self.path}"

    @property
    def local(self) -> bool:
        """Whether it is on this machine, where plain http is right."""
        return is_loopback(urllib.parse.urlsplit(f"//{self.host}").hostname)

    @property
    def origin(self) -> str:
        return f"{'http' if self.local else 'https'}://{self.host}"


class Registry:
    """A connection to one repository."""

    def __init__(self, repository: Repository) -> None:
        """Raises ToolchainError without oras, UsageError where the variables of the environment do not go together."""
        self.repository = repository
        self._login = _credentials(repository.host)
        self._client: Any = None

    def url(self, *parts: str) -> str:
        """The URL of a manifest or blob: ("manifests", reference), ("blobs", digest), ("blobs", "uploads", "")."""
        return "/".join((self.repository.origin, "v2", self.repository.path, *parts))

    def ask(
        self,
        method: str,
        url: str,
        expected: Collection[int],
        *,
        data: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        sent: Callable[[int], None] | None = None,
    ) -> Any:
        """A response (of `requests`) with one of the expected statuses, 404 for what is not there.

        `sent` takes the number of further bytes of `data` that were sent.
        Raises TransientError for what may pass, FetchError else.
        """
        body = _Body(data, sent) if data and sent is not None else data
        response = self._send(method, url, body, dict(headers or {}))
        if response.status_code in expected:
            return response
        if response.status_code in request.TRANSIENT:
            after = header_number(response.headers.get("Retry-After"))
            raise TransientError(
                f"the registry answered {response.status_code}", None if after is None else float(after)
            )
        raise self._refusal(response)

    def _refusal(self, response: Any) -> FetchError:
        """The error of a status that nobody expected."""
        login = response.status_code in (401, 403)
        fix = f"set {_REGISTRY}, {_USERNAME} and {_PASSWORD} to those of an account that may do this" if login else None
        return FetchError(
            "the registry refuses",
            where=str(self.repository),
            why=f"{shown(response.url)} answered {response.status_code}",
            fix=fix or "check the name of the repository",
        )

    def persist(self, attempt: Any) -> Any:
        """The result of `attempt`, which is called again while it raises TransientError; then FetchError is raised."""
        return request.attempts(
            attempt,
            str(self.repository),
            "the registry cannot be reached",
            "check its name and the network, then try again",
        )

    def manifest(self, reference: str) -> bytes | None:
        """A manifest or an index by tag or digest, None where there is none; the caller verifies it.  Raises FetchError."""
        accept = {"Accept": f"{MANIFEST_TYPE}, {INDEX_TYPE}"}
        response = self.persist(lambda: self.ask("GET", self.url("manifests", reference), (200, 404), headers=accept))
        if response.status_code == 404:
            return None
        data: bytes = response.content
        return data

    def has(self, digest: Digest) -> bool:
        """Whether the repository has a blob.  Raises FetchError."""
        url = self.url("blobs", f"sha256:{digest}")
        return bool(self.persist(lambda: self.ask("HEAD", url, (200, 404))).status_code == 200)

    def credentials(self) -> Mapping[str, str]:
        """The header with which blobs can be read; there is one after the first request that needed it."""
        header: Mapping[str, str] = {} if self._client is None else _header(self._client.auth)
        return header

    def _send(self, method: str, url: str, data: bytes | _Body | None, headers: dict[str, str]) -> Any:
        import requests

        try:
            if self._client is None:
                self._client = self._opened()
            if not same_origin(url, self.repository.origin):
                # A registry may have uploads go elsewhere, and that place has no use for its credentials.
                if in_clear_text(url):
                    raise FetchError("the registry names a place that is not https", where=shown(url))
                return self._client.session.request(method, url, data=data, headers=headers)
            response = self._once(method, url, data, headers)
            if response.status_code == 401 and getattr(self._client.auth, "token", None) is not None:
                # A token that lets read does not let write, and oras would send it again.
                self._client.auth.token = None
                response = self._once(method, url, data, headers)
            return response
        except ValueError as error:
            if isinstance(error, requests.exceptions.RequestException):
                raise _passing(error) from error
            raise FetchError(
                "the registry asks for a login",
                where=str(self.repository),
                fix=f"set {_REGISTRY}, {_USERNAME} and {_PASSWORD}",
            ) from error
        except requests.exceptions.RequestException as error:
            raise _passing(error) from error

    def _once(self, method: str, url: str, data: bytes | _Body | None, headers: dict[str, str]) -> Any:
        # Beneath the decorator that waits.
        return type(self._client).do_request.__wrapped__(self._client, url, method, data=data, headers=dict(headers))

    def _opened(self) -> Any:
        """A client that logs in as the registry asks for."""
        from oras.logger import setup_logger
        from oras.provider import Registry as Client

        setup_logger(quiet=True)
        client = Client(hostname=self.repository.host, insecure=self.repository.local)
        _prepare(client.session, local=self.repository.local)
        answer = client.session.get(f"{self.repository.origin}/v2/")
        challenge = answer.headers.get("Www-Authenticate", "")
        if challenge.lower().startswith("basic"):
            from oras.auth import get_auth_backend

            client.auth = get_auth_backend("basic", client.session, self.repository.local)
            # oras takes a login of variables of its own.
            client.auth.__dict__.pop("_basic_auth", None)
            if self._login is None:
                raise ValueError("a login is needed")
        elif (realm := re.search(r'realm="([^"]*)"', challenge)) and in_clear_text(realm[1]):
            raise FetchError("the registry's server of tokens is not https", where=shown(realm[1]))
        if self._login is not None:
            client.auth.set_basic_auth(*self._login)
        return client


class _Body:
    """The bytes of a request, which `requests` takes in pieces, and takes anew after a login; they count once."""

    def __init__(self, data: bytes, sent: Callable[[int], None]) -> None:
        self._data, self._sent = data, sent
        self._most = 0

    def __len__(self) -> int:
        return len(self._data)

    def __iter__(self) -> Iterator[bytes]:
        for start in range(0, len(self._data), CHUNK):
            piece = self._data[start : start + CHUNK]
            yield piece
            more = start + len(piece) - self._most
            if more > 0:
                self._most += more
                self._sent(more)


def require_oras() -> None:
    """Raise ToolchainError where the package is missing."""
    from importlib.util import find_spec

    if find_spec("oras") is None:
        raise ToolchainError(
            "the package of registries is missing", why="oras is not installed", fix="pip install 'llmbuild[oci]'"
        )


def split_layers(data: bytes) -> list[Mapping[str, Any]]:
    """The layers of an image manifest.  Raises ValueError where the bytes are none, or are too many."""
    if len(data) > MOST_MANIFEST:
        raise ValueError(f"it has more than {MOST_MANIFEST} bytes")
    value = parse_json(data)
    layers = value.get("layers") if isinstance(value, dict) else None
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise ValueError("it is no list of layers")
    return layers


def layer_path(layer: Mapping[str, Any]) -> str | None:
    """The path of a layer's file, None where the layer has none."""
    annotations = layer.get("annotations")
    path = annotations.get(FILEPATH) if isinstance(annotations, dict) else None
    return path if isinstance(path, str) else None


def _credentials(host: str) -> tuple[str, str] | None:
    """The user and the password for a registry; None where the environment has none for it."""
    require_oras()
    name, user, password = (os.environ.get(key, "") for key in (_REGISTRY, _USERNAME, _PASSWORD))
    if bool(user) != bool(password) or bool(user) != bool(name):
        missing = [key for key, value in ((_REGISTRY, name), (_USERNAME, user), (_PASSWORD, password)) if not value]
        raise UsageError(
            f"{' and '.join(missing)} must be set too",
            why=f"{_USERNAME} and {_PASSWORD} are sent to the registry that {_REGISTRY} names, and to no other",
        )
    return (user, password) if name == host and user else None


def _header(auth: Any) -> Mapping[str, str]:
    if getattr(auth, "token", None) or ("_basic_auth" in auth.__dict__ and not hasattr(auth, "token")):
        header: Mapping[str, str] = auth.get_auth_header()
        return header
    return {}


def _prepare(session: Any, *, local: bool) -> None:
    """Let no request wait for ever, and none take a password from a netrc file."""
    import requests

    class Timed(requests.adapters.HTTPAdapter):  # type: ignore[misc]
        def send(self, *arguments: Any, **options: Any) -> Any:
            options["timeout"] = options.get("timeout") or (_HANDSHAKE_S, _SILENCE_S)
            return super().send(*arguments, **options)

    session.mount("http://", Timed())
    session.mount("https://", Timed())
    session.auth = lambda prepared: prepared
    if local:
        # A proxy would take this machine for its own.
        session.trust_env = False


def _passing(error: Exception) -> TransientError:
    return TransientError(f"the connection failed ({type(error).__name__})")
