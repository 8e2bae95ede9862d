"""Requests to an object store, by obstore: its options, its errors as Python's own, many requests at once (docs/cloud.md)."""

from __future__ import annotations

import datetime as dt
import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import suppress
from typing import IO, TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from tilekv.clock import milliseconds, seconds
from tilekv.errors import InvalidValueError, MissingPackageError, WrongTypeError, shown
from tilekv.storage.pace import Retries, Width, is_too_much, may_pass

if TYPE_CHECKING:
    from obstore.store import ObjectStore

T = TypeVar("T")
R = TypeVar("R")

CONNECTIONS: Final = 32  # requests at once, unless `connections` says otherwise
TIMEOUT_S: Final = 30  # of one request
EARLY_MS: Final = 2000  # before they expire credentials are asked for again
RETRIES: Final = Retries(8, 60, 0.1, 5)
# More bytes than this go up, and come down, through a file and in parts.
LARGE: Final = 64 << 20
PART: Final = 16 << 20
PAGE: Final = 1000  # objects that a request lists

# obstore's own names, that they can be given in one mapping with the keys of the service.
_CLIENT: Final = (
    "allow_http",
    "allow_invalid_certificates",
    "connect_timeout",
    "default_content_type",
    "default_headers",
    "http1_only",
    "http2_keep_alive_interval",
    "http2_keep_alive_timeout",
    "http2_keep_alive_while_idle",
    "http2_only",
    "pool_idle_timeout",
    "pool_max_idle_per_host",
    "proxy_ca_certificate",
    "proxy_excludes",
    "proxy_url",
    "randomize_addresses",
    "read_timeout",
    "root_certificate",
    "timeout",
    "user_agent",
)
_ENDPOINTS: Final = (
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
    "AWS_ENDPOINT",
    "AZURE_STORAGE_ENDPOINT",
)
_RETRY: Final = ("max_retries", "retry_timeout", "init_backoff", "max_backoff")
_DURATIONS: Final = (
    "connect_timeout",
    "http2_keep_alive_timeout",
    "pool_idle_timeout",
    "read_timeout",
    "timeout",
)
_FORKED: Final = (
    "requests to an object store never return in a process that was forked after its parent had made some: start workers "
    'with "spawn" or "forkserver" (multiprocessing.get_context("spawn").Pool(), '
    'ProcessPoolExecutor(mp_context=multiprocessing.get_context("spawn")), '
    'torch DataLoader(multiprocessing_context="spawn")), or open the store in the child alone'
)
WEB: Final = ("http", "https")  # schemes of servers that are no object stores
CACHE: Final = ("cache_dir", "cache_bytes")  # see blockcache
_LISTINGS: Final = 4  # tries
_MOST_SHOWN: Final = 400  # characters of what a server says


class Entry(NamedTuple):
    """What a listing says of an object.

    Attributes
    ----------
    moment : int
        When it was written, in ms since 1970 by the server's clock; many servers tell whole seconds.
    version : dict
        What `Client.put_if` takes.
    """

    size: int
    moment: int
    version: dict[str, Any]


class Stored(NamedTuple):
    """An object: see Entry."""

    data: bytes
    moment: int
    version: dict[str, Any]


class Client:
    """Requests to one bucket, or container. Any number of threads.

    What fails is an OSError: FileNotFoundError, PermissionError, TimeoutError, or one whose text says what the server did.
    `place` is the bucket's URI; keys are whole. `width` is how many requests are under way at most.
    """

    def __init__(
        self,
        place: str,
        make: Callable[[bool], ObjectStore],
        connections: int = CONNECTIONS,
        provider: Provider | None = None,
        retries: Retries = RETRIES,
    ) -> None:
        self.place = place
        self._make = make  # given whether obstore itself makes requests again
        self._connections = connections
        self._provider = provider  # of credentials, which is asked again when they were refused
        self._retries = retries
        self.width = Width(connections)
        self._lock = threading.Lock()
        self._stores: dict[bool, ObjectStore] = {}
        self._pool: ThreadPoolExecutor | None = None
        self._digests = _Digests()

    def uri_of(self, key: str) -> str:
        """What tilekv opens it by."""
        return f"{self.place}/{key}"

    # --- requests ---

    def get(
        self,
        key: str,
        unless: Mapping[str, Any] | None = None,
        sound: Callable[[bytes], bool] | None = None,
    ) -> Stored | None:
        """An object; None when it is still the one of the version `unless`.

        Where a version is the MD5 of the object, as on most servers, what does not fit is asked for once more; elsewhere what is
        not `sound`.
        """
        found = self._got(key, unless)
        if found is None:
            return None
        fits = self._digests.fits(found)
        if fits is None:
            fits = sound is None or sound(found.data)
        return found if fits else self._got(key, None)

    def _got(self, key: str, unless: Mapping[str, Any] | None) -> Stored | None:
        import obstore
        from obstore.exceptions import NotModifiedError

        etag = unless and unless.get("e_tag")

        def getting(store: ObjectStore) -> Stored | None:
            try:
                found = obstore.get(store, key, options={"if_none_match": etag} if etag else None)
                data = bytes(found.bytes())
            except NotModifiedError:
                return None
            meta = found.meta
            if len(data) != meta["size"]:
                raise OSError(errno.EIO, f"{len(data)} of {meta['size']} bytes came")
            return Stored(data, _moment(meta), _version(meta))

        return self._ask("read", key, getting)

    def get_range(self, key: str, offset: int, n: int) -> bytes:
        """Some bytes of an object: all of them."""
        import obstore

        def getting(store: ObjectStore) -> bytes:
            data = bytes(obstore.get_range(store, key, start=offset, length=n))
            if len(data) != n:
                raise OSError(errno.EIO, f"{len(data)} of {n} bytes came")
            return data

        return self._ask("read", key, getting) if n else b""

    def head(self, key: str) -> Entry:
        """What is known of an object."""
        import obstore

        return self._ask("look for", key, lambda store: _entry(obstore.head(store, key)))

    def put(self, key: str, data: bytes) -> None:
        """Write an object."""
        import obstore

        self._ask("write", key, lambda store: obstore.put(store, key, data, use_multipart=False))

    def put_file(self, key: str, file: IO[bytes]) -> None:
        """Write a large object, in parts."""
        import obstore

        def putting(store: ObjectStore) -> None:
            file.seek(0)
            obstore.put(store, key, file, use_multipart=True, chunk_size=PART)

        self._call("write", key, putting)

    def put_new(self, key: str, data: bytes) -> dict[str, Any] | None:
        """Write an object that is not there: its version, or None, and nothing is done, when it is."""
        return self._put_on(key, data, "create")

    def put_if(self, key: str, data: bytes, version: Mapping[str, Any]) -> dict[str, Any] | None:
        """Replace an object of this version: the new one, or None, and nothing is done, when it is another."""
        return self._put_on(key, data, {k: v for k, v in version.items() if v is not None})

    def _put_on(self, key: str, data: bytes, mode: Any) -> dict[str, Any] | None:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        def putting(store: ObjectStore) -> dict[str, Any] | None:
            try:
                put = obstore.put(store, key, data, mode=mode, use_multipart=False)
            except (AlreadyExistsError, PreconditionError):
                return None
            except FileNotFoundError:  # what was to be replaced is gone
                if mode == "create":
                    raise
                return None
            return {"e_tag": put["e_tag"], "version": put["version"]}

        return self._call("write", key, putting)

    def copy(self, key: str, to: str) -> None:
        """Copy an object within the server."""
        import obstore

        self._ask("copy", key, lambda store: obstore.copy(store, key, to))

    def delete(self, keys: Iterable[str]) -> None:
        """Delete objects; those that are gone are passed over."""
        import obstore

        gone = list(keys)
        if gone:
            with suppress(FileNotFoundError):
                self._call("delete", gone[0], lambda store: obstore.delete(store, gone))

    def list_all(self, prefix: str) -> dict[str, Entry]:
        """All objects whose keys begin with a prefix, which ends with ``/`` or is empty: by what follows it."""
        import obstore

        def listing(store: ObjectStore) -> dict[str, Entry]:
            pages = obstore.list(store, prefix or None, chunk_size=PAGE)
            return {each["path"][len(prefix) :]: _entry(each) for page in pages for each in page}

        return self._call("list", prefix, listing)

    def list_some(
        self, prefix: str, enough: Callable[[Mapping[str, Entry]], bool]
    ) -> tuple[dict[str, Entry], bool]:
        """The same of the first objects, until what has come is `enough`, and whether these are all."""
        import obstore

        def listing(store: ObjectStore) -> tuple[dict[str, Entry], bool]:
            found: dict[str, Entry] = {}
            for page in obstore.list(store, prefix or None, chunk_size=PAGE):
                found |= {each["path"][len(prefix) :]: _entry(each) for each in page}
                if len(found) >= PAGE and enough(found):
                    return found, False
            return found, True

        return self._call("list", prefix, listing)

    def list_folder(self, prefix: str) -> tuple[list[str], dict[str, Entry]]:
        """What a prefix has on its first level: the names up to the next ``/``, and the objects by name."""
        import obstore

        def listing(store: ObjectStore) -> tuple[list[str], dict[str, Entry]]:
            found = obstore.list_with_delimiter(store, prefix or None)
            folders = [each[len(prefix) :].rstrip("/") for each in found["common_prefixes"]]
            files = {each["path"][len(prefix) :]: _entry(each) for each in found["objects"]}
            # Some programs put an empty object where a folder is to be seen.
            return folders, {name: each for name, each in files.items() if name and "/" not in name}

        return self._call("list", prefix, listing)

    def is_empty(self, prefix: str) -> bool:
        """Whether no key begins with a prefix."""
        import obstore

        def looking(store: ObjectStore) -> bool:
            return not any(True for page in obstore.list(store, prefix or None) for _ in page)

        return self._call("list", prefix, looking)

    # --- many at once ---

    def at_once(self, function: Callable[[T], R], items: Iterable[T]) -> list[R]:
        """`function` of each, many at once. When some raise, the first error comes once all have ended."""
        _refuse_forked()
        each = list(items)
        if len(each) < 2:
            return [function(item) for item in each]
        futures = []
        try:
            pool = self._threads()
            futures += [pool.submit(function, item) for item in each]
        except RuntimeError:  # at the interpreter's end no thread can be started any more
            wait(futures)
            return [function(item) for item in each]
        try:
            wait(futures)
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        return [future.result() for future in futures]

    def together(self, *calls: Callable[[], Any]) -> list[Any]:
        """What several calls give, which are made at once."""
        return self.at_once(_called, calls)

    def _threads(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None:
                self._pool = ThreadPoolExecutor(self._connections, "tilekv objects")
            return self._pool

    # --- what every request goes through ---

    def _ask(self, what: str, key: str, function: Callable[[ObjectStore], R]) -> R:
        """One request, which may be made twice: made again here, since obstore would not tell that the server is busy."""
        pauses = self._retries.pauses(seconds())
        while True:
            try:
                return self._call(what, key, function, False)
            except OSError as error:
                if not may_pass(error.__cause__) or next(pauses, None) is None:
                    raise

    def _call(
        self, what: str, key: str, function: Callable[[ObjectStore], R], repeats: bool = True
    ) -> R:
        """`repeats`: obstore makes again what fails."""
        from obstore.exceptions import BaseError

        store = self._opened(repeats)
        begun = milliseconds()
        try:
            for again in range(_LISTINGS):
                try:
                    return self._done(function, store)
                except BaseError as error:
                    if _is_refused(error) and self._provider is not None:
                        self._provider.doubt(begun)
                        store = self._opened(repeats, renew=store)
                        break
                    # obstore repeats a request, but not a listing of which a part has come.
                    if what != "list" or again == _LISTINGS - 1 or "body" not in str(error):
                        raise
            return self._done(function, store)
        except (BaseError, OSError, NotImplementedError) as error:
            raise explained(error, what, f"{self.place}/{key}") from error

    def _done(self, function: Callable[[ObjectStore], R], store: ObjectStore) -> R:
        """A request, as soon as there is room for it."""
        with self.width as begun:
            try:
                found = function(store)
            except Exception as error:
                if is_too_much(error):
                    self.width.narrow(begun)
                raise
        self.width.widen()
        return found

    def _opened(self, repeats: bool = True, renew: ObjectStore | None = None) -> ObjectStore:
        _refuse_forked()
        with self._lock:
            store = self._stores.get(repeats)
            if store is None or store is renew:
                store = self._stores[repeats] = self._make(repeats)
            return store


class Provider:
    """Asks a credential provider once until what it has given expires, for all stores and threads of the process.

    obstore would ask before each request for what lasts for less than five minutes.
    """

    def __init__(self, ask: Callable[[], Any]) -> None:
        self._ask = ask
        self._lock = threading.Lock()
        self._given: Any = None
        self._asked = 0  # when, in ms since 1970
        if (config := getattr(ask, "config", None)) is not None:
            self.config = config  # obstore takes more than credentials from its own ones

    def __call__(self) -> Any:
        """The credentials."""
        with self._lock:
            if self._given is None or _expires(self._given) <= milliseconds() + EARLY_MS:
                self._asked = milliseconds()
                self._given = self._ask()
            return self._given

    def doubt(self, begun: int) -> None:
        """Told that a request was refused that was begun then: what was given before is not given again."""
        with self._lock:
            if self._asked <= begun:
                self._given = None


def _expires(given: Any) -> float:
    """When credentials do, in ms since 1970."""
    moment = given.get("expires_at") if isinstance(given, Mapping) else None
    return float("inf") if moment is None else moment.timestamp() * 1000


class _Digests:
    """Whether this server's versions are MD5s, by whether one was."""

    def __init__(self) -> None:
        self._seen = False

    def fits(self, found: Stored) -> bool | None:
        """Whether an object is what its version says; None when that says nothing."""
        version = str(found.version["e_tag"]).strip('"')
        if not re.fullmatch("[0-9a-f]{32}", version):
            return None
        fits = hashlib.md5(found.data, usedforsecurity=False).hexdigest() == version
        self._seen |= fits
        return fits if self._seen else None


def client_of(place: str, options: Mapping[str, object] | None) -> Client:
    """The Client of a bucket, `scheme://bucket`, one in a process for the same options.

    Raises
    ------
    MissingPackageError
        When obstore is not installed.
    WrongTypeError, InvalidValueError
        For options that there are not, or values that do not fit.
    """
    given = {key: value for key, value in _checked(options).items() if key not in CACHE}
    known = (place, tuple(sorted((key, repr(value)) for key, value in given.items())))
    with _clients_lock:
        if known not in _clients:
            _clients[known] = _made(place, given)
        return _clients[known]


_clients: dict[tuple[str, tuple[tuple[str, str], ...]], Client] = {}
_clients_lock = threading.Lock()
_providers: dict[int, Provider] = {}  # by the id of what each asks, which it holds
_user: dict[
    str, int
] = {}  # the process that has made the first request: this one, or one it was forked from


def _refuse_forked() -> None:
    pid = os.getpid()
    if (
        _user.setdefault("pid", pid) != pid
    ):  # in one step: threads may make their first requests at once
        raise OSError(errno.EDEADLK, _FORKED)


def _renew_lock() -> None:
    # Another thread may have held it at the fork.
    global _clients_lock
    _clients_lock = threading.Lock()


os.register_at_fork(after_in_child=_renew_lock)


def _made(place: str, given: Mapping[str, object]) -> Client:
    try:
        from obstore.exceptions import BaseError
        from obstore.store import from_url
    except ImportError:
        raise MissingPackageError(
            f"{place} needs the package obstore: pip install 'tilekv[cloud]'"
        ) from None
    rest = dict(given)
    connections = number_of(rest.pop("connections", CONNECTIONS))
    if isinstance(connections, bool) or not isinstance(connections, int):
        raise WrongTypeError(f"the storage option connections is an int, not {shown(connections)}")
    if not 1 <= connections <= 1024:
        raise InvalidValueError(f"the storage option connections is 1 to 1024, not {connections}")
    provider = _provider_of(rest.pop("credential_provider", None))
    client: dict[str, Any] = {"timeout": TIMEOUT_S}
    client |= {key: rest.pop(key) for key in _CLIENT if key in rest}
    retries = _retries({key: rest.pop(key) for key in _RETRY if key in rest})
    if place.partition("://")[0] in WEB and rest:
        raise InvalidValueError(f"the storage option {min(rest)} is none of web servers: {place}")
    named = [str(value) for key, value in rest.items() if "endpoint" in key.lower()]
    named += [place] if place.startswith("http://") else []
    if any(text.startswith("http://") for text in named or map(os.environ.get, _ENDPOINTS) if text):
        client.setdefault("allow_http", True)  # who says so means it
    for key in _DURATIONS:
        if key in client:
            client[key] = _duration(key, client[key])
    config = {k: str(v).lower() if isinstance(v, bool) else v for k, v in rest.items()}

    def make(repeats: bool) -> ObjectStore:
        more = {} if provider is None else {"credential_provider": provider}
        retry = _retry_config(retries if repeats else retries._replace(most=0))
        return from_url(place, config=config, client_options=client, retry_config=retry, **more)

    try:
        make(True)
    except (BaseError, ValueError, TypeError) as error:
        reason = _first_lines(error)
        raise InvalidValueError(f"the storage options of {place} do not fit: {reason}") from None
    return Client(place, make, connections, provider, retries)


def _provider_of(ask: Any) -> Provider | None:
    if ask is None:
        return None
    import inspect

    if not callable(ask) or any(map(inspect.iscoroutinefunction, (ask, ask.__call__))):
        raise WrongTypeError(
            f"the storage option credential_provider is a function that gives credentials, and not async: {shown(ask)}"
        )
    return _providers.setdefault(id(ask), Provider(ask))


def _checked(options: object) -> Mapping[str, object]:
    if options is None:
        return {}
    if not isinstance(options, Mapping):
        raise WrongTypeError(f"storage_options is a mapping, not {type(options).__name__}")
    for key, value in options.items():
        if not isinstance(key, str):
            raise WrongTypeError(f"storage options are named by str, not {shown(key)}")
        if value is None:
            raise WrongTypeError(f"the storage option {key} cannot be None: leave it out")
    return options


def _retries(given: Mapping[str, object]) -> Retries:
    most = number_of(given.get("max_retries", RETRIES.most))
    if isinstance(most, bool) or not isinstance(most, int) or most < 0:
        raise InvalidValueError(
            f"the storage option max_retries is a number of tries, not {shown(most)}"
        )
    return Retries(
        most,
        _duration("retry_timeout", given.get("retry_timeout", RETRIES.timeout)).total_seconds(),
        _duration("init_backoff", given.get("init_backoff", RETRIES.first_pause)).total_seconds(),
        _duration("max_backoff", given.get("max_backoff", RETRIES.longest_pause)).total_seconds(),
    )


def _retry_config(retries: Retries) -> Any:
    """As obstore has it."""
    return {
        "max_retries": retries.most,
        "retry_timeout": dt.timedelta(seconds=retries.timeout),
        "backoff": {
            "init_backoff": dt.timedelta(seconds=retries.first_pause),
            "max_backoff": dt.timedelta(seconds=retries.longest_pause),
            "base": 2,
        },
    }


def number_of(value: object) -> object:
    """What a command line gives as text."""
    return int(value) if isinstance(value, str) and re.fullmatch("[0-9]{1,9}", value) else value


def _duration(key: str, value: object) -> dt.timedelta:
    if isinstance(value, str) and (match := re.fullmatch(r"([0-9.]{1,9}) ?s?", value)):
        with suppress(ValueError):
            value = float(match[1])
    if isinstance(value, dt.timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= 86_400:
        raise InvalidValueError(
            f"the storage option {key} is a number of seconds or a timedelta, not {shown(value)}"
        )
    return dt.timedelta(seconds=value)


def explained(error: BaseException, what: str, place: str) -> OSError:
    """The builtin error that says what could not be done, and where."""
    from obstore.exceptions import NotSupportedError

    reason = _first_lines(error)
    if isinstance(error, FileNotFoundError):
        if "NoSuchBucket" in str(error):
            return FileNotFoundError(errno.ENOENT, f"cannot {what}: there is no bucket", place)
        return FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), place)
    if _is_refused(error):
        text = f"cannot {what}: the server refuses these credentials: {reason}"
        return PermissionError(errno.EACCES, text, place)
    if isinstance(error, (NotSupportedError, NotImplementedError)):
        return OSError(
            errno.ENOTSUP, f"cannot {what}: the server does not do that: {reason}", place
        )
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, f"cannot {what}: {error.strerror}", place)
    code = errno.ETIMEDOUT if re.search("timed ?out", str(error), re.IGNORECASE) else errno.EIO
    return OSError(code, f"cannot {what}: {reason}", place)


def _is_refused(error: BaseException) -> bool:
    """Whether the server has refused the credentials; of a listing obstore does not tell it from other errors."""
    from obstore.exceptions import PermissionDeniedError, UnauthenticatedError

    if isinstance(error, (PermissionDeniedError, UnauthenticatedError)):
        return True
    return re.search(r"Server returned non-2xx status code: 40[13]\b", str(error)) is not None


def _first_lines(error: BaseException) -> str:
    text = " ".join(str(error).split("\n\nDebug source")[0].split())
    return text if len(text) <= _MOST_SHOWN else f"{text[:_MOST_SHOWN]}..."


def _called(call: Callable[[], Any]) -> Any:
    return call()


def _moment(meta: Any) -> int:
    return int(meta["last_modified"].timestamp() * 1000)


def _version(meta: Any) -> dict[str, Any]:
    return {"e_tag": meta["e_tag"], "version": meta["version"]}


def _entry(meta: Any) -> Entry:
    return Entry(meta["size"], _moment(meta), _version(meta))
