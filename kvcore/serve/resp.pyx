cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport INT64_MAX, uint64_t
from libc.stdio cimport snprintf
from libc.stdlib cimport free, realloc
from libc.string cimport memchr, memset

cdef enum:
    LONGEST_HEADER = 32         # bytes of *n and $n with their line ends: what is longer is no number
    FIRST_ROOM = 8


# --- requests -----------------------------------------------------------------------------------------------------------------

cdef bint read_number(const char* data, size_t n, int64_t* number) noexcept nogil:
    cdef uint64_t value = 0
    cdef bint negative = n > 0 and data[0] == c"-"
    cdef size_t i = 1 if negative else 0
    if i == n or n - i > 19 or not c"0" <= data[i] <= c"9" or (data[i] == c"0" and n > 1):
        return False
    while i < n:
        if not c"0" <= data[i] <= c"9":
            return False
        value = value * 10 + <uint64_t>(data[i] - c"0")
        i += 1
    if value > <uint64_t>INT64_MAX + negative:
        return False
    number[0] = <int64_t>(0 - value) if negative else <int64_t>value
    return True


cdef size_t write_number(char* into, int64_t number) noexcept nogil:
    cdef char digits[24]
    cdef size_t i = 24, n = 0
    cdef uint64_t value = 0 - <uint64_t>number if number < 0 else <uint64_t>number
    while True:
        i -= 1
        digits[i] = <char>(c"0" + <char>(value % 10))
        value //= 10
        if value == 0:
            break
    if number < 0:
        into[0] = c"-"
        n = 1
    while i < 24:
        into[n] = digits[i]
        n += 1
        i += 1
    return n


cdef Parsed broken(Request* request, const char* why) noexcept nogil:
    snprintf(request.error, sizeof(request.error), "%s", why)
    return BROKEN


cdef Parsed read_header(Request* request, const char* data, size_t n, int64_t* number) noexcept nogil:
    """The number between the mark at request.at and its line end: REQUEST when it is there, BROKEN when it is none."""
    cdef size_t first = request.at + 1
    cdef const char* end = <const char*>memchr(data + request.at, c"\r", min(n - request.at, <size_t>LONGEST_HEADER))
    cdef size_t stop
    if end == NULL:
        return BROKEN if n - request.at >= LONGEST_HEADER else UNFINISHED
    stop = <size_t>(end - data)
    if stop + 1 >= n:
        return UNFINISHED
    if data[stop + 1] != c"\n" or not read_number(data + first, stop - first, number):
        return BROKEN
    request.at = stop + 2
    return REQUEST


cdef bint add_argument(Request* request, size_t at, size_t size) noexcept nogil:
    cdef Argument* grown
    cdef size_t room
    if request.n == request.room:
        room = max(2 * request.room, <size_t>FIRST_ROOM)
        grown = <Argument*>realloc(request.args, room * sizeof(Argument))
        if grown == NULL:
            return False
        request.args = grown
        request.room = room
    request.args[request.n].at = at
    request.args[request.n].size = size
    request.n += 1
    return True


cdef Parsed parse_line(Request* request, const char* data, size_t n, const Limits* limits) noexcept nogil:
    cdef const char* end = <const char*>memchr(data + request.at, c"\n", n - request.at)
    cdef size_t size
    size = n if end == NULL else <size_t>(end - data)
    if size > <size_t>limits.line:
        return broken(request, "too big inline request")
    if end == NULL:
        request.at = n
        return UNFINISHED
    request.at = size + 1
    if size and data[size - 1] == c"\r":
        size -= 1
    return INLINE if add_argument(request, 0, size) else NO_MEMORY


cdef Parsed parse_request(Request* request, const char* data, size_t n, const Limits* limits) noexcept nogil:
    cdef Parsed found
    cdef int64_t number = 0
    cdef size_t end
    if n == 0:
        return UNFINISHED
    if not request.begun:
        if data[0] != c"*":
            return parse_line(request, data, n, limits)
        found = read_header(request, data, n, &number)
        if found == UNFINISHED:
            return UNFINISHED
        if found == BROKEN or number > (1 << 30):
            return broken(request, "invalid multibulk length")
        if number > limits.arguments:
            return broken(request, "invalid multibulk length" if limits.known else "unauthenticated multibulk length")
        request.begun = True
        request.left = number
        request.bulk = -1
    while request.left > 0:
        if request.bulk < 0:
            if request.at >= n:
                return UNFINISHED
            if data[request.at] != c"$":
                snprintf(request.error, sizeof(request.error), "expected '$', got '%c'",
                         data[request.at] if 32 <= data[request.at] < 127 else c"?")
                return BROKEN
            found = read_header(request, data, n, &number)
            if found == UNFINISHED:
                return UNFINISHED
            if found == BROKEN or number < 0 or number > (<int64_t>1 << 40):
                return broken(request, "invalid bulk length")
            if number > limits.bulk:
                return broken(request, "invalid bulk length" if limits.known else "unauthenticated bulk length")
            request.bulk = number
        end = request.at + <size_t>request.bulk
        if n < end + 2:
            return UNFINISHED
        if data[end] != c"\r" or data[end + 1] != c"\n":
            return broken(request, "an argument does not end where it says")
        if not add_argument(request, request.at, <size_t>request.bulk):
            return NO_MEMORY
        request.at = end + 2
        request.bulk = -1
        request.left -= 1
    return REQUEST


cdef void request_next(Request* request) noexcept nogil:
    request.n = request.at = 0
    request.left = 0
    request.bulk = -1
    request.begun = False


cdef void request_free(Request* request) noexcept nogil:
    free(request.args)
    request.args = NULL
    request.room = 0


@cython.final
cdef class Parser:
    """Requests of a stream, for tests and for whoever feeds bytes by hand: `feed` gives those that are whole."""
    cdef Request request
    cdef Limits limits
    cdef bytearray held

    def __cinit__(self, arguments=1 << 20, bulk=512 << 20, line=1 << 16):
        memset(&self.request, 0, sizeof(Request))
        request_next(&self.request)
        self.limits.arguments = arguments
        self.limits.bulk = bulk
        self.limits.line = line
        self.limits.known = True
        self.held = bytearray()

    def __dealloc__(self):
        request_free(&self.request)

    def feed(self, bytes data not None):
        """The requests that are whole now, each a list of bytes. ValueError for what is none; nothing more is read then."""
        cdef bytes whole
        cdef const char* at
        cdef Parsed found
        cdef size_t start = 0, i
        cdef list requests = []
        self.held += data
        whole = bytes(self.held)
        at = PyBytes_AS_STRING(whole)
        while True:
            found = parse_request(&self.request, at + start, len(whole) - start, &self.limits)
            if found == UNFINISHED:
                del self.held[:start]
                return requests
            if found == NO_MEMORY:
                raise MemoryError
            if found == BROKEN:
                raise ValueError(self.request.error.decode())
            words = [whole[start + self.request.args[i].at:start + self.request.args[i].at + self.request.args[i].size]
                     for i in range(self.request.n)]
            if found == INLINE:
                words = split_line(words[0])
            if words:
                requests.append(words)
            start += self.request.at
            request_next(&self.request)


_ESCAPES = {ord("n"): 10, ord("r"): 13, ord("t"): 9, ord("b"): 8, ord("a"): 7}
_HEX = frozenset(b"0123456789abcdefABCDEF")


def split_line(bytes line not None):
    """The words of a line, quoted as redis-cli quotes them. ValueError for quotes that do not close."""
    cdef Py_ssize_t i = 0, n = len(line)
    cdef list words = []
    cdef int quote
    while True:
        while i < n and line[i] in b" \t\r\n\0\v\f":
            i += 1
        if i == n:
            return words
        word = bytearray()
        quote = 0
        while True:
            if i == n:
                if quote:
                    raise ValueError("unbalanced quotes in request")
                break
            c = line[i]
            if quote == 0:
                if c in b" \t\r\n\0\v\f":
                    break
                if c == ord('"') or c == ord("'"):
                    quote = c
                else:
                    word.append(c)
            elif c == quote:
                if i + 1 < n and line[i + 1] not in b" \t\r\n\0\v\f":
                    raise ValueError("unbalanced quotes in request")
                i += 1
                break
            elif c == ord("\\") and i + 1 < n and quote == ord('"'):
                i += 1
                c = line[i]
                if c == ord("x") and i + 2 < n and line[i + 1] in _HEX and line[i + 2] in _HEX:
                    word.append(int(line[i + 1:i + 3], 16))
                    i += 2
                else:
                    word.append(_ESCAPES.get(c, c))
            elif c == ord("\\") and i + 1 < n and line[i + 1] == ord("'"):
                i += 1
                word.append(ord("'"))
            else:
                word.append(c)
            i += 1
        words.append(bytes(word))


# --- replies ------------------------------------------------------------------------------------------------------------------

class ReplyError(Exception):
    """A reply that is an error: its code, which is one word, and what is said of it."""


class Push(list):
    """What a client is told without having asked: a type of its own in RESP3, an array before."""


class Verbatim(str):
    """Text for people."""


NO_ARRAY = object()     # the null that RESP2 has for arrays


def encode(value, bint resp3):
    """A reply. str: a status; bytes: a bulk string; int, float, bool; list or tuple; dict; None; ReplyError, Push, Verbatim."""
    cdef list into = []
    put_value(value, resp3, into)
    return b"".join(into)


cdef int put_value(object value, bint resp3, list into) except -1:
    if isinstance(value, bytes):
        into.append(b"$%d\r\n" % len(value))
        into.append(value)
        into.append(b"\r\n")
    elif value is None:
        into.append(b"_\r\n" if resp3 else b"$-1\r\n")
    elif value is NO_ARRAY:
        into.append(b"_\r\n" if resp3 else b"*-1\r\n")
    elif isinstance(value, bool):
        if resp3:
            into.append(b"#t\r\n" if value else b"#f\r\n")
        else:
            into.append(b":%d\r\n" % value)
    elif isinstance(value, int):
        into.append(b":%d\r\n" % value)
    elif isinstance(value, Verbatim):
        text = value.encode()
        into.append(b"=%d\r\ntxt:%b\r\n" % (len(text) + 4, text) if resp3 else b"$%d\r\n%b\r\n" % (len(text), text))
    elif isinstance(value, str):
        into.append(b"+%b\r\n" % value.encode())
    elif isinstance(value, float):
        text = b"%.17g" % value
        into.append(b",%b\r\n" % text if resp3 else b"$%d\r\n%b\r\n" % (len(text), text))
    elif isinstance(value, ReplyError):
        into.append(b"-%b\r\n" % one_line(str(value)))
    elif isinstance(value, (list, tuple)):
        mark = b">" if resp3 and isinstance(value, Push) else b"*"
        into.append(b"%b%d\r\n" % (mark, len(value)))
        for each in value:
            put_value(each, resp3, into)
    elif isinstance(value, dict):
        if resp3:
            into.append(b"%%%d\r\n" % len(value))
        else:
            into.append(b"*%d\r\n" % (2 * len(value)))
        for key, each in value.items():
            put_value(key, resp3, into)
            put_value(each, resp3, into)
    else:
        raise TypeError(f"a reply is not {type(value).__name__}")
    return 0


cdef bytes one_line(str text):
    return text.replace("\r", " ").replace("\n", " ").encode("utf-8", "surrogateescape")


# --- patterns -----------------------------------------------------------------------------------------------------------------

cdef bint in_brackets(const char* pattern, size_t m, size_t* at, unsigned char c) noexcept nogil:
    """Whether [...] from *at, its bracket, on has c; *at is behind it afterwards. One that never closes ends with the pattern."""
    cdef size_t i = at[0] + 1
    cdef bint others = i < m and pattern[i] == c"^", found = False
    cdef unsigned char low, high
    i += others
    while i < m and pattern[i] != c"]":
        if pattern[i] == c"\\" and i + 1 < m:
            i += 1
            found |= <unsigned char>pattern[i] == c
        elif i + 2 < m and pattern[i + 1] == c"-":
            low = <unsigned char>pattern[i]
            high = <unsigned char>pattern[i + 2]
            found |= (low <= c <= high) or (high <= c <= low)
            i += 2
        else:
            found |= <unsigned char>pattern[i] == c
        i += 1
    at[0] = min(i + 1, m)
    return found != others


cdef bint glob_matches(const char* pattern, size_t m, const char* text, size_t n) noexcept nogil:
    """One star at a time: what stands before the last star that was met never needs to be matched again, so it takes n * m
    steps at most, whatever the pattern."""
    cdef size_t p = 0, t = 0, after = 0, again = 0, next
    cdef bint starred = False, same
    while True:
        same = False
        if p < m and pattern[p] == c"*":
            while p < m and pattern[p] == c"*":
                p += 1
            if p == m:
                return True
            starred = True
            after = p
            again = t
            continue
        if t == n:
            return p == m
        next = p + 1
        if p < m:
            if pattern[p] == c"?":
                same = True
            elif pattern[p] == c"[":
                next = p
                same = in_brackets(pattern, m, &next, <unsigned char>text[t])
            else:
                if pattern[p] == c"\\" and p + 1 < m:
                    next = p + 2
                same = pattern[next - 1] == text[t]
        if same:
            p = next
            t += 1
        elif starred:
            again += 1
            t = again
            p = after
        else:
            return False


def matching(bytes pattern not None, list texts not None):
    """Those of `texts`, bytes, that Redis's pattern matches."""
    cdef const char* p = PyBytes_AS_STRING(pattern)
    cdef size_t m = PyBytes_GET_SIZE(pattern)
    cdef list found = []
    cdef bytes text
    for text in texts:
        if glob_matches(p, m, PyBytes_AS_STRING(text), PyBytes_GET_SIZE(text)):
            found.append(text)
    return found
