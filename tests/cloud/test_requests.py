"""Options of an object store, and what its errors become."""

import builtins
import datetime as dt
import os
import pickle
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow.parquet
import pytest

import tilekv
from bucket_stores import Bucket
from tilekv.errors import InvalidValueError, MissingPackageError, WrongTypeError
from tilekv.storage import objectclient, open_storage

NOBODY = {"endpoint": "http://127.0.0.1:9", "region": "us-east-1", "skip_signature": True}


@pytest.mark.parametrize(
    "options",
    [
        {"nonsense": "1"},
        {"connections": 0},
        {"max_retries": -1},
        {"timeout": "soon"},
        {"timeout": 0},
        {"retry_timeout": float("nan")},
        {"region": None, "nonsense": 1},
        {1: "a"},
        {"connections": True},
        {"region": None},
        [("region", "a")],
        "region",
    ],
)
def test_options_that_are_refused(options: Any) -> None:
    with pytest.raises((InvalidValueError, WrongTypeError)) as caught:
        tilekv.open("s3://bucket/store", storage_options=options)
    if isinstance(options, dict):
        assert any(str(name) in str(caught.value) for name in options)


def test_options_that_there_are() -> None:
    given = {
        **NOBODY,
        "timeout": dt.timedelta(seconds=2),
        "connect_timeout": "1.5 s",
        "max_retries": "0",
        "init_backoff": 0.01,
        "connections": "4",
    }
    storage = open_storage("s3://bucket/a/b/", options=given)
    assert storage.uri == "s3://bucket/a/b"
    assert open_storage("GS://bucket", options={"skip_signature": True}).uri == "gs://bucket"
    azure = open_storage(
        "az://container/a", options={"account_name": "x", "skip_signature": "true"}
    )
    assert azure.uri == "az://container/a"


def test_a_place_where_nobody_answers() -> None:
    options = {**NOBODY, "max_retries": 0, "timeout": 2}
    with pytest.raises(OSError, match=r"cannot list: .*s3://bucket/store") as caught:
        tilekv.open("s3://bucket/store", storage_options=options)
    assert caught.value.errno is not None


def test_a_public_bucket_is_asked_without_a_signature() -> None:
    """And any other with one."""
    import http.server

    signed: list[bool] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            signed.append("Authorization" in self.headers)
            self.send_error(403)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            place = {"endpoint": f"http://127.0.0.1:{server.server_port}", "region": "us-east-1"}
            key = {"access_key_id": "a", "secret_access_key": "b"}
            for options in ({"skip_signature": True}, key):
                with pytest.raises(PermissionError):
                    tilekv.open("s3://bucket/store", storage_options=place | options)
        finally:
            server.shutdown()
            thread.join()
    assert signed[0] is False
    assert signed[-1] is True


def test_without_obstore(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def refuse(name: str, *rest: Any) -> Any:
        if name.partition(".")[0] == "obstore":
            raise ImportError(name)
        return real(name, *rest)

    for name in [name for name in sys.modules if name.partition(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingPackageError, match=r"pip install 'tilekv\[cloud\]'"):
        tilekv.open("s3://other-bucket/store")


@pytest.mark.parametrize("uri", ["s3://", "s3:///a", "s3://b//a", "s3://b/a/../c", "s3://b/./a"])
def test_uris_that_are_refused(uri: str) -> None:
    with pytest.raises(InvalidValueError, match="bucket/prefix"):
        open_storage(uri)


def failing(error: Callable[[], BaseException]) -> objectclient.Client:
    def make(repeats: bool) -> Any:
        raise error()

    return objectclient.Client("s3://bucket", make)


def test_errors_of_the_server() -> None:
    from obstore import exceptions

    kinds = {
        exceptions.PermissionDeniedError: PermissionError,
        exceptions.UnauthenticatedError: PermissionError,
        exceptions.GenericError: OSError,
        exceptions.NotSupportedError: OSError,
    }
    for kind, wanted in kinds.items():
        error = objectclient.explained(kind("it said so"), "read", "s3://bucket/a")
        assert type(error) is wanted
        assert error.errno
        assert "cannot read" in str(error)
        assert "it said so" in str(error)
        assert "s3://bucket/a" in str(error)
    late = objectclient.explained(exceptions.GenericError("operation timed out"), "list", "s3://b")
    assert isinstance(late, TimeoutError)
    lost = objectclient.explained(FileNotFoundError("<Code>NoSuchBucket</Code>"), "list", "s3://b")
    assert "there is no bucket" in str(lost)


def test_refused_credentials_are_asked_for_again(memory_bucket: str) -> None:
    from obstore.exceptions import PermissionDeniedError
    from obstore.store import MemoryStore

    made = []

    def make(repeats: bool) -> Any:
        made.append(MemoryStore())
        return made[-1]

    def refusing_once(store: Any) -> str:
        if store is made[0]:
            raise PermissionDeniedError("ExpiredToken")
        return "done"

    asked = []

    def provide() -> Any:
        asked.append(1)
        return {}

    provider = objectclient.Provider(provide)
    provider()
    renewing = objectclient.Client("s3://bucket", make, provider=provider)
    assert renewing._call("read", "a", refusing_once) == "done"
    assert len(made) == 2
    provider()
    assert len(asked) == 2
    made.clear()
    with pytest.raises(PermissionError, match="ExpiredToken"):
        objectclient.Client("s3://bucket", make)._call("read", "a", refusing_once)
    assert len(made) == 1


def test_credentials_are_asked_for_once_an_expiry(monkeypatch: pytest.MonkeyPatch) -> None:
    """By all threads together, however short that is; and when they were refused, once by those who had the same."""
    now = 1_000_000
    monkeypatch.setattr(objectclient, "milliseconds", lambda: now)
    asked = []

    def provide() -> Any:
        asked.append(now)
        moment = dt.datetime.fromtimestamp(now / 1000 + 100, dt.UTC)
        return {"access_key_id": f"{len(asked)}", "expires_at": moment}

    provider = objectclient.Provider(provide)
    threads = [threading.Thread(target=provider) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    now += 97_000
    assert provider()["access_key_id"] == "1"
    now += 2000
    assert provider()["access_key_id"] == "2"
    begun = now
    now += 10
    for _ in range(2):
        provider.doubt(begun)
        assert provider()["access_key_id"] == "3"
        now += 10
    for_ever = objectclient.Provider(lambda: asked.append(now) or {"token": "a"})
    now += 10**12
    for_ever()
    for_ever()
    assert len(asked) == 4


@pytest.mark.parametrize("provider", ["a", 7, "async"])
def test_providers_that_are_refused(provider: Any) -> None:
    async def provide() -> Any:
        return {}

    options = NOBODY | {"credential_provider": provide if provider == "async" else provider}
    with pytest.raises(WrongTypeError, match="credential_provider"):
        tilekv.open("s3://bucket/store", storage_options=options)


def test_short_answers_are_noticed(memory_bucket: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever gives less than he said, gives nothing."""
    import obstore

    client = objectclient.client_of(memory_bucket, None)
    client.put("a", b"123456")

    class Short:
        meta = obstore.head(client._opened(), "a")

        def bytes(self) -> bytes:
            return b"123"

    monkeypatch.setattr(obstore, "get", lambda *_, **__: Short())
    monkeypatch.setattr(obstore, "get_range", lambda *_, **__: b"12")
    with pytest.raises(OSError, match="3 of 6 bytes came"):
        client.get("a")
    with pytest.raises(OSError, match="2 of 4 bytes came"):
        client.get_range("a", 0, 4)


def test_the_first_error_comes_when_all_have_ended() -> None:
    client = objectclient.Client("s3://bucket", lambda _: None)  # type: ignore[arg-type, return-value]
    done: list[int] = []

    def work(i: int) -> int:
        if i == 0:
            raise OSError("first")
        done.append(i)
        return i

    with pytest.raises(OSError, match="first"):
        client.at_once(work, range(50))
    assert sorted(done) == [*range(1, 50)]
    assert client.at_once(str, [3]) == ["3"]
    assert client.together(lambda: 1, lambda: 2) == [1, 2]


def test_a_forked_process_says_what_to_do(memory_bucket: str) -> None:
    """It would wait for ever."""
    bucket = Bucket(memory_bucket)
    uri = bucket.new()
    with bucket.open(uri, "x") as db:
        db["a"] = b"1"
        db.flush()
        read, write = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                db.get("a")
                said = "an answer"
            except OSError as error:
                said = str(error)
            os.write(write, said.encode())
            os._exit(0)
        os.waitpid(pid, 0)
        said = os.read(read, 10_000).decode()
        for fd in (read, write):
            os.close(fd)
        for way in ("spawn", "forkserver", 'DataLoader(multiprocessing_context="spawn")'):
            assert way in said
        assert db["a"] == b"1"


def test_a_server_that_ignores_conditions_is_refused(
    memory_bucket: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It would lose stores and merges, and say nothing."""
    import obstore

    bucket = Bucket(memory_bucket)
    uri = bucket.new()
    put = obstore.put

    def careless(*arguments: Any, mode: Any = None, **options: Any) -> Any:
        return put(*arguments, **options)

    with monkeypatch.context() as patch:
        patch.setattr(obstore, "put", careless)
        with pytest.raises(OSError, match="ignores the conditions"):
            bucket.open(uri, "x")
        assert not bucket.storage(uri).exists()
    with bucket.open(uri, "x", config={"kv.upkeep": "off"}) as db:
        for i in range(2):
            db["a"] = b"%d" % i
            db.flush()
        with monkeypatch.context() as patch:
            patch.setattr(
                obstore,
                "put",
                lambda *a, mode=None, **o: put(
                    *a, mode="create" if mode == "create" else None, **o
                ),
            )
            with pytest.raises(OSError, match="ignores the conditions"):
                db.consolidate()
        assert bucket.items(uri) == {"a": b"1"}
        db.consolidate()
    assert bucket.items(uri) == {"a": b"1"}


@pytest.fixture
def asked(memory_bucket: str, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The options of each client that is asked for; what it asks is in memory."""
    from tilekv.storage import objectstore

    asked = []
    real = objectclient.client_of

    def client_of(place: str, options: Any) -> objectclient.Client:
        asked.append(options)
        return real(place, None)

    monkeypatch.setattr(objectstore, "client_of", client_of)
    return asked


def test_every_call_goes_where_it_is_told(
    memory_bucket: str, tmp_path: Path, asked: list[Any]
) -> None:
    """With the options that it was given, in every thread, and as a handle that has travelled."""
    import pyarrow as pa

    given = {"endpoint": "http://127.0.0.1:1"}
    options: dict[str, Any] = {"storage_options": given}
    uris = [f"{memory_bucket}/{i}" for i in range(9)]
    with tilekv.open(uris[0], "x", **options) as db:
        for i in range(20):
            db[f"{i}"] = b"%d" % i
            db.flush()
        db.upkeep()
        db.consolidate(vacuum=True)
        pickle.loads(pickle.dumps(db)).close()
    tilekv.verify(uris[0], **options)
    tilekv.convert(uris[0], uris[1], **options)
    tilekv.salvage(uris[0], uris[2], stale=uris[3], **options)
    tilekv.backup(uris[0], uris[4], **options)
    tilekv.backup(uris[0], uris[4], **options)
    tilekv.append_attr(uris[1], tilekv.Attr("n", "int64"), 1, **options)
    table = pa.table({"key": ["a"], "n": [1]})
    tilekv.from_arrow(uris[5], table, "key", **options).close()
    tilekv.from_pandas(uris[6], table.to_pandas(), "key", **options).close()
    tilekv.from_polars(uris[7], pl.DataFrame(table), "key", **options).close()
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    tilekv.from_parquet(uris[8], tmp_path / "t.parquet", "key", **options).close()
    assert len(asked) > 20
    assert all(each is given or each == given for each in asked)


def test_every_command_goes_where_it_is_told(
    memory_bucket: str, tmp_path: Path, asked: list[Any], capsys: pytest.CaptureFixture[str]
) -> None:
    from tilekv.cli.command import main

    def run(*words: object) -> str:
        options = "--storage-option=endpoint=http://127.0.0.1:1 --storage-option connections=4"
        assert main([*map(str, words), *options.split()]) == 0
        return capsys.readouterr().out

    tree = tmp_path / "tree"
    tree.mkdir()
    (tree / "a.txt").write_bytes(b"1")
    (tmp_path / "t.csv").write_text("key,n\na,1\n")
    one, two, three, four, table = (f"{memory_bucket}/{name}" for name in "12345")
    run("import", tree, one)
    run("put", one, "b", "--value", "2")
    assert sorted(run("ls", one).split()) == ["a.txt", "b"]
    assert run("get", one, "b") == "2"
    run("rm", one, "b")
    run("export", one, tmp_path / "back")
    assert (tmp_path / "back" / "a.txt").read_bytes() == b"1"
    run("consolidate", "--vacuum", one)
    run("upkeep", one)
    run("vacuum", one)
    assert "keys       1" in run("info", one)
    assert "sound" in run("verify", one)
    run("backup", one, two)
    run("convert", one, three)
    run("salvage", one, four)
    run("load", tmp_path / "t.csv", table, "--key", "key")
    run("unload", table, tmp_path / "out.csv")
    assert (tmp_path / "out.csv").read_text().split() == ['"key","n"', '"a",1']
    given = {"endpoint": "http://127.0.0.1:1", "connections": "4"}
    assert all(each == given for each in asked)
    with pytest.raises(SystemExit):
        main(["ls", one, "--storage-option", "endpoint"])
    assert "no NAME=VALUE" in capsys.readouterr().err


def test_options_of_tiledb(memory_bucket: str, asked: list[Any]) -> None:
    """Its keys for S3 are the options of stores there, in both faces and in ours."""
    config = {
        "vfs.s3.region": "eu-west-1",
        "vfs.s3.endpoint_override": "127.0.0.1:1",
        "vfs.s3.scheme": "http",
        "vfs.s3.aws_access_key_id": "",
        "vfs.s3.use_virtual_addressing": False,
        "vfs.s3.request_timeout_ms": 1500,
        "vfs.s3.verify_ssl": False,
    }
    want = {
        "region": "eu-west-1",
        "endpoint": "http://127.0.0.1:1",
        "virtual_hosted_style_request": "false",
        "timeout": "1.5",
        "allow_invalid_certificates": "true",
    }
    ctx = tilekv.Ctx(config)
    uri = f"{memory_bucket}/kv"
    schema = tilekv.KVSchema(attrs=[tilekv.Attr("a", bytes)], ctx=ctx)
    tilekv.KV.create(uri, schema, ctx=ctx)
    with tilekv.KV(uri, ctx=ctx) as kv:
        kv["a"] = "1"
        kv.flush()
        pickle.loads(pickle.dumps(kv.store)).close()
    assert tilekv.Map.encryption_type(ctx, uri) == tilekv.TILEDB_NO_ENCRYPTION
    with tilekv.open(uri, config=config) as db:
        assert db["a"] == b"1"
    assert all(each == want for each in asked)
    assert tilekv.Config(config).storage_options("gs://bucket") is None
    assert tilekv.Config().storage_options(uri) is None
    assert tilekv.Config(config)["vfs.s3.region"] == "eu-west-1"


def test_first_requests_of_many_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """None of them is taken for one of a forked process; one that is, is refused."""
    monkeypatch.setattr(objectclient, "_user", {})
    errors: list[OSError] = []

    def ask() -> None:
        try:
            objectclient._refuse_forked()
        except OSError as error:
            errors.append(error)

    threads = [threading.Thread(target=ask) for _ in range(8)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert errors == []
    monkeypatch.setattr(objectclient, "_user", {"pid": os.getpid() + 1})
    ask()
    assert len(errors) == 1
