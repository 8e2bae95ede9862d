from typing import final

from typing_extensions import Buffer

@final
class StoredValue:
    @property
    def size(self) -> int: ...
    def part(self, start: int, stop: int) -> bytes: ...
    def part_into(self, start: int, buffer: Buffer) -> int: ...
