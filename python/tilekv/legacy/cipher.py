"""AES-256-GCM, as TileDB 1.4 and later encrypt chunks: after all other filters, metadata and data apart.

meta    u32 parts of metadata | u32 parts of data | per part u32 size, u32 encrypted size, 12 bytes IV, 16 bytes tag
data    the encrypted parts
"""

from __future__ import annotations

import struct
from typing import Final

from tilekv.cursor import Cursor
from tilekv.errors import InvalidValueError, MissingPackageError, WrongTypeError

KEY_BYTES: Final = 32
_IV_BYTES: Final = 12
_TAG_BYTES: Final = 16
_PART_BYTES: Final = 8 + _IV_BYTES + _TAG_BYTES


class Cipher:
    """Decrypts chunks.

    Parameters
    ----------
    key : bytes or str
        32 bytes; a str stands for its UTF-8.

    Raises
    ------
    WrongTypeError, InvalidValueError
        For anything else.
    MissingPackageError
        When the package `cryptography` is not installed.
    """

    def __init__(self, key: bytes | str) -> None:
        if not isinstance(key, (bytes, str)):
            raise WrongTypeError(f"key is bytes or a str, not {type(key).__name__}")
        secret = key.encode() if isinstance(key, str) else key
        if len(secret) != KEY_BYTES:
            raise InvalidValueError(f"an AES-256 key has {KEY_BYTES} bytes, not {len(secret)}")
        try:
            from cryptography.exceptions import InvalidTag
            from cryptography.hazmat.primitives.ciphers.aead import AESGCM
        except ImportError:
            raise MissingPackageError(
                "encrypted stores need the package `cryptography`: pip install 'tilekv[legacy]'"
            ) from None
        self._aes = AESGCM(secret)
        self._wrong: Final = InvalidTag

    def chunk(self, stored: bytes, file: str, at: int) -> bytes:
        """A stored chunk as it was before it was encrypted.

        Raises CorruptionError, for byte `at` of `file`, when that cannot be: damage, or another key.
        """
        cursor = Cursor(stored, file, at)
        raw_size, size, meta_size = cursor.u32(), cursor.u32(), cursor.u32()
        meta = Cursor(cursor.take(meta_size), file, at + cursor.at - meta_size)
        data = Cursor(cursor.take(size), file, at + cursor.at - size)
        counts = meta.u32(), meta.u32()
        if sum(counts) * _PART_BYTES != meta.left:
            meta.fail(f"{sum(counts)} encrypted parts are not described in {meta.left} bytes", 0)
        parts = [b"".join(self._part(meta, data) for _ in range(count)) for count in counts]
        if data.left:
            data.fail("bytes follow the last encrypted part")
        return struct.pack("<III", raw_size, len(parts[1]), len(parts[0])) + b"".join(parts)

    def _part(self, meta: Cursor, data: Cursor) -> bytes:
        size, encrypted_size = meta.u32(), meta.u32()
        iv, tag = meta.take(_IV_BYTES), meta.take(_TAG_BYTES)
        start = data.at
        encrypted = data.take(encrypted_size)
        try:
            plain: bytes = self._aes.decrypt(iv, encrypted + tag, None)
        except self._wrong:
            data.fail("it is encrypted with another key, or damaged", start)
        if len(plain) != size:
            meta.fail(f"a part of {size} bytes is {len(plain)} long")
        return plain
