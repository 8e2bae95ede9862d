/* A key, and the message that is digested for it (docs/format.md 1),
 *
 *     u8 key type | u64 key size | key bytes
 *
 * as blocks of 64-bit words. Both hash functions, for one key or in lanes, read it through tkv_block_words alone.
 */
#ifndef TKV_MESSAGE_H
#define TKV_MESSAGE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tilekv needs a little-endian machine: hash functions load their message words as they lie in memory"
#endif

/* One key by reference. The bytes are the caller's, and outlive the call. `data` may be NULL when `size` is 0. */
typedef struct tkv_key {
    const uint8_t* data;
    uint64_t size;
    uint8_t type; /* datatype code, 0..127: the tombstone bit is never part of a digest */
} tkv_key;

typedef enum tkv_kind {
    TKV_BLAKE2B,   /* BLAKE2b with a 16-byte digest, RFC 7693 */
    TKV_MD5,       /* RFC 1321 */
    TKV_MD5_LP64,  /* what TileDB 1.x computed on 64-bit Unix; for reading its stores only */
    /* One value for all keys. No schema can name it: only tests ask for it, by its number (kvcore/testing.pyx). It is here since
     * every path of a store finds its hash function in the table of these, and the paths are what they test. */
    TKV_COLLIDING,
    TKV_KINDS
} tkv_kind;

enum { TKV_PREFIX = 9 };

static inline uint64_t tkv_message_length(const tkv_key* key) { return TKV_PREFIX + key->size; }

static inline uint64_t tkv_load_word(const uint8_t* at)
{
    uint64_t word;
    memcpy(&word, at, sizeof word);
    return word;
}

/* The n < 8 bytes at `at` as a word. */
static inline uint64_t tkv_load_part(const uint8_t* at, size_t n)
{
    if (n >= 4) {
        uint32_t low, high;
        memcpy(&low, at, 4);
        memcpy(&high, at + n - 4, 4);
        return low | (uint64_t)high << (8 * (n - 4));
    }
    return n == 0 ? 0 : at[0] | (uint64_t)at[n / 2] << (8 * (n / 2)) | (uint64_t)at[n - 1] << (8 * (n - 1));
}

/* Writes the `count` words of the block that begins `from` bytes into the message, zeros after its end; `end` is the byte that
 * follows the message. No byte outside the key is read: the word that the key ends in is the last 8 bytes of the key, shifted.
 * Words are loaded and stored as words, since loads of words from a byte-wise copy would stall (10 ns a key). */
static inline void tkv_block_words(uint64_t* words, size_t count, const tkv_key* key, uint64_t from, uint8_t end)
{
    const uint64_t size = key->size;
    const uint64_t ended = tkv_message_length(key) - from; /* beyond any block if the message ended before this one */
    uint64_t at = from - TKV_PREFIX;                       /* the key byte that word i begins with */
    size_t i = 0;
    if (from == 0) {
        words[0] = key->type | size << 8; /* the highest byte of a size is 0 */
        words[1] = (size < 8 ? tkv_load_part(key->data, size) : tkv_load_word(key->data)) << 8;
        i = 2;
        at = 16 - TKV_PREFIX;
    }
    for (; i < count && at + 8 <= size; i++, at += 8)
        words[i] = tkv_load_word(key->data + at);
    if (i < count && at < size)
        words[i++] = tkv_load_word(key->data + size - 8) >> (8 * (at + 8 - size));
    for (; i < count; i++)
        words[i] = 0;
    if (end && ended < 8 * count)
        words[ended / 8] |= (uint64_t)end << (8 * (ended % 8));
}

#endif
