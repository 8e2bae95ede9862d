cimport cython
from cpython.bytes cimport PyBytes_AS_STRING
from libc.stdlib cimport free, realloc
from libc.string cimport memcmp

from tilekv.errors import WrongTypeError

from tilekv.kvcore.format.datatypes cimport BLOB, CHAR
from tilekv.kvcore.values.keys cimport KeyCell, key_cell

cdef enum:
    ESCAPED = 0xDC00            # a byte that is not UTF-8, as a character: PEP 383


cdef inline uint32_t character_at(const uint8_t* p, uint64_t left, bint text, uint64_t* size) noexcept nogil:
    """The character at p, and its bytes."""
    cdef uint32_t first = p[0], code
    cdef uint64_t n, i
    size[0] = 1
    if not text or first < 0x80:
        return first
    n = 2 if 0xC2 <= first < 0xE0 else 3 if 0xE0 <= first < 0xF0 else 4 if 0xF0 <= first < 0xF5 else 0
    if n == 0 or n > left:
        return ESCAPED + first
    code = first & (0x7F >> n)
    for i in range(1, n):
        if p[i] & 0xC0 != 0x80:
            return ESCAPED + first
        code = code << 6 | (p[i] & 0x3F)
    if (n == 3 and (code < 0x800 or 0xD800 <= code < 0xE000)) or (n == 4 and not 0x10000 <= code < 0x110000):
        return ESCAPED + first
    size[0] = n
    return code


cdef inline bint in_class(const Token* token, uint32_t code) noexcept nogil:
    cdef uint64_t i
    for i in range(token.size):
        if token.ranges[2 * i] <= code <= token.ranges[2 * i + 1]:
            return not token.others
    return token.others


cdef inline int compare_bytes(const uint8_t* a, uint64_t m, const uint8_t* b, uint64_t n) noexcept nogil:
    cdef int difference = memcmp(a, b, min(m, n))
    return difference if difference else (m > n) - (m < n)


cdef bint comes_before(const KeyRef* a, const KeyRef* b) noexcept nogil:
    return a.type < b.type if a.type != b.type else compare_bytes(a.data, a.size, b.data, b.size) < 0


cdef inline bint begins_with(const KeyRef* key, const KeyRef* prefix) noexcept nogil:
    """Its last byte first: most keys differ there, and those of one folder only there; a call costs as much as the rest."""
    if key.size < prefix.size:
        return False
    return prefix.size == 0 or (key.data[prefix.size - 1] == prefix.data[prefix.size - 1]
                                and memcmp(key.data, prefix.data, prefix.size) == 0)


@cython.final
@cython.no_gc                   # in no cycle; matches() reads what it holds
cdef class KeyFilter:
    def __cinit__(self, prefix=None, glob=None, start=None, stop=None):
        """Each str or bytes, all of one of the two, or None. WrongTypeError, InvalidValueError for anything else."""
        cdef KeyCell cell
        self.type = -1
        self.held = []
        for name, given in (("prefix", prefix), ("glob", glob), ("start", start), ("stop", stop)):
            if given is None:
                continue
            if not isinstance(given, (str, bytes)):
                raise WrongTypeError(f"{name} is str or bytes, as the keys are, not {type(given).__name__}")
            self.held.append(key_cell(given, &cell, True))
            if self.type not in (-1, cell.ref.type):
                raise WrongTypeError(f"{name} is {type(given).__name__}, and what came before it is not: keys are of one type")
            self.type = cell.ref.type
            if name == "prefix":
                self.prefix = cell.ref
            elif name == "start":
                self.start = cell.ref
            elif name == "stop":
                self.stop = cell.ref
        self.text = self.type == CHAR
        if glob is not None:
            self.patterned = True
            self._compile([ord(c) for c in glob] if self.text else list(glob))

    def __dealloc__(self):
        free(self.tokens)

    cdef int _compile(self, list characters) except -1:
        """As fnmatch.translate() reads a pattern."""
        cdef Py_ssize_t i = 0, j, n = len(characters)
        cdef list literal = [], ranges
        cdef bint others
        while i < n:
            c = characters[i]
            i += 1
            j = i
            if c == ord("["):
                if j < n and characters[j] == ord("!"):
                    j += 1
                if j < n and characters[j] == ord("]"):
                    j += 1
                while j < n and characters[j] != ord("]"):
                    j += 1
            if c not in (ord("*"), ord("?"), ord("[")) or (c == ord("[") and j >= n):
                literal.append(c)
                continue
            if literal:
                self._add(LITERAL, self._encoded(literal), None, False)
                literal = []
            if c == ord("*"):
                if self.n == 0 or self.tokens[self.n - 1].kind != STAR:
                    self._add(STAR, None, None, False)
            elif c == ord("?"):
                self._add(ONE, None, None, False)
            else:
                ranges, others = class_of(characters[i:j])
                self._add(CLASS, None, ranges, others)
                i = j + 1
        if literal:
            self._add(LITERAL, self._encoded(literal), None, False)
        return 0

    def _encoded(self, list characters):
        return "".join(map(chr, characters)).encode("utf-8", "surrogateescape") if self.text else bytes(characters)

    cdef int _add(self, TokenKind kind, bytes data, list ranges, bint others) except -1:
        cdef Token* grown = <Token*>realloc(self.tokens, (self.n + 1) * sizeof(Token))
        cdef Token* token
        if grown == NULL:
            raise MemoryError
        self.tokens = grown
        token = &grown[self.n]
        token.kind = kind
        token.data = NULL
        token.size = 0
        token.ranges = NULL
        token.others = others
        if kind == CLASS:
            data = b"".join([int(code).to_bytes(4, "little") for pair in ranges for code in pair])
            token.ranges = <const uint32_t*><const void*>PyBytes_AS_STRING(data)
            token.size = len(ranges)
        elif kind == LITERAL:
            token.data = <const uint8_t*>PyBytes_AS_STRING(data)
            token.size = len(data)
        self.held.append(data)
        self.n += 1
        return 0

    def __contains__(self, key):
        """Whether a key is asked for."""
        cdef KeyCell cell
        _held = key_cell(key, &cell, True)
        return self.matches(&cell.ref)

    cdef bint matches(self, const KeyRef* key) noexcept nogil:
        if key.type != self.type and (self.type >= 0 or (key.type != CHAR and key.type != BLOB)):
            return False
        if self.prefix.data != NULL and not begins_with(key, &self.prefix):
            return False
        if self.start.data != NULL and comes_before(key, &self.start):
            return False
        if self.stop.data != NULL and not comes_before(key, &self.stop):
            return False
        return not self.patterned or self._matches_pattern(key.data, key.size)

    cdef bint _matches_pattern(self, const uint8_t* data, uint64_t size) noexcept nogil:
        """One star at a time: what stands before the last star that was met never needs to be matched again, so a key of n bytes
        and a pattern of m tokens take n * m steps at most."""
        cdef uint64_t at = 0, again = 0, step = 0
        cdef size_t t = 0, after = 0                            # after: the token behind the last star; 0: there was none
        cdef const Token* token
        cdef uint32_t code
        if self.n:
            token = &self.tokens[self.n - 1]
            if token.kind == LITERAL and (size < token.size
                                          or memcmp(data + size - token.size, token.data, token.size) != 0):
                return False                                    # most keys end otherwise than *.jpg does
        while True:
            if t == self.n:
                if at == size:
                    return True
            else:
                token = &self.tokens[t]
                if token.kind == STAR:
                    t += 1
                    if t == self.n:
                        return True
                    after = t
                    again = at
                    continue
                if token.kind == LITERAL:
                    if size - at >= token.size and memcmp(data + at, token.data, token.size) == 0:
                        at += token.size
                        t += 1
                        continue
                elif at < size:
                    code = character_at(data + at, size - at, self.text, &step)
                    if token.kind == ONE or in_class(token, code):
                        at += step
                        t += 1
                        continue
            if after == 0 or again == size:
                return False
            character_at(data + again, size - again, self.text, &step)
            again += step
            at = again
            t = after


cdef tuple class_of(list characters):
    """The ranges of [characters], and whether the others are meant. A range whose end comes before its beginning is empty."""
    cdef bint others = len(characters) > 0 and characters[0] == ord("!")
    cdef list ranges = [], rest = characters[1:] if others else characters
    cdef Py_ssize_t k = 0, n = len(rest)
    while k < n:
        if k + 2 < n and rest[k + 1] == ord("-"):
            if rest[k] <= rest[k + 2]:
                ranges.append((rest[k], rest[k + 2]))
            k += 3
        else:
            ranges.append((rest[k], rest[k]))
            k += 1
    return ranges, others
