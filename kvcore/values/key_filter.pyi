from typing import final

@final
class KeyFilter:
    def __new__(
        cls,
        prefix: str | bytes | None = None,
        glob: str | bytes | None = None,
        start: str | bytes | None = None,
        stop: str | bytes | None = None,
    ) -> KeyFilter: ...
    def __contains__(self, key: object) -> bool: ...
