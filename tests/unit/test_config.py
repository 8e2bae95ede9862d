"""Config.of: defaults, strings, and refusals that name the key."""

import dataclasses
import os
import pickle
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv import Ctx
from tilekv import config as module
from tilekv.config import UNSET, Config
from tilekv.errors import InvalidValueError, WrongTypeError

MIB = 1 << 20


def test_defaults() -> None:
    assert Config.of(None) == Config.of({}) == Config()
    assert Config().as_dict() == {
        "kv.buffer_bytes": 256 * MIB,
        "kv.cache_bytes": 256 * MIB,
        "kv.filters": 1 << 30,
        "kv.threads": 0,
        "kv.sync": True,
        "kv.mmap": True,
        "kv.max_mapped_fragments": 1000,
        "kv.max_fragment_bytes": 0,
        "kv.upkeep": "auto",
        "kv.history": "store",
    }


def test_options_that_are_words() -> None:
    config = Config({"kv.upkeep": "off", "kv.history": "3600"})
    assert (config.upkeep, config.history, config.history_ms) == ("off", 3600, 3_600_000)
    assert Config.of(config.as_dict()) == config
    assert (Config({"kv.history": "all"}).history_ms, Config().history_ms) == (None, UNSET)
    assert Config(upkeep="on")["kv.upkeep"] == "on"


def test_as_dict_goes_back() -> None:
    config = Config.of({"kv.sync": False, "kv.threads": 3, "kv.buffer_bytes": 5})
    assert Config.of(config.as_dict()) == config
    assert Config.of(config) == config
    assert Config.of(config) is not config
    assert config != Config()


def test_a_mapping_of_strings() -> None:
    config = Config()
    config["sm.tile_cache_size"] = 100
    config.update({"kv.sync": "false", "sm.num_tbb_threads": 3})
    assert (config.cache_bytes, config.sync, config.threads) == (100, False, 3)
    assert (config["sm.tile_cache_size"], config["kv.cache_bytes"]) == ("100", "100")
    assert (config["kv.sync"], config["kv.mmap"], config["kv.threads"]) == ("false", "true", "3")
    assert isinstance(config, Mapping)
    assert dict(config) == config.dict() == dict(config.items())
    assert Config(config.dict()) == Config(config) == config
    assert list(config) == list(config.keys()) == list(Config().as_dict())
    assert list(config.values("kv.s")) == ["false"]
    assert dict(config.items("kv.m")) == {
        "kv.max_fragment_bytes": "0",
        "kv.mmap": "true",
        "kv.max_mapped_fragments": "1000",
    }
    assert len(config) == 10
    assert "kv.threads" in config
    assert "sm.num_tbb_threads" in config
    assert "kv.thread" not in config
    assert config.get("kv.threads") == "3"
    assert config.get("kv.thread", 5) == 5
    with pytest.raises(KeyError):
        config["kv.thread"]
    del config["sm.tile_cache_size"]
    assert config.cache_bytes == Config().cache_bytes
    with pytest.raises(InvalidValueError, match=r"nearest is 'kv\.threads'"):
        del config["kv.thread"]
    with pytest.raises(InvalidValueError, match=r"nearest is 'kv\.threads'"):
        config["kv.thread"] = 1
    with pytest.raises(InvalidValueError, match="same option"):
        config.update({"kv.threads": 1, "sm.num_tbb_threads": 2})
    assert config.threads == 3
    config.clear()
    assert config == Config()
    with pytest.raises(TypeError, match="unhashable"):
        hash(config)


def test_a_handle_has_a_copy() -> None:
    config = Config(threads=2)
    ctx = Ctx(config)
    with tilekv.open("memory://copy", "a", config=config) as db:
        config["kv.threads"] = 5
        ctx.config()["kv.threads"] = 6
        assert db._config.threads == ctx.config().threads == 2
        assert pickle.loads(pickle.dumps(db))._config == db._config


def test_options_of_tiledb_without_effect(caplog: pytest.LogCaptureFixture) -> None:
    module._LOGGED.clear()
    config = Config({"sm.dedup_coords": True, "vfs.s3.proxy_password": "secret"})
    config["sm.consolidation.steps"] = 7
    again = Config(config)
    assert [record.getMessage().split()[2] for record in caplog.records] == [
        "sm.dedup_coords",
        "vfs.s3.proxy_password",
        "sm.consolidation.steps",
    ]
    assert again["sm.dedup_coords"] == "true"
    assert again["sm.consolidation.steps"] == "7"
    assert dict(again.items("sm.")) == {"sm.dedup_coords": "true", "sm.consolidation.steps": "7"}
    assert again == config != Config()
    assert pickle.loads(pickle.dumps(config)) == config
    assert "secret" not in repr(config) + repr(Ctx(config)) + caplog.text
    del again["sm.dedup_coords"]
    assert "sm.dedup_coords" not in again
    with pytest.raises(KeyError):
        again["sm.dedup_coords"]
    with pytest.raises(WrongTypeError, match=r"sm\.memory_budget is a string"):
        Config({"sm.memory_budget": [1]})


@pytest.mark.parametrize("key", ["sm.foo", "vfs.s3.prosy_host", "rest.", "sm.dedup_coord"])
def test_unknown_keys_that_are_not_tiledbs(key: str) -> None:
    with pytest.raises(InvalidValueError, match="there is no config key"):
        Config({key: "1"})


def test_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Config().sync = False  # type: ignore[misc]


@pytest.mark.parametrize(
    ("value", "number"),
    [
        (7, 7),
        (np.int32(8), 8),
        ("9", 9),
        (" 64 MiB ", 64 * MIB),
        ("64mib", 64 * MIB),
        ("3 KB", 3000),
        ("2 GiB", 2 << 30),
        ("1TB", 10**12),
        ("10 B", 10),
    ],
)
def test_sizes(value: object, number: int) -> None:
    assert Config.of({"kv.cache_bytes": value}).cache_bytes == number


@pytest.mark.parametrize(
    ("value", "truth"), [(True, True), (False, False), ("true", True), (" FALSE", False)]
)
def test_bools(value: object, truth: bool) -> None:
    assert Config.of({"kv.mmap": value}).mmap is truth


@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("kv.buffer_bytes", 0, InvalidValueError),
        ("kv.buffer_bytes", -1, InvalidValueError),
        ("kv.buffer_bytes", 1 << 51, InvalidValueError),
        ("kv.buffer_bytes", "64 XiB", InvalidValueError),
        ("kv.buffer_bytes", "1e6", InvalidValueError),
        ("kv.buffer_bytes", "-1 MiB", InvalidValueError),
        ("kv.buffer_bytes", "", InvalidValueError),
        ("kv.buffer_bytes", "9" * 5000, InvalidValueError),
        ("kv.buffer_bytes", 1.5, WrongTypeError),
        ("kv.buffer_bytes", True, WrongTypeError),
        ("kv.buffer_bytes", None, WrongTypeError),
        ("kv.threads", "4 MiB", InvalidValueError),
        ("kv.threads", -1, InvalidValueError),
        ("kv.threads", 5000, InvalidValueError),
        ("kv.upkeep", "sometimes", InvalidValueError),
        ("kv.upkeep", True, InvalidValueError),
        ("kv.upkeep", 5, InvalidValueError),
        ("kv.history", "long", InvalidValueError),
        ("kv.history", -5, InvalidValueError),
        ("kv.history", 1.5, WrongTypeError),
        ("kv.sync", 1, WrongTypeError),
        ("kv.sync", "yes", InvalidValueError),
        ("kv.max_mapped_fragments", 1 << 31, InvalidValueError),
    ],
)
def test_refused_values_name_the_key(key: str, value: object, error: type[Exception]) -> None:
    with pytest.raises(error, match=key):
        Config.of({key: value})


@pytest.mark.parametrize(
    ("key", "nearest"),
    [
        ("kv.buffer_byte", "kv.buffer_bytes"),
        ("buffer_bytes", "kv.buffer_bytes"),
        ("kv.max_mapped_fragment", "kv.max_mapped_fragments"),
        ("zzz", ""),  # none is near: any will do
    ],
)
def test_unknown_keys_name_the_nearest(key: str, nearest: str) -> None:
    with pytest.raises(InvalidValueError, match=f"{key}.*nearest is '{nearest}"):
        Config.of({key: 1})


@pytest.mark.parametrize("source", [5, "kv.sync", [("kv.sync", True)], {1: 2}])
def test_wrong_sources(source: Any) -> None:
    with pytest.raises(WrongTypeError, match="config"):
        Config.of(source)


def test_direct_construction_is_checked_too() -> None:
    with pytest.raises(InvalidValueError, match=r"kv\.threads"):
        Config(threads=-1)


def test_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Config(threads=5).usable_threads == 5
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {1, 4, 9}, raising=False)
    assert Config().usable_threads == 3
    monkeypatch.delattr(os, "sched_getaffinity")
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert Config().usable_threads == 1
