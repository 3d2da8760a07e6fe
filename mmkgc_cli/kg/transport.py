"""HTTP requests that end by a deadline, and the reasons for which they fail, as one line.

Imported on the first download, since requests takes long to import.
"""

from __future__ import annotations

import contextlib
import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urljoin, urlsplit

import requests
import urllib3

from mmkgc_cli import __version__
from mmkgc_cli.text import printable

# It logs malformed headers as they are, with a traceback.
logging.getLogger("urllib3").setLevel(logging.ERROR)

_CHUNK = 1 << 16
# The headers of a response, after all redirects, may take this many timeouts.
_HEADER_TIMEOUTS = 4
_REDIRECTS = (301, 302, 303, 307, 308)
_RETRY = (408, 425, 429, 500, 502, 503, 504)


class Failed(Exception):
    """One attempt failed; `retry` says whether another one at the same address may succeed."""

    def __init__(self, reason: str, *, retry: bool, mismatch: bool = False) -> None:
        super().__init__(reason)
        self.retry = retry
        self.mismatch = mismatch  # the downloaded file has another checksum


class _Session(requests.Session):
    """A session that refuses redirects to malformed or unencrypted addresses."""

    def get_redirect_target(self, resp: requests.Response) -> str | None:
        try:
            target = super().get_redirect_target(resp)
            if target is None:
                return None
            if not target.isprintable():
                raise Failed(
                    "the server redirects to an address with control characters", retry=False
                )
            if (urlsplit(resp.url).scheme, urlsplit(urljoin(resp.url, target)).scheme) == (
                "https",
                "http",
            ):
                raise Failed("the server redirects from https to http", retry=False)
        except (Failed, ValueError):
            resp.close()
            raise
        return target


@contextlib.contextmanager
def opened(
    url: str, headers: Mapping[str, str], timeout: float, deadline: float
) -> Iterator[requests.Response]:
    """Sends a request and yields the response with status 200, 206 or 416, without its content.

    Args:
        url: an http or https address.
        headers: headers of the request.
        timeout: seconds without any byte after which the request fails. The headers of the
            response must be complete within four times as many.
        deadline: time of `time.monotonic` at which the headers must be complete.

    Raises:
        Failed: with the reason, also when reading the content in the block fails.
    """
    # With compressed transfers, ranges and sizes would not refer to bytes of the file.
    headers = {"Accept-Encoding": "identity", "User-Agent": f"mmkgc/{__version__}", **headers}
    with (
        _readable_errors(timeout),
        _Session() as session,
        _get(session, url, headers, timeout, deadline) as response,
    ):
        code = response.status_code
        if code in _REDIRECTS:
            raise Failed(f"{code}, a redirect without an address", retry=False)
        if code not in (200, 206, 416):
            raise Failed(server_text(f"{code} {response.reason}"), retry=code in _RETRY)
        yield response


def _get(
    session: requests.Session, url: str, headers: dict[str, str], timeout: float, deadline: float
) -> requests.Response:
    """Waits for the headers in another thread, since timeouts of a socket apply to single reads.

    A thread whose headers arrive too late closes the response; it does not keep the process alive.
    """
    lock = threading.Lock()
    result: list[requests.Response | BaseException] = []
    late = False

    def send() -> None:
        answer: requests.Response | BaseException
        try:
            answer = session.get(url, headers=headers, stream=True, timeout=timeout)
        except BaseException as error:
            answer = error
        with lock:
            if not late:
                result.append(answer)
                return
        if isinstance(answer, requests.Response):
            answer.close()

    seconds = max(0.0, min(_HEADER_TIMEOUTS * timeout, deadline - time.monotonic()))
    thread = threading.Thread(target=send, name="request", daemon=True)
    try:
        thread.start()
        thread.join(seconds)
    finally:
        with lock:
            late = not result
    if not result:
        raise Failed(f"no complete response in {seconds:.3g} s", retry=True)
    if isinstance(result[0], BaseException):
        raise result[0]
    return result[0]


@contextlib.contextmanager
def _readable_errors(timeout: float) -> Iterator[None]:
    """Converts errors of requests, urllib3 and urllib into `Failed`."""
    try:
        yield
    except (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError):
        raise Failed(f"no response in {timeout:g} s", retry=True) from None
    except (
        requests.exceptions.ConnectionError,
        requests.exceptions.ChunkedEncodingError,
        urllib3.exceptions.HTTPError,
    ) as error:
        chain = list(_chain(error))
        # Without a network, no host name resolves; a retry would not help.
        if any(isinstance(inner, socket.gaierror) for inner in chain):
            raise Failed(
                f"the host name does not resolve ({_reason(error)})", retry=False
            ) from None
        if any(_is_malformed(inner) for inner in chain):
            raise Failed(
                f"the server sent a malformed response ({_reason(error)})", retry=False
            ) from None
        raise Failed(f"the connection broke ({_reason(error)})", retry=True) from None
    except requests.exceptions.TooManyRedirects:
        raise Failed("the server redirects in a loop or too often", retry=False) from None
    except requests.exceptions.InvalidSchema:
        raise Failed(
            "the server redirects to an address that is neither http nor https", retry=False
        ) from None
    # urllib raises a plain ValueError for some addresses.
    except (requests.exceptions.RequestException, ValueError) as error:
        raise Failed(f"malformed address or response ({_reason(error)})", retry=False) from None


def _is_malformed(error: BaseException) -> bool:
    """Whether a server does not follow HTTP, as opposed to a connection that ended early."""
    early = (http.client.RemoteDisconnected, http.client.IncompleteRead)
    return isinstance(error, http.client.HTTPException) and not isinstance(error, early)


def chunks(response: requests.Response) -> Iterator[bytes]:
    """Yields received bytes as they arrive, undecoded.

    Waiting for full chunks would hide a slow server. Decoding would unpack an archive that a server
    declares as compressed content.
    """
    read1 = getattr(response.raw, "read1", None)
    if read1 is None:  # urllib3 before 2.2
        yield from response.raw.stream(_CHUNK, decode_content=False)
    else:
        while chunk := read1(_CHUNK, decode_content=False):
            yield chunk


def _chain(error: BaseException) -> Iterator[BaseException]:
    """An error and its causes, as network libraries nest them."""
    yield error
    for inner in (getattr(error, "reason", None), error.__cause__, *error.args):
        if isinstance(inner, BaseException):
            yield from _chain(inner)
            return


def _reason(error: Exception) -> str:
    """The innermost reason of nested network errors, as one line."""
    inner: Any = list(_chain(error))[-1]
    text = inner.strerror if isinstance(inner, OSError) and inner.strerror else str(inner)
    return server_text(text.rsplit(": ", 1)[-1]) or type(inner).__name__


def server_text(text: str) -> str:
    """A text of a server as one printable line of at most 200 characters, before escapes."""
    return printable(" ".join(text.split())[:200])
