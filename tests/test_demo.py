"""The pieces of `make demo` on small input: what they count, and that they notice a difference."""

import importlib.util
import os
from pathlib import Path

import pytest
from PIL import Image

import tilekv

FILE = Path(__file__).parents[1] / "demo" / "run.py"


@pytest.fixture(scope="module")
def demo():
    spec = importlib.util.spec_from_file_location("demo_run", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    folder.mkdir()
    noise = Image.frombytes("RGB", (200, 100), os.urandom(60_000))
    noise.save(folder / "lossless.png")
    noise.save(folder / "lossy.jpg")
    noise.convert("RGBA").save(folder / "transparent.png")
    noise.convert("P").save(
        folder / "moving.gif", save_all=True, append_images=[noise.rotate(90).convert("P")]
    )
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "notes.txt").write_bytes(b"no picture either")
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "tree"
    (folder / "a").mkdir(parents=True)
    for i in range(30):
        (folder / "a" / f"file{i}").write_bytes(b"text %d\n" % i * i)
    (folder / "link").symlink_to("a")
    return folder


def test_pictures(demo, pictures, tmp_path, capsys) -> None:
    demo.show_pictures(pictures, tmp_path / "pictures.kv")
    out = capsys.readouterr().out
    assert out.count("every pixel equal") == 4
    assert "4 pictures, 100,000 pixels compared" in out  # the GIF has two frames
    assert "left out: broken.png" in out
    size = sum(path.stat().st_size for path in pictures.iterdir() if path.name in out)
    size -= (pictures / "broken.png").stat().st_size
    assert f"{size:,} bytes  the files" in out
    with tilekv.open(tmp_path / "pictures.kv") as db:
        assert {row["width"] for row in db.values()} == {200}
        assert {row["height"] for row in db.values()} == {100}


def test_a_changed_pixel_is_noticed(demo, pictures) -> None:
    path = pictures / "lossless.png"
    row = demo.picture_row(path)
    assert demo.compare_picture(path, row) == 20_000
    with Image.open(path) as image:
        image.putpixel((3, 4), tuple(255 - level for level in image.getpixel((3, 4))))
        image.save(path)
    other = demo.picture_row(path)
    with pytest.raises(demo.Differs, match=r"lossless\.png: pixels differ"):
        demo.compare_picture(path, row)
    with pytest.raises(demo.Differs, match="thumbnail"):
        demo.compare_picture(
            path, other | {"thumbnail": demo.picture_row(pictures / "transparent.png")["thumbnail"]}
        )
    with pytest.raises(demo.Differs, match="stored as 7 x 100"):
        demo.compare_picture(path, other | {"width": 7})


def test_without_a_server(demo, pictures, tmp_path, monkeypatch, capsys) -> None:
    """One line says so."""
    monkeypatch.setattr(demo.sys, "executable", str(tmp_path / "python"))
    demo.show_bucket(pictures)
    out = capsys.readouterr().out
    assert out.startswith("  left out: pip did not install ")
    assert out.count("\n") == 1


def test_tree(demo, tree, tmp_path, capfd) -> None:
    demo.show_tree(tree, tmp_path / "tree.kv")
    captured = capfd.readouterr()
    size = sum(path.stat().st_size for path in (tree / "a").iterdir())
    assert "30 files read back and compared: every byte equal" in captured.out
    assert f"{size:,} bytes  the files" in captured.out
    assert "1 symbolic link left out" in captured.out
    assert "30/30 files" in captured.err
    with pytest.raises(demo.Differs, match="exit code 1"):
        demo.show_tree(tree / "gone", tmp_path / "gone.kv")


def test_differences_in_a_tree_are_noticed(demo, tree, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(demo, "BATCH_FILES", 4)
    monkeypatch.setattr(demo, "BATCH_BYTES", 500)
    with tilekv.open(tmp_path / "tree.kv", "x") as db:
        db.update(
            {
                path.relative_to(tree).as_posix(): path.read_bytes()
                for path in demo.regular_files(tree)
            }
        )
        assert demo.compare_tree(tree, db)[0] == 30
        (tree / "a" / "file29").write_bytes(b"other")
        with pytest.raises(demo.Differs, match="file29"):
            demo.compare_tree(tree, db)
        (tree / "a" / "file29").unlink()
        with pytest.raises(demo.Differs, match="1 keys are no files, such as 'a/file29'"):
            demo.compare_tree(tree, db)
        db.clear()
        with pytest.raises(demo.Differs, match="29 files are not in the store"):
            demo.compare_tree(tree, db)
