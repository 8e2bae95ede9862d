"""What `bench cloud` measures: the same keys in a bucket, as tilekv and others keep them there.

Each imports what it needs when it is made, and has a name of its own for what is not installed.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import numpy as np

import tilekv

CONNECTIONS = 32  # at once, of clients that leave it to who calls them: as many as tilekv's
CHUNK = 1024  # rows of a chunk of Zarr's: as TileDB's capacity


class Server(Protocol):
    """What is needed of the tests' S3 server."""

    bucket: str
    key: str
    secret: str

    def options(self, port: int | None = None, **more: Any) -> dict[str, Any]:
        """Storage options that lead there, or to a proxy's port."""


class Kept:
    """Keys and values in a bucket: loaded from the server itself, and all else done through the proxy's port."""

    name = ""
    what = ""
    most: int | None = None  # keys that it is given and asked for; all, unless a key is an object
    scans = True

    def __init__(self, server: Server, port: int) -> None:
        self.server, self.port = server, port
        self.place = f"bench/{type(self).__name__.lower()}"
        self.uri = f"s3://{server.bucket}/{self.place}"

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        """Keep these."""
        raise NotImplementedError

    def open(self) -> None:
        """For reading, without anything that was read before."""
        raise NotImplementedError

    def get(self, key: bytes) -> bytes:
        """The value of a key."""
        raise NotImplementedError

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        """The values of keys."""
        raise NotImplementedError

    def scan(self) -> int:
        """Read everything; how much there is."""
        raise NotImplementedError

    def open_writer(self) -> None:
        """For writing."""

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        """Keep these too."""
        raise NotImplementedError

    def close(self) -> None:
        """What is open."""


class Tilekv(Kept):
    """A store of the default schema."""

    name = "tilekv"
    what = "the default schema, one flush; put_many and flush"

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        with tilekv.open(self.uri, "x", storage_options=self.server.options()) as db:
            db.put_many(keys, values)

    def open(self) -> None:
        self.db = tilekv.open(self.uri, storage_options=self.server.options(self.port))

    def get(self, key: bytes) -> bytes:
        value: bytes = self.db[key]
        return value

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        return list(self.db.get_many(keys))

    def scan(self) -> int:
        return sum(len(batch) for batch in self.db.scan())

    def open_writer(self) -> None:
        self.db = tilekv.open(self.uri, "a", storage_options=self.server.options(self.port))

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        self.db.put_many(keys, values)
        self.db.flush()

    def close(self) -> None:
        self.db.close()


class TileDB(Kept):
    """A sparse array by TileDB-Py's vfs.s3, as `bench` has it on a disk."""

    def __init__(self, server: Server, port: int) -> None:
        super().__init__(server, port)
        import tiledb

        from bench.rivals import tiledb_store

        self.tiledb, self.digests = tiledb, tiledb_store.digests
        self.local = tiledb_store.TileDB()
        self.name = f"TileDB-Py {tiledb.__version__}"
        self.what = self.local.what

    def _context(self, port: int | None = None) -> Any:
        options = self.server.options(port)
        config = {
            "endpoint_override": options["endpoint"].partition("//")[2],
            "scheme": "http",
            "use_virtual_addressing": "false",
            "region": options["region"],
            "aws_access_key_id": self.server.key,
            "aws_secret_access_key": self.server.secret,
        }
        return self.tiledb.Ctx({f"vfs.s3.{name}": value for name, value in config.items()})

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        with self.tiledb.scope_ctx(self._context()):
            self.local.load(self.uri, keys, values)

    def open(self) -> None:
        self.array = self.tiledb.open(self.uri, ctx=self._context(self.port))
        self.local.array = self.array

    def get(self, key: bytes) -> bytes:
        c0, c1 = (int(half) for half in self.digests([key])[0])
        found = self.array.multi_index[c0, c1]
        return dict(zip(found["key"], found["value"], strict=True))[key]

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        return self.local.get_many(keys)

    def scan(self) -> int:
        return self.local.scan()

    def open_writer(self) -> None:
        self.array = self.tiledb.open(self.uri, "w", ctx=self._context(self.port))

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        at = self.digests(keys)
        columns = {"key": keys, "value": values}
        self.array[at[:, 0], at[:, 1]] = {
            name: np.array(cells, dtype=object) for name, cells in columns.items()
        }

    def close(self) -> None:
        self.array.close()


class Zarr(Kept):
    """An array of a row a value. It has no keys: which row is whose is in a dict of this process, and costs nothing."""

    def __init__(self, server: Server, port: int) -> None:
        super().__init__(server, port)
        import obstore
        import zarr

        self.zarr = zarr
        self.name = f"zarr {zarr.__version__} on obstore {obstore.__version__}"
        self.what = f"an array of bytes, {CHUNK:,} rows a chunk, no keys: rows are known"

    def _store(self, port: int | None = None) -> Any:
        from obstore.store import S3Store
        from zarr.storage import ObjectStore

        options = self.server.options(port)
        bucket = S3Store(
            self.server.bucket, prefix=self.place, client_options={"allow_http": True}, **options
        )
        return ObjectStore(bucket)

    def _write(self, store: Any, values: list[bytes]) -> None:
        rows = np.frombuffer(b"".join(values), "uint8").reshape(len(values), -1)
        shape = {"shape": rows.shape, "chunks": (CHUNK, rows.shape[1]), "dtype": "uint8"}
        self.zarr.create_array(store, **shape)[:] = rows

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        self.rows = {key: row for row, key in enumerate(keys)}
        self._write(self._store(), values)

    def open(self) -> None:
        self.array = self.zarr.open_array(self._store(self.port), mode="r")

    def get(self, key: bytes) -> bytes:
        row: bytes = self.array[self.rows[key]].tobytes()
        return row

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        found = self.array.oindex[np.array([self.rows[key] for key in keys])]
        return [row.tobytes() for row in found]

    def scan(self) -> int:
        return len(self.array[:])

    def open_writer(self) -> None:
        self.array = self.zarr.open_array(self._store(self.port), mode="r+")

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        self.array.append(np.frombuffer(b"".join(values), "uint8").reshape(len(values), -1))


class Icechunk(Zarr):
    """The same array in a repository of Icechunk; a flush is a commit."""

    def __init__(self, server: Server, port: int) -> None:
        super().__init__(server, port)
        import icechunk

        self.icechunk = icechunk
        self.name = f"icechunk {icechunk.__version__}"
        self.what = "the same array in a repository, committed"

    def _storage(self, port: int | None = None) -> Any:
        options = self.server.options(port)
        return self.icechunk.s3_storage(
            bucket=self.server.bucket,
            prefix=self.place,
            region=options["region"],
            endpoint_url=options["endpoint"],
            access_key_id=self.server.key,
            secret_access_key=self.server.secret,
            allow_http=True,
            force_path_style=True,
        )

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        self.rows = {key: row for row, key in enumerate(keys)}
        session = self.icechunk.Repository.create(self._storage()).writable_session("main")
        self._write(session.store, values)
        session.commit("load")

    def open(self) -> None:
        repository = self.icechunk.Repository.open(self._storage(self.port))
        self.array = self.zarr.open_array(repository.readonly_session("main").store, mode="r")

    def open_writer(self) -> None:
        repository = self.icechunk.Repository.open(self._storage(self.port))
        self.session = repository.writable_session("main")
        self.array = self.zarr.open_array(self.session.store, mode="r+")

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        super().flush(keys, values)
        self.session.commit("flush")


class Objects(Kept):
    """A key is an object: no more are kept than are asked for at once, and nothing is scanned."""

    most = 10_000
    scans = False

    def __init__(self, server: Server, port: int) -> None:
        super().__init__(server, port)
        import obstore

        self.obstore = obstore
        self.name = f"objects by obstore {obstore.__version__}"
        self.what = f"an object a key, {CONNECTIONS} requests at once"

    def _store(self, port: int | None = None) -> Any:
        from obstore.store import S3Store

        options = self.server.options(port)
        return S3Store(
            self.server.bucket, prefix=self.place, client_options={"allow_http": True}, **options
        )

    def _all(self, work: Any, *columns: list[Any]) -> list[Any]:
        async def limited() -> list[Any]:
            turns = asyncio.Semaphore(CONNECTIONS)

            async def one(*cells: Any) -> Any:
                async with turns:
                    return await work(*cells)

            return await asyncio.gather(*map(one, *columns))

        return asyncio.run(limited())

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        self.store = self._store()
        self.flush(keys, values)

    def open(self) -> None:
        self.store = self._store(self.port)

    open_writer = open

    def get(self, key: bytes) -> bytes:
        return bytes(self.store.get(key.decode()).bytes())

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        async def one(key: bytes) -> bytes:
            return bytes(await (await self.store.get_async(key.decode())).bytes_async())

        return self._all(one, keys)

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        self._all(lambda key, value: self.store.put_async(key.decode(), value), keys, values)


class S3fs(Kept):
    """The same by s3fs, with as many requests at once as it makes: a minute for 10,000, which it is not asked for."""

    most = 100
    scans = False

    def __init__(self, server: Server, port: int) -> None:
        super().__init__(server, port)
        import s3fs

        self.s3fs = s3fs
        self.name = f"objects by s3fs {s3fs.__version__}"
        self.what = "an object a key, cat and pipe"

    def _files(self, port: int | None = None) -> Any:
        options = self.server.options(port)
        return self.s3fs.S3FileSystem(
            key=self.server.key,
            secret=self.server.secret,
            endpoint_url=options["endpoint"],
            client_kwargs={"region_name": options["region"]},
            skip_instance_cache=True,
        )

    def _paths(self, keys: list[bytes]) -> list[str]:
        return [f"{self.server.bucket}/{self.place}/{key.decode()}" for key in keys]

    def load(self, keys: list[bytes], values: list[bytes]) -> None:
        self.files = self._files()
        self.flush(keys, values)

    def open(self) -> None:
        self.files = self._files(self.port)

    open_writer = open

    def get(self, key: bytes) -> bytes:
        value: bytes = self.files.cat_file(self._paths([key])[0])
        return value

    def get_many(self, keys: list[bytes]) -> list[bytes]:
        paths = self._paths(keys)
        found = self.files.cat(paths)
        return [found[path] for path in paths]

    def flush(self, keys: list[bytes], values: list[bytes]) -> None:
        self.files.pipe(dict(zip(self._paths(keys), values, strict=True)))


KEPT = (Tilekv, TileDB, Zarr, Icechunk, Objects, S3fs)
