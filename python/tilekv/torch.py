"""A store as a dataset of PyTorch, and an order to go through it (docs/torch.md).

Neither imports torch: its loaders take what has the methods of a dataset, and of a sampler.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np

from tilekv.arguments import NO_VALUE, truth, whole
from tilekv.config import Config
from tilekv.errors import InvalidValueError, KeyNotFoundError, WrongTypeError
from tilekv.packedkeys import PackedKeys
from tilekv.store import Store
from tilekv.store import open as open_store
from tilekv.tools.pinned import Pinned

WINDOW: Final = 8192  # samples


class StoreDataset:
    """A map-style dataset: sample `i` is the value of key `i`. All processes see the store as it was when this was made.

    It is made of a place, and opens the store when a sample is first asked for, in each process anew: workers may be forked or
    spawned. It travels as the names of fragments, and of keys as their bytes: a key is no Python object, here or in a worker. A
    loader's batch is one `Store.get_many`.

    Parameters
    ----------
    store : str, os.PathLike or Store
        Where it is; of an open handle its place and options.
    attrs : iterable of str, optional
        The attributes that are read; all unless given. Of several a sample is a dict.
    keys : iterable of keys, optional
        The samples, in this order. All keys unless given, in ascending order of their digests: that of the store's files.
    transform : callable, optional
        Makes the sample of a value. Arrays may be written to, as torch wants it.
    config : mapping, optional
        Options, as of `tilekv.open`. ``kv.threads`` is 1 unless this is given: a loader has workers.
    storage_options : mapping, optional
        Of a store on object storage. There workers are to be spawned, or come from a forkserver.

    Attributes
    ----------
    keys : PackedKeys
        A sequence.

    Raises
    ------
    StoreNotFoundError, FormatError, CorruptionError, MissingPackageError, InvalidValueError, WrongTypeError
        As of `tilekv.open`, and for arguments that are refused.
    """

    def __init__(
        self,
        store: str | os.PathLike[str] | Store,
        *,
        attrs: Iterable[str] | None = None,
        keys: Iterable[Any] | None = None,
        transform: Callable[[Any], Any] | None = None,
        config: Mapping[str, object] | Config | None = None,
        storage_options: Mapping[str, object] | None = None,
    ) -> None:
        if transform is not None and not callable(transform):
            raise WrongTypeError(f"transform is a function, not {type(transform).__name__}")
        if isinstance(store, Store):
            if storage_options is None:
                storage_options = store._storage_options
            store = store.uri
        self._transform = transform
        self._attrs = None if attrs is None else list(attrs)
        config = {"kv.threads": 1} if config is None else config
        with open_store(store, config=config, storage_options=storage_options) as seen:
            self._pinned = Pinned.of(seen)
        self._handle: Store | None = None
        db = self._db
        db.get_many([], attrs=self._attrs)  # refuses attributes that it has not
        self._has_arrays = any(
            attr.type_name not in ("bytes", "str") and (attr.var or attr.shape)
            for attr in db.schema.attrs
        )
        self.keys = PackedKeys(db if keys is None else keys, db._layout.numbers)

    @property
    def _db(self) -> Store:
        """The handle of this process: in a forked one a handle opens its files anew, in a spawned one there was none."""
        if self._handle is None:
            self._handle = self._pinned.handle()
        return self._handle

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def __len__(self) -> int:
        """How many samples there are."""
        return len(self.keys)

    def __getitem__(self, index: int) -> Any:
        """A sample. IndexError beyond the last; KeyNotFoundError for a key that was given and is not there."""
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[Any]:
        """Many samples, which are read together: what a loader asks for a batch."""
        keys = self.keys.take(indices)
        values = self._db.get_many(keys, NO_VALUE, self._attrs)
        for key, value in zip(keys, values, strict=True):
            if value is NO_VALUE:
                raise KeyNotFoundError(key)
        samples = list(map(_writable, values)) if self._has_arrays else values
        return samples if self._transform is None else list(map(self._transform, samples))

    def __repr__(self) -> str:
        return f"<tilekv.torch.StoreDataset {self._pinned.uri!r} of {len(self):,} samples>"


def _writable(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _writable(each) for name, each in value.items()}
    return value.copy() if isinstance(value, np.ndarray) else value


class WindowSampler:
    """An order of the samples of a dataset that goes along the store's files, and is another one each epoch.

    Samples are in the order of digests, which are random, so that neighbours have nothing in common but where they are stored.
    They are cut into windows; the windows come in a random order, and so do the samples of each. So a window's samples are read
    from a few chunks, each decoded once, and not from as many as there are samples.

    Parameters
    ----------
    dataset : StoreDataset, or what has a length
    window : int
        Samples of a window.
    seed : int
        With the epoch, it alone decides the order.
    rank, world : int
        Of `world` processes that train together, this is number `rank`, from 0: each has an equal share, along some windows.
    drop_last : bool
        Where the samples have no equal shares: leave out the last ones. Else some come twice.

    Raises
    ------
    InvalidValueError, WrongTypeError
        For arguments that are refused.
    """

    def __init__(
        self,
        dataset: Any,
        *,
        window: int = WINDOW,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        drop_last: bool = False,
    ) -> None:
        self._total = len(dataset)
        self._window, self._seed = whole("window", window), whole("seed", seed)
        self._rank, self._world = whole("rank", rank), whole("world", world)
        if self._window < 1 or self._seed < 0 or not 0 <= self._rank < self._world:
            raise InvalidValueError(
                f"a window has a sample, a seed is no less than 0, and rank is below world: not window={window}, seed={seed}, "
                f"rank={rank}, world={world}"
            )
        drop_last = truth("drop_last", drop_last)
        self._share = (self._total if drop_last else self._total + self._world - 1) // self._world
        self._epoch = self._given = 0

    def __len__(self) -> int:
        """How many samples an epoch has for this process."""
        return self._share

    def set_epoch(self, epoch: int) -> None:
        """Go on with the order of another epoch, from its beginning."""
        self._epoch, self._given = whole("epoch", epoch), 0

    def __iter__(self) -> Iterator[int]:
        """The indices of the epoch that are left; all of them when none was given yet."""
        windows = -(-self._total // self._window)
        order = np.random.default_rng([self._seed, self._epoch]).permutation(windows)
        sizes = np.minimum(self._window, self._total - order * self._window)
        begins = np.cumsum(sizes) - sizes  # of each window, among the samples in their order
        while self._given < self._share:
            place = (self._rank * self._share + self._given) % self._total
            number = int(np.searchsorted(begins, place, side="right")) - 1
            shuffle = np.random.default_rng([self._seed, self._epoch, int(order[number])])
            inside = shuffle.permutation(int(sizes[number])) + order[number] * self._window
            for index in inside[place - begins[number] :][: self._share - self._given].tolist():
                self._given += 1
                yield index
        self._given = 0

    def state_dict(self, given: int | None = None) -> dict[str, int]:
        """Where it is, for `load_state_dict`.

        Parameters
        ----------
        given : int, optional
            How many samples of the epoch the training has seen. Unless given, how many this has handed out, which is more where
            a loader's workers read ahead.
        """
        return {
            "given": self._given if given is None else whole("given", given),
            "epoch": self._epoch,
            **self._order(),
        }

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Go on where another was. InvalidValueError when its order is another one, as of a dataset of another length."""
        wrong = [name for name, mine in self._order().items() if state.get(name) != mine]
        if wrong or not {"given", "epoch"} <= state.keys():
            raise InvalidValueError(
                f"a sampler with {self._order()} cannot go on from {dict(state)}: they have different orders"
            )
        self._epoch, self._given = whole("epoch", state["epoch"]), whole("given", state["given"])

    def _order(self) -> dict[str, int]:
        return {
            "samples": self._total,
            "share": self._share,
            "window": self._window,
            "seed": self._seed,
            "world": self._world,
        }
