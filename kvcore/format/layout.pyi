from collections.abc import Iterable
from typing import final

@final
class Layout:
    nf: int
    capacity: int
    numbers: bool
    expires: int
    nullable: int
    fields: tuple[tuple[str, int, int, bytes], ...]
    def __new__(
        cls,
        fields: Iterable[tuple[str, int, int, bytes]],
        capacity: int,
        digest: int,
        offsets: bytes,
        coords: bytes,
        numbers: bool = False,
    ) -> Layout: ...
    @property
    def files(self) -> list[tuple[int, str, bool]]: ...
