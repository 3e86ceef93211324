"""Where downloads come from: HTTP, files, and the stores that obstore knows."""

from __future__ import annotations

import http.client
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from ..errors import InputError
from ..package import __version__
from .backends import object_store, reason

_TRANSIENT = (408, 425, 429, 500, 502, 503, 504)


class TransientError(Exception):
    """What may go away by itself."""


class StaleError(TransientError):
    """What is here already does not belong to the file that is there now."""


@dataclass
class Answer:
    """An opened source: the bytes from `start` on, of `total`; `complete` if there are no more."""

    file: Any
    start: int
    total: int | None
    validator: str | None  # changes when the file does
    complete: bool = False


#: ``source(url, start, validator, timeout)``: bytes from `start` on, if the file is unchanged.
Source = Callable[[str, int, "str | None", float], AbstractContextManager[Answer]]


def source_of(url: str, storage_options: Mapping[str, Any]) -> Source:
    """Return what opens an address of this kind."""
    scheme = urlsplit(url).scheme if "://" in url else "file"
    if scheme in ("http", "https"):
        return _http
    return _file if scheme == "file" else partial(_object, storage_options)


def reason_of(error: object, timeout: float) -> str:
    """Say in a few words what went wrong on the way."""
    if isinstance(error, TimeoutError):
        return f"no answer in {timeout:g} s"
    if isinstance(error, socket.gaierror):
        return "its name is not known"
    return " ".join(str(error).split()) or type(error).__name__


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follow redirections, but not out of encryption or out of HTTP."""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str):  # type: ignore[no-untyped-def]
        """Refuse a new address that is less safe."""
        old, new = urlsplit(req.full_url).scheme, urlsplit(newurl).scheme
        if new not in ("http", "https") or (old == "https" and new == "http"):
            raise InputError(f"{req.full_url} redirects to {newurl}, which is less safe: refused")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


@contextmanager
def _http(url: str, start: int, validator: str | None, timeout: float) -> Iterator[Answer]:
    headers = {"User-Agent": f"stforecast/{__version__}", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    opener = urllib.request.build_opener(_Redirects)
    try:
        answer = opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        said = error.headers.get("Content-Range", "")
        error.close()
        if error.code == 416 and said == f"bytes */{start}":
            yield Answer(None, start, start, validator, complete=True)
            return
        if error.code == 416:  # the part is longer than the file: it is of another one
            raise StaleError from error
        if error.code in _TRANSIENT:
            raise TransientError(f"the server answers {error.code} {error.reason}") from error
        hint = {404: ": there is no such file", 403: ": it may not be read without a permission"}
        raise InputError(
            f"{url}: the server answers {error.code} {error.reason}{hint.get(error.code, '')}"
        ) from error
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        raise TransientError(reason_of(error, timeout)) from error
    except urllib.error.URLError as error:
        if isinstance(error.reason, (TimeoutError, ConnectionResetError)):
            raise TransientError(reason_of(error.reason, timeout)) from error
        host, why = urlsplit(url).hostname, reason_of(error.reason, timeout)
        raise InputError(f"{url}: {host} cannot be reached ({why}): is there a network?") from error
    except ValueError as error:
        raise InputError(f"{url}: not an address ({error})") from error
    with answer:
        length = answer.headers.get("Content-Length", "")
        ranges = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", answer.headers.get("Content-Range", ""))
        if answer.status == 206:
            if not ranges or int(ranges[1]) != start:
                raise StaleError("the server answers with another range than asked for")
            total = None if ranges[2] == "*" else int(ranges[2])
        else:
            start, total = 0, int(length) if length.isdigit() else None
        etag = answer.headers.get("ETag", "")
        mark = etag if etag.startswith('"') else answer.headers.get("Last-Modified")
        yield Answer(answer, start, total, mark)


@contextmanager
def _file(url: str, start: int, validator: str | None, timeout: float) -> Iterator[Answer]:
    path = Path(unquote(urlsplit(url).path) if "://" in url else url).expanduser()
    try:
        file = open(path, "rb")  # noqa: SIM115 - closed below
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    with file:
        stat = path.stat()
        mark = f"{stat.st_mtime_ns}-{stat.st_size}"
        start = start if validator == mark and start <= stat.st_size else 0
        file.seek(start)
        yield Answer(file, start, stat.st_size, mark)


@contextmanager
def _object(
    options: Mapping[str, Any], url: str, start: int, validator: str | None, timeout: float
) -> Iterator[Answer]:
    place, _, name = url.rpartition("/")
    store = object_store(place, options)
    import obstore

    try:
        # Asks for a range at a time, so no request outlasts obstore's limit of 30 s.
        about = obstore.head(store, name)
        file = obstore.open_reader(store, name, buffer_size=2**23)
        total, mark = about["size"], about["e_tag"]
        start = start if mark and validator == mark and start <= total else 0
        file.seek(start)
    except FileNotFoundError as error:
        raise InputError(f"{url}: there is no such file") from error
    except Exception as error:  # obstore has its own
        raise InputError(f"{url}: cannot be opened ({reason(error)})") from error
    with closing(file):
        try:
            yield Answer(file, start, total, mark)
        except obstore.exceptions.BaseError as error:
            raise TransientError(reason(error)) from error
