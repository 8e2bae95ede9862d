"""The last part of `make demo`: pictures through a bucket."""

import importlib.util
import re
from pathlib import Path

import pytest
from PIL import Image

from s3_server import S3Server

FILE = Path(__file__).parents[3] / "demo" / "run.py"


def test_pictures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = importlib.util.spec_from_file_location("demo_run", FILE)
    assert spec is not None
    assert spec.loader is not None
    demo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(demo)
    for level in (10, 200):
        Image.new("L", (30, 20), level).save(tmp_path / f"{level}.png")
    demo.show_bucket(tmp_path)
    out = capsys.readouterr().out
    assert "2 pictures, 1,200 pixels: every pixel equal" in out
    assert len(re.findall(r"^ +[1-9]\d* requests +[\d,]+ bytes", out, re.MULTILINE)) == 2

    def broken(self: S3Server) -> None:
        raise RuntimeError("the S3 server did not come up:\nwith a log")

    monkeypatch.setattr(S3Server, "__enter__", broken)
    demo.show_bucket(tmp_path)
    assert capsys.readouterr().out == "  left out: the S3 server did not come up:\n"
