"""What lies at URIs: groups, and removing, moving, listing and walking."""

from pathlib import Path

import pytest

import tilekv
from tilekv import (
    TILEDB_POSTORDER,
    TILEDB_PREORDER,
    Attr,
    Ctx,
    Object,
    ObjectIter,
    create_group,
    group_create,
    object_type,
)

ctx = Ctx()
Kind = Object.Type


def make(uri: Path | str) -> str:
    with tilekv.open(uri, "x", schema=tilekv.Schema([Attr("a", bytes)])) as db:
        db["k"] = b"v"
    return str(uri)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """top/ (one, sub/ (two, empty/)), and beside them what is neither store nor group."""
    root = tmp_path / "root"
    root.mkdir()
    group_create(root / "top", ctx=ctx)
    group_create(ctx, str(root / "top" / "sub"))
    create_group(ctx, str(root / "top" / "sub" / "empty"))
    make(root / "top" / "one")
    make(root / "top" / "sub" / "two")
    (root / "other").mkdir()
    (root / "file").write_bytes(b"")
    return root


def names(tree: Path, found: list[tuple[str, str]]) -> list[tuple[str, str]]:
    return [(str(Path(uri).relative_to(tree)), kind) for uri, kind in found]


def test_kinds(tree: Path) -> None:
    assert object_type(tree / "top") == "group"
    assert object_type(tree / "top" / "one", ctx) == "kv"
    assert object_type(tree) is object_type(tree / "other") is object_type(tree / "file") is None
    assert [
        Object.object(ctx, each).type() for each in (tree / "top", tree / "top" / "one", tree)
    ] == [
        Kind.Group,
        Kind.KeyValue,
        Kind.Invalid,
    ]
    assert [kind.value for kind in Kind] == [1, 2, 3]
    assert str(Object.object(ctx, "/no/where")) == 'Obj<INVALID "/no/where">'
    with pytest.raises(FileNotFoundError):
        tilekv.KV(str(tree / "top"))
    for uri in (tree / "top", tree / "top" / "one", tree / "other" / "x" / "y"):
        with pytest.raises(OSError):  # noqa: PT011 - taken, taken, no folder to make it in
            group_create(uri)


def test_ls_and_walk(tree: Path) -> None:
    found: list[tuple[str, str]] = []

    def note(uri: str, kind: str) -> None:
        found.append((uri, kind))

    tilekv.ls(tree, note)
    assert names(tree, found) == [("top", "group")]
    found.clear()
    tilekv.ls(tree / "top", note, ctx=ctx)
    assert names(tree, found) == [("top/one", "kv"), ("top/sub", "group")]
    found.clear()
    tilekv.walk(tree, note)
    preorder = ["top", "top/one", "top/sub", "top/sub/empty", "top/sub/two"]
    assert [uri for uri, _ in names(tree, found)] == preorder
    found.clear()
    tilekv.walk(tree, note, "postorder", ctx)
    postorder = ["top/one", "top/sub/empty", "top/sub/two", "top/sub", "top"]
    assert [uri for uri, _ in names(tree, found)] == postorder
    found.clear()

    def first(uri: str, kind: str) -> None:
        note(uri, kind)
        raise StopIteration

    tilekv.walk(tree, first)
    assert len(found) == 1
    with pytest.raises(ValueError, match="'preorder' or 'postorder'"):
        tilekv.walk(tree, note, order="sideways")
    with pytest.raises(FileNotFoundError):
        tilekv.ls(tree / "nothing", note)
    with pytest.raises(ZeroDivisionError):
        tilekv.ls(tree, lambda uri, kind: 1 // 0)

    objects = ObjectIter(ctx, str(tree))
    assert [each.uri() for each in objects] == [str(tree / "top")]
    objects.set_recursive()
    assert [str(Path(each.uri()).relative_to(tree)) for each in objects] == preorder
    objects.set_recursive(TILEDB_POSTORDER)
    assert [str(Path(each.uri()).relative_to(tree)) for each in objects] == postorder
    objects.set_iter_policy(False, False, True)
    assert [each.type() for each in objects] == [Kind.KeyValue] * 2
    objects.set_non_recursive()
    assert list(objects) == []
    assert (TILEDB_PREORDER, TILEDB_POSTORDER) == (0, 1)
    with pytest.raises(ValueError, match="TILEDB_PREORDER"):
        objects.set_recursive(2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="bools"):
        objects.set_iter_policy(1, True, True)  # type: ignore[arg-type]


def test_remove(tree: Path) -> None:
    tilekv.remove(tree / "top" / "one")
    assert not (tree / "top" / "one").exists()
    letter = tree / "top" / "sub" / "letter"
    letter.write_bytes(b"dear")
    with pytest.raises(ValueError, match="letter is no key-value store and no group"):
        Object.remove(ctx, str(tree / "top"))
    letter.unlink()
    (tree / "top" / "sub" / "empty" / "folder").mkdir()
    with pytest.raises(ValueError, match="folder is no key-value store"):
        Object.remove(ctx, str(tree / "top"))
    assert object_type(tree / "top" / "sub" / "two") == "kv"
    (tree / "top" / "sub" / "empty" / "folder").rmdir()
    Object.remove(ctx, str(tree / "top"))
    assert sorted(each.name for each in tree.iterdir()) == ["file", "other"]
    for uri in (tree / "top", tree / "other", tree / "file"):
        with pytest.raises(FileNotFoundError, match="no key-value store and no group"):
            tilekv.remove(uri, ctx=ctx)


def test_move(tree: Path) -> None:
    one = tree / "top" / "one"
    with tilekv.open(one) as reader:
        tilekv.move(ctx, one, tree / "moved")
        assert reader["k"] == b"v"
    assert not one.exists()
    Object.move(ctx, str(tree / "top"), str(tree / "other" / "top"))
    with tilekv.open(tree / "other" / "top" / "sub" / "two") as db:
        assert db["k"] == b"v"
    with pytest.raises(FileExistsError, match=r"something at .*moved"):
        tilekv.move(tree / "other" / "top", tree / "moved")
    with pytest.raises(FileNotFoundError, match="no key-value store and no group"):
        tilekv.move(tree / "top", tree / "x")
    with pytest.raises(ValueError, match="between a folder, memory and object storage"):
        tilekv.move(tree / "moved", "memory://moved")


def test_in_memory() -> None:
    make("memory://here")
    make("memory://taken")
    tilekv.move("memory://here", "memory://there")
    assert (object_type("memory://here"), object_type("memory://there")) == (None, "kv")
    with pytest.raises(FileExistsError):
        tilekv.move("memory://there", "memory://taken")
    tilekv.remove("memory://there")
    assert object_type("memory://there") is None
