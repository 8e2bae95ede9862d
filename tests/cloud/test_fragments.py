"""The way of a fragment in a bucket: who sees it when, whoever sleeps or dies on the way."""

import json
import time
from typing import Any

import pytest

import tilekv
from bucket_stores import OFF, Bucket
from storage_contract import FILES, fill
from tilekv.names import FRAGMENT_METADATA, FragmentName
from tilekv.storage import objectdraft, objectlock, objectstore, open_storage
from tilekv.storage.objectstore import ObjectStorage


@pytest.fixture
def bucket(memory_bucket: str) -> Bucket:
    return Bucket(memory_bucket)


@pytest.fixture
def storage(bucket: Bucket) -> ObjectStorage:
    storage: ObjectStorage = bucket.storage(bucket.new())
    assert storage.create(FILES, replace=False)
    return storage


def again(storage: ObjectStorage) -> ObjectStorage:
    """As another process sees it."""
    found = open_storage(storage.uri)
    assert isinstance(found, ObjectStorage)
    return found


def put(storage: ObjectStorage, t: int, staged: bool = False) -> str:
    name = str(FragmentName.new(t))
    draft = storage.draft(staged)
    try:
        fill(draft, data=b"12", **{FRAGMENT_METADATA: b"metadata"})
        draft.commit(name)
    finally:
        draft.abandon()
    return name


def keys(storage: ObjectStorage, place: str = "") -> set[str]:
    return {key for key in storage.client.list_all(storage.data) if key.startswith(place)}


def test_the_way(storage: ObjectStorage) -> None:
    """Stage, root, past: found by name at every step, listed in the root alone."""
    name = put(storage, 1, staged=True)
    where = [storage.staged, lambda: again(storage).list().folders, storage.past]
    for step, move in enumerate((lambda _: None, storage.show, storage.set_aside)):
        move([name])
        move([name])
        assert [found() == (name,) for found in where] == [i == step for i in range(3)]
        for each in (storage, again(storage)):
            assert each.files(name) == {"data": 2, FRAGMENT_METADATA: 8}
            files = each.open_files(name, True)
            assert {file: view.read(0, view.size) for file, view in files.items()} == {
                "data": b"12",
                FRAGMENT_METADATA: b"metadata",
            }
    storage.reclaim(storage.retire([name]))
    assert [found() for found in where] == [(), (), ()]
    with pytest.raises(FileNotFoundError):
        again(storage).files(name)
    assert keys(storage, name) == set()


def test_what_was_not_completed(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who dies between a copy and a delete leaves metadata in two places: the later one counts."""
    name = put(storage, 1, staged=True)
    client = storage.client
    with monkeypatch.context() as patch:
        patch.setattr(client, "delete", lambda keys: None)
        storage.show([name])
    other = again(storage)
    assert other.staged() == (name,)
    other.show([name])
    assert (other.staged(), other.list().folders) == ((), (name,))
    with monkeypatch.context() as patch:
        patch.setattr(client, "delete", lambda keys: None)
        other.set_aside([name])
    third = again(storage)
    assert (third.past(), third.list().folders) == ((name,), ())
    assert f"{name}/{FRAGMENT_METADATA}" in keys(storage)
    # Before another one leaves the root: TileDB would take the old one for newer.
    second = put(storage, 2)
    third.set_aside([second])
    assert f"{name}/{FRAGMENT_METADATA}" not in keys(storage)


def test_a_copy_that_comes_late_shows_nothing(storage: ObjectStorage) -> None:
    name = put(storage, 1, staged=True)
    late = again(storage)
    storage.show([name])
    storage.set_aside([name])
    late.show([name])
    assert late.list().folders == ()
    storage.reclaim(storage.retire([name]))
    late.set_aside([name])
    assert (late.past(), again(storage).past()) == ((), ())


def test_what_was_removed_is_seen_by_nobody(storage: ObjectStorage) -> None:
    """Not by who knows it from before, and not while its data is still there."""
    name = put(storage, 1)
    other = again(storage)
    assert other.list().folders == (name,)
    assert storage.retire([name]) == [name]
    assert f"{name}/data" in keys(storage)
    for each in (storage, other, again(storage)):
        assert each.list().folders == ()
        with pytest.raises(FileNotFoundError):
            each.files(name)
    # Whoever comes next finds the mark when it is old, and removes what is left.
    assert again(storage).abandoned(0) == []
    let_pass(other)
    found = other.abandoned(0)
    assert found == [f".tilekv/gone/{name}"]
    other.reclaim(found)
    assert keys(storage, name) | keys(storage, ".tilekv/gone") == set()


def test_what_was_shown_long_ago_is_doubted(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some servers go on listing prefixes in which nothing is left, longer than the mark of what is gone."""
    name = put(storage, 1)
    other = again(storage)
    assert other.list().folders == (name,)
    storage.reclaim(storage.retire([name]))
    storage.client.delete([f"{storage.aside}gone/{name}"])
    folders, files = storage.client.list_folder(storage.root)
    monkeypatch.setattr(storage.client, "list_folder", lambda prefix: ([*folders, name], files))
    other._looked -= 301
    assert other.list().folders == again(storage).list().folders == ()


def let_pass(storage: ObjectStorage, ms: int = 3_600_000) -> None:
    """An hour passes at the server, as far as this storage knows."""
    storage.now()
    assert storage._clock is not None
    here, there = storage._clock
    storage._clock = here, there + ms


def test_what_was_broken_off(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Data without metadata is no fragment; it goes when nobody has written to it for as long as that is asked."""

    def die(*_: object) -> None:
        raise KeyboardInterrupt

    draft = storage.draft()
    fill(draft, data=b"12", **{FRAGMENT_METADATA: b"metadata"})
    with monkeypatch.context() as patch:
        patch.setattr(storage.client, "copy", die)
        patch.setattr(draft, "abandon", lambda: None)
        name = str(FragmentName.new(1))
        with pytest.raises(KeyboardInterrupt):
            draft.commit(name)
    for writer in (draft._files or {}).values():
        writer.free()
    whole = put(storage, 2)
    other = again(storage)
    assert other.list().folders == (whole,)
    assert other.abandoned(3600) == []
    let_pass(other, 3_700_000)
    found = other.abandoned(3600)
    assert {each.rpartition("/")[0] or each for each in found} == {".tilekv/choosing", name}
    other.reclaim(found)
    assert other.list().folders == again(storage).list().folders == (whole,)
    assert keys(storage, name) | keys(storage, ".tilekv/choosing") == set()


def test_settled_is_what_came_before_the_drafts(storage: ObjectStorage) -> None:
    """In whole seconds, which is all that servers tell."""
    old = put(storage, 1)
    time.sleep(1.1)
    draft = storage.draft()
    draft.create("data")
    other = again(storage)
    assert other.settled([old]) == {old}
    draft.create(FRAGMENT_METADATA)
    new = put(storage, 2)
    assert other.list().folders == (old, new)
    assert other.settled([old, new]) == {old}
    draft.abandon()
    assert other.settled([old, new]) == {old, new}


def test_a_draft_that_sleeps_does_not_appear(storage: ObjectStorage) -> None:
    """However late its requests come."""
    old = put(storage, 1)
    draft = storage.draft()
    fill(draft, data=b"12", **{FRAGMENT_METADATA: b"metadata"})
    other = again(storage)
    assert other.settled([old]) == frozenset()
    let_pass(other, 62_000)
    assert other.settled([old]) == {old}
    name = str(FragmentName.new(1))
    with pytest.raises(FileNotFoundError, match="slept"):
        draft.commit(name)
    draft.abandon()
    assert other.list().folders == (old,)
    assert keys(storage, name) == set()


def test_a_draft_that_is_stopped_between_its_look_and_its_copy(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = put(storage, 1)
    draft = storage.draft()
    fill(draft, data=b"12", **{FRAGMENT_METADATA: b"metadata"})
    other = again(storage)
    let_pass(other, 62_000)
    copy = storage.client.copy

    def late(key: str, to: str) -> None:
        assert other.settled([old]) == {old}
        copy(key, to)

    monkeypatch.setattr(storage.client, "copy", late)
    with pytest.raises(FileNotFoundError):
        draft.commit(str(FragmentName.new(1)))
    draft.abandon()
    assert other.list().folders == (old,)


def test_a_slow_upload_shows_that_it_goes_on(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectdraft, "RENEW_S", 0.01)
    monkeypatch.setattr(objectdraft, "TOGETHER", 1)
    seen: set[str] = set()
    real = objectdraft.ObjectWriter.put

    def slow(*arguments: Any) -> None:
        time.sleep(0.1)
        seen.update(keys(storage, ".tilekv/choosing"))
        real(*arguments)

    monkeypatch.setattr(objectdraft.ObjectWriter, "put", slow)
    name = put(storage, 1)
    assert [key for key in seen if key.endswith(".alive")]
    assert storage.list().folders == (name,)
    assert keys(storage, ".tilekv/choosing") == set()


@pytest.mark.parametrize("large", [False, True])
def test_a_flush_is_put_twice_at_most(
    bucket: Bucket, monkeypatch: pytest.MonkeyPatch, large: bool
) -> None:
    """A small one when others have flushed between its choice and its look; a large one looks first, and once is enough."""
    uri = bucket.new()
    monkeypatch.setattr("tilekv.commit.SYNC_FIRST", 1 if large else 1 << 20)
    offers: list[str] = []
    inside: list[bool] = []
    real = objectdraft.ObjectDraft.offer
    bucket.open(uri, "x", config=OFF).close()

    def offer(self: Any, name: str, metadata: bytes) -> Any:
        if not inside:
            offers.append(name)
            inside.append(True)
            with bucket.open(uri, "a", config=OFF) as other:
                other["k"] = b"other"
            inside.clear()
        return real(self, name, metadata)

    with monkeypatch.context() as patch, bucket.open(uri, "a", config=OFF) as db:
        patch.setattr(objectdraft.ObjectDraft, "offer", offer)
        db["mine"] = b"1"
    assert len(offers) == (1 if large else 2)
    assert bucket.items(uri) == {"k": b"other", "mine": b"1"}
    storage = bucket.storage(uri)
    found = storage.list().folders
    assert len(found) == 1 + len(offers)
    assert {key.partition("/")[0] for key in keys(storage) if key.startswith("__1")} == {*found}


def test_a_draft_looks_what_there_is(storage: ObjectStorage) -> None:
    """And goes to another name when its time is not the latest."""
    other = put(storage, 7)
    draft = storage.draft()
    fill(draft, data=b"12")
    names = [str(FragmentName.new(t)) for t in (6, 8)]
    for name in names:
        offer = draft.offer(name, b"metadata")
        assert (other in offer.names, offer.record) == (True, None)
        assert name not in again(storage).list().folders
    assert keys(storage, names[0]) == set()
    draft.commit(names[1])
    assert again(storage).list().folders == (other, names[1])
    record = b'{\n "seq": 1,\n "token": "a"\n}\n'
    assert again(storage).replace_record(1, record)
    for draft in (storage.draft(), storage.draft()):
        offer = draft.offer(str(FragmentName.new(9)), b"metadata")
        assert offer.record == (1, record)
        draft.abandon()


def test_an_upload_of_half_a_day_does_not_count(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectdraft, "UPLOAD_S", -1)
    with pytest.raises(OSError, match="so long"):
        put(storage, 1)
    assert again(storage).list().folders == ()


def test_the_lock_ends_with_its_holder(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = again(storage)
    with storage.lock() as held, other.lock() as second:
        assert (held, second) == (True, False)
    with other.lock() as held:
        assert held
        let_pass(storage, 59_000)
        with storage.lock() as second:
            assert not second
        let_pass(storage, 2_000)
        with storage.lock() as second:
            assert second
    monkeypatch.setattr(objectlock, "LEASE_S", 0.2)
    with storage.lock() as held, again(storage).lock() as second:
        assert held
        assert not second
        time.sleep(0.5)
        with again(storage).lock() as third:
            assert not third
    dead = json.dumps({"owner": f"{'0' * 32}-{dead_process()}", "until": 2**62}).encode()
    storage.client.put(f"{storage.aside}lock", dead)
    with storage.lock() as held:
        assert held


def dead_process() -> str:
    from tilekv.storage.process import process_name

    return f"{process_name()}0"


def test_the_record(storage: ObjectStorage) -> None:
    """Of those who have read the same one, one replaces it."""
    data = [b'{\n "seq": %d,\n "token": "a"\n}\n' % i for i in range(5)]
    other = again(storage)
    assert (storage.record(), storage.record_seq()) == (None, 0)
    assert storage.replace_record(1, data[1])
    assert not other.replace_record(1, data[1].replace(b"a", b"b"))
    assert other.record() == storage.record() == (1, data[1])
    assert other.replace_record(2, data[2])
    assert not storage.replace_record(2, data[2].replace(b"a", b"b"))
    assert storage.record_seq() == other.record_seq() == 2
    assert storage.replace_record(3, data[3])
    assert not other.replace_record(3, data[3].replace(b"a", b"b"))
    assert again(storage).record() == (3, data[3])
    # The answer was lost, and the request was made again.
    real = storage.client.put_if
    storage.client.put_if = lambda *a: real(*a) and None  # type: ignore[method-assign]
    try:
        assert storage.replace_record(4, data[4])
    finally:
        del storage.client.put_if
    assert other.record() == (4, data[4])


def test_a_store_that_was_copied_from_a_disk(bucket: Bucket, tmp_path: Any) -> None:
    """As other programs copy folders: with numbered records, and with the data of what is superseded aside."""
    with tilekv.open(tmp_path / "store", "x", config=OFF) as db:
        for i in range(3):
            db[f"{i}"] = b"%d" % i
            db.flush()
        moment = db.fragments[-1].t2
        db.consolidate()
        db["k"] = b"new"
    uri = bucket.new()
    storage = bucket.storage(uri)
    for path in (tmp_path / "store").rglob("*"):
        if path.is_file():
            key = path.relative_to(tmp_path / "store")
            storage.client.put(storage.data + str(key), path.read_bytes())
    want = {"0": b"0", "1": b"1", "2": b"2", "k": b"new"}
    assert bucket.items(uri) == want
    assert bucket.items(uri, timestamp=moment) == {"0": b"0"}
    assert tilekv.verify(uri) == []
    with bucket.open(uri, "a", config=OFF) as db:
        db.consolidate()
        assert bucket.items(uri) == want
        db.vacuum()
    assert bucket.items(uri) == want
    assert tilekv.verify(uri) == []
    assert not [key for key in keys(storage) if "/past/" in key]


def test_the_time_of_the_server(storage: ObjectStorage) -> None:
    import obstore

    before = storage.now()
    assert abs(before - time.time() * 1000) < 10_000
    requests = []
    put = obstore.put
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(obstore, "put", lambda *a, **o: requests.append(a[1]) or put(*a, **o))
        assert storage.now() >= before
        assert requests == []

        def refuse(*_: object, **__: object) -> None:
            from obstore.exceptions import PermissionDeniedError

            raise PermissionDeniedError("read only")

        patch.setattr(obstore, "put", refuse)
        assert abs(again(storage).now() - time.time() * 1000) < 10_000


def test_a_damaged_creation_is_told(storage: ObjectStorage) -> None:
    storage.client.put(f"{storage.aside}creating", b"{}")
    with pytest.raises(tilekv.CorruptionError, match=r"\.tilekv/creating"):
        again(storage).list()


def test_a_replacement_that_died(storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new store is there from its first object on; the next writer removes what is left of the old one."""
    name = put(storage, 1)
    with monkeypatch.context() as patch:
        patch.setattr(objectstore, "settle", lambda *_: True)
        assert storage.create({"new": b"1"}, replace=True)
    assert name in {key.partition("/")[0] for key in keys(storage)}
    other = again(storage)
    assert other.list() == ((), ("new",))
    assert other.read("new") == b"1"
    with pytest.raises(FileNotFoundError):
        other.read("__schema.tdb")
    second = put(other, 2)
    assert again(storage).list() == ((second,), ("new",))
    assert keys(storage, name) == set()
    assert "__schema.tdb" not in keys(storage)


def test_whoever_completes_a_creation_late_changes_nothing(storage: ObjectStorage) -> None:
    from tilekv.storage.objectcreation import Creation, settle

    data = Creation({"new": b"1"}, replaces=True).to_bytes()
    assert not settle(storage.client, storage.root, data)
    assert storage.read("__schema.tdb") == b"schema"


def test_a_creation_that_came_too_late(bucket: Bucket, storage: ObjectStorage) -> None:
    """Its maker has died before it saw that another store is there: nobody sees anything of it."""
    from tilekv.storage.objectcreation import Creation

    late = Creation(
        {"__tilekv.json": b'{"id": "2"}', "new": b"1"}, ("folder",), "build-" + "0" * 32
    )
    storage.client.put(f"{storage.aside}creating", late.to_bytes())
    other = again(storage)
    assert other.list() == ((), tuple(FILES))
    name = put(other, 1)
    assert again(storage).list() == ((name,), tuple(FILES))
    with pytest.raises(FileNotFoundError):
        other.read("new")


def test_a_creation_that_somebody_ends_first(
    storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is no sign of a server that ignores conditions that the object which makes a store is gone already."""
    place = ObjectStorage(storage.client, "other")
    real = place.client.put_new
    done: list[str] = []

    def put_new(key: str, data: bytes) -> Any:
        found = real(key, data)
        if key.endswith("creating") and not done:
            done.append(key)
            ObjectStorage(storage.client, "other").help(key)
        return found

    monkeypatch.setattr(place.client, "put_new", put_new)
    assert place.create(FILES, replace=False)
    assert again(place).list().files == tuple(FILES)
    assert f"{place.aside}creating" not in place.client.list_all("")


def test_a_manifest(bucket: Bucket, monkeypatch: pytest.MonkeyPatch, tally: Any) -> None:
    """Of a store with many fragments; whatever it lacks, has too much or damaged, the same is read."""
    from tilekv.storage import objectlisting, objectmanifest

    monkeypatch.setattr(objectstore, "SPARED", 5)
    monkeypatch.setattr("tilekv.storage.objectclient.PAGE", 40)
    monkeypatch.setattr(objectlisting, "MOST", 80)
    uri = bucket.new()
    want = {}
    with bucket.open(uri, "x", config=OFF) as db:
        for i in range(20):
            db[f"{i}"] = want[f"{i}"] = b"%d" % i
            db.flush()
    storage = bucket.storage(uri)
    key = f"{storage.aside}manifest"
    manifest = objectmanifest.Manifest.of(storage.client.get(key))
    assert manifest is not None
    assert len(manifest.fragments) == 18
    asked = requests(bucket, uri, want, monkeypatch)
    assert len([each for each in asked if each.endswith(FRAGMENT_METADATA)]) == 2
    whole = storage.client.get(key).data
    for damaged in (b"", whole[:-9], b"x" + whole, objectmanifest.zlib.compress(b"{}")):
        storage.client.put(key, damaged)
        assert len(requests(bucket, uri, want, monkeypatch)) > 20
    storage.client.put(key, whole)
    with bucket.open(uri, "a", config=OFF) as db:
        for i in range(8):
            db["more"] = want["more"] = b"%d" % i
            db.flush()
        assert storage.client.get(key).data != whole
        db.flush()
        # What it lists is superseded, then gone.
        stale = storage.client.get(key).data
        db.consolidate()
        assert bucket.items(uri) == want
        db.vacuum()
        assert bucket.items(uri) == want
        storage.client.put(key, stale)
        assert bucket.items(uri) == want
        for i in range(30):
            db["again"] = want["again"] = b"%d" % i
            db.flush()
        assert bucket.items(uri) == want
        db.delete_many(["again"])
        del want["again"]
    assert bucket.items(uri) == want
    assert tilekv.verify(uri) == []
    bucket.open(uri, "w").close()
    assert bucket.items(uri) == {}


def requests(bucket: Bucket, uri: str, want: Any, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The objects that are asked for when a store is opened."""
    asked: list[str] = []
    with monkeypatch.context() as patch:
        real = objectstore.Client._call

        def call(self: Any, what: str, key: str, *rest: Any) -> Any:
            asked.append(key)
            return real(self, what, key, *rest)

        patch.setattr(objectstore.Client, "_call", call)
        db = bucket.open(uri)
        found = list(asked)
    with db:
        assert dict(db.items()) == want
    return found
