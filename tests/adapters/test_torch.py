"""A store as a dataset of PyTorch: by real loaders, with workers of every kind, where torch is."""

from __future__ import annotations

import pickle
import sys
from collections import Counter
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tilekv
from tilekv.packedkeys import PackedKeys
from tilekv.torch import StoreDataset, WindowSampler

N = 3000
needs_torch = pytest.mark.skipif(
    find_spec("torch") is None, reason="there is no wheel of torch without CUDA here"
)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A store of N images with labels."""
    schema = tilekv.Schema([tilekv.Attr("image", "uint8", (4, 5)), tilekv.Attr("label", "int64")])
    with tilekv.open(tmp_path / "images.kv", "x", schema=schema) as db:
        images = np.arange(N, dtype=np.int64)[:, None, None] % 251 + np.zeros((N, 4, 5), int)
        names = [f"{i}.png" for i in range(N)]
        db.put_many(names, image=images.astype(np.uint8), label=np.arange(N))
    return tmp_path / "images.kv"


def label_of(row: dict[str, Any]) -> int:
    assert (row["image"] == row["label"] % 251).all()
    return int(row["label"])


# --- without torch ---


def test_samples_by_their_places(place: Path) -> None:
    dataset = StoreDataset(place)
    assert len(dataset) == N
    with tilekv.open(place) as db:
        assert list(dataset.keys) == list(db)
        for index in (0, N - 1, -1):
            sample = dataset[index]
            assert label_of(sample) == db[dataset.keys[index]]["label"]
            sample["image"][0] = 7  # it is the caller's own
        assert [row["label"] for row in dataset.__getitems__([5, 2])] == [
            db[dataset.keys[i]]["label"] for i in (5, 2)
        ]
    with pytest.raises(IndexError):
        dataset[N]
    assert len(list(dataset)) == N


def test_some_keys_and_attributes_transformed(place: Path) -> None:
    keys = ["7.png", "3.png", "7.png"]
    assert list(StoreDataset(place, keys=keys, transform=label_of)) == [7, 3, 7]
    assert StoreDataset(place, keys=keys, attrs=["label"])[1] == {"label": 3}
    with tilekv.open(place) as db:
        assert StoreDataset(db, keys=keys, transform=label_of)[0] == 7
    with pytest.raises(tilekv.KeyNotFoundError, match="none"):
        StoreDataset(place, keys=["none"])[0]
    with pytest.raises(tilekv.InvalidValueError, match="none"):
        StoreDataset(place, attrs=["none"])
    with pytest.raises(tilekv.WrongTypeError, match="transform"):
        StoreDataset(place, transform="label")  # type: ignore[arg-type]
    with pytest.raises(tilekv.StoreNotFoundError):
        StoreDataset(place / "none")


def test_it_shows_one_moment(place: Path) -> None:
    dataset = StoreDataset(place, attrs=["label"])
    index = list(dataset.keys).index("5.png")
    with tilekv.open(place, "a") as db:
        db.update_many(["5.png"], label=[-1])
        db["new.png"] = {"image": np.zeros((4, 5), np.uint8), "label": 0}
    assert dataset[index]["label"] == 5
    assert pickle.loads(pickle.dumps(dataset))[index]["label"] == 5
    newer = StoreDataset(place, attrs=["label"])
    assert len(newer) == N + 1
    assert newer[list(newer.keys).index("5.png")]["label"] == -1


def test_keys_cost_no_object_each(tmp_path: Path) -> None:
    n = 100_000
    with tilekv.open(tmp_path / "many.kv", "x", config={"kv.sync": False}) as db:
        db.put_many({f"key {i}": b"" for i in range(n)})
    dataset = StoreDataset(tmp_path / "many.kv")
    travelling = pickle.dumps(dataset)
    assert len(travelling) < n * (len("key 12345") + 1 + 8) + 10_000
    before = sys.getallocatedblocks()
    copy = pickle.loads(travelling)
    assert sys.getallocatedblocks() - before < 2000
    assert copy.keys[n // 2] == dataset.keys[n // 2]


def test_packed_keys_are_of_any_type() -> None:
    keys = ["text", b"bytes", 7, -1, 2.5, "", b"", "ä", tilekv.Key(0, b"abcd")]
    packed = PackedKeys(keys)
    assert list(packed)[:8] == keys[:8]
    assert list(map(type, packed))[:8] == list(map(type, keys))[:8]
    assert packed[1:3] == keys[1:3]
    assert packed[-2] == "ä"
    assert packed.take([2, -2, 0]) == [7, "ä", "text"]
    assert packed.take([]) == []
    for beyond in (len(keys), -len(keys) - 1):
        with pytest.raises(IndexError):
            packed.take([0, beyond])
    with pytest.raises(IndexError):
        packed[len(keys)]
    with pytest.raises(tilekv.WrongTypeError):
        PackedKeys([None])
    assert list(PackedKeys([])) == []


def test_an_epoch_has_each_sample_once() -> None:
    sampler = WindowSampler(range(1000), window=64, seed=3)
    first = list(sampler)
    assert sorted(first) == list(range(1000))
    assert first == list(sampler) == list(WindowSampler(range(1000), window=64, seed=3))
    windows = [index // 64 for index in first]
    assert sum(a != b for a, b in pairwise(windows)) == 15  # from one to the next, and never back
    assert sorted(set(windows)) != list(dict.fromkeys(windows))
    sampler.set_epoch(1)
    second = list(sampler)
    assert sorted(second) == list(range(1000))
    assert second != first
    assert list(WindowSampler(range(1000), window=64, seed=4)) != first
    assert list(WindowSampler(range(5), window=64)) != [0, 1, 2, 3, 4, 5]


@pytest.mark.parametrize(("n", "world"), [(1000, 4), (1003, 4), (7, 3), (2, 5)])
def test_processes_share_an_epoch(n: int, world: int) -> None:
    whole = [WindowSampler(range(n), window=64, rank=rank, world=world) for rank in range(world)]
    parts = [list(sampler) for sampler in whole]
    assert {len(part) for part in parts} == {len(whole[0])} == {-(-n // world)}
    counts = Counter(index for part in parts for index in part)
    assert set(counts) == set(range(n))
    assert sum(counts.values()) - n < world
    less = [
        list(WindowSampler(range(n), window=64, rank=rank, world=world, drop_last=True))
        for rank in range(world)
    ]
    assert {len(part) for part in less} == {n // world}
    assert max(Counter(index for part in less for index in part).values(), default=1) == 1


@pytest.mark.parametrize("given", [0, 1, 63, 64, 500, 999, 1000])
def test_a_sampler_goes_on_where_another_was(given: int) -> None:
    def made(**options: int) -> WindowSampler:
        return WindowSampler(range(2000), window=64, rank=1, world=2, **options)

    sampler = made()
    sampler.set_epoch(7)
    order = list(sampler)
    going = iter(sampler)
    for _ in range(given):
        next(going)
    state = pickle.loads(pickle.dumps(sampler.state_dict()))
    other = made()
    other.load_state_dict(state)
    assert list(other) == order[given:]
    assert list(other) == order  # the next time from the beginning
    other.load_state_dict(sampler.state_dict(given=10))
    assert list(other) == order[10:]
    with pytest.raises(tilekv.InvalidValueError, match="different orders"):
        made(seed=1).load_state_dict(state)


@pytest.mark.parametrize("wrong", [{"window": 0}, {"rank": 1}, {"rank": -1}, {"seed": -1}])
def test_samplers_that_cannot_be(wrong: dict[str, int]) -> None:
    with pytest.raises(tilekv.InvalidValueError, match="rank is below world"):
        WindowSampler(range(10), **wrong)


# --- with torch ---


@needs_torch
@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_loader_goes_through_all(place: Path, method: str, workers: int) -> None:
    from torch.utils.data import DataLoader

    if workers == 0 and method != "fork":
        return
    dataset = StoreDataset(place)
    label_of(dataset[0])  # the parent has it open
    loader = DataLoader(
        dataset,  # type: ignore[arg-type]
        batch_size=64,
        sampler=WindowSampler(dataset, window=512),
        num_workers=workers,
        multiprocessing_context=method if workers else None,
        persistent_workers=workers > 0,
    )
    for _ in range(2):
        labels = []
        for batch in loader:
            assert batch["image"].shape[1:] == (4, 5)
            assert (batch["image"] == (batch["label"] % 251)[:, None, None]).all()
            labels += batch["label"].tolist()
        assert sorted(labels) == list(range(N))


@needs_torch
def test_it_trains(place: Path) -> None:
    import torch
    from torch.utils.data import DataLoader

    torch.manual_seed(0)
    dataset = StoreDataset(
        place, transform=lambda row: (torch.from_numpy(row["image"]).float(), row["label"])
    )
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(20, 1))
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    losses = []
    for epoch in range(3):
        sampler = WindowSampler(dataset)
        sampler.set_epoch(epoch)
        for images, labels in DataLoader(dataset, batch_size=100, sampler=sampler):  # type: ignore[arg-type]
            loss = ((model(images).squeeze(1) - (labels % 251)) ** 2).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert np.mean(losses[-10:]) < np.mean(losses[:10]) / 2
