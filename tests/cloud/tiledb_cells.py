"""What today's TileDB shows of a store where it lies, in a process of its own."""

import json
import os
import subprocess
import sys
from pathlib import Path

from s3_server import S3Server

READER = Path(__file__).parents[1] / "support" / "tiledb_reader.py"
DELETED = 0x80


def live_cells(uri: str, out: Path, server: S3Server | None = None) -> dict[bytes, bytes]:
    """Values by the keys' bytes, deletes left out. `out`: a file to be written; `server`: of a store in its bucket."""
    config = {} if server is None else {
        "vfs.s3.endpoint_override": f"127.0.0.1:{server.port}",
        "vfs.s3.scheme": "http",
        "vfs.s3.use_virtual_addressing": "false",
        "vfs.s3.region": "us-east-1",
        "vfs.s3.aws_access_key_id": server.key,
        "vfs.s3.aws_secret_access_key": server.secret,
    }  # fmt: skip
    environment = os.environ | {"READER_CONFIG": json.dumps(config)}
    subprocess.run([sys.executable, "-P", READER, uri, out], check=True, env=environment)
    columns = json.loads(out.read_text())["columns"]
    cells = [
        [bytes.fromhex(cell) for cell in columns[name]["cells"]]
        for name in ("__key", "__key_type", "value")
    ]
    live = [(key, value) for key, kind, value in zip(*cells, strict=True) if not kind[0] & DELETED]
    assert len(dict(live)) == len(live)
    return dict(live)
