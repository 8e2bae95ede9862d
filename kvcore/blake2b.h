/* BLAKE2b with a 16-byte digest (RFC 7693: unkeyed, no salt, no personalisation) of the digest message of FORMAT.md 1:
 *
 *     u8 key type | u64 key size | key bytes
 *
 * Keys of up to 119 bytes are one block, built on the stack; longer ones are compressed where they lie. Nothing is allocated.
 */
#ifndef TKV_BLAKE2B_H
#define TKV_BLAKE2B_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tilekv needs a little-endian machine: BLAKE2b loads its message words as they lie in memory"
#endif

enum { TKV_BLAKE2B_BLOCK = 128, TKV_BLAKE2B_PREFIX = 9 };

#define TKV_BLAKE2B_IV0 UINT64_C(0x6a09e667f3bcc908)
#define TKV_BLAKE2B_IV1 UINT64_C(0xbb67ae8584caa73b)
#define TKV_BLAKE2B_IV2 UINT64_C(0x3c6ef372fe94f82b)
#define TKV_BLAKE2B_IV3 UINT64_C(0xa54ff53a5f1d36f1)
#define TKV_BLAKE2B_IV4 UINT64_C(0x510e527fade682d1)
#define TKV_BLAKE2B_IV5 UINT64_C(0x9b05688c2b3e6c1f)
#define TKV_BLAKE2B_IV6 UINT64_C(0x1f83d9abfb41bd6b)
#define TKV_BLAKE2B_IV7 UINT64_C(0x5be0cd19137e2179)

#define TKV_ROTR64(x, n) (((x) >> (n)) | ((x) << (64 - (n))))

#define TKV_BLAKE2B_G(a, b, c, d, x, y)                          \
    do {                                                         \
        a += b + (x); d ^= a; d = TKV_ROTR64(d, 32);             \
        c += d;       b ^= c; b = TKV_ROTR64(b, 24);             \
        a += b + (y); d ^= a; d = TKV_ROTR64(d, 16);             \
        c += d;       b ^= c; b = TKV_ROTR64(b, 63);             \
    } while (0)

/* One round over v0..v15; s0..s15 is the round's row of SIGMA (RFC 7693, 2.7). */
#define TKV_BLAKE2B_ROUND(s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
    TKV_BLAKE2B_G(v0, v4, v8, v12, m[s0], m[s1]);    TKV_BLAKE2B_G(v1, v5, v9, v13, m[s2], m[s3]);     \
    TKV_BLAKE2B_G(v2, v6, v10, v14, m[s4], m[s5]);   TKV_BLAKE2B_G(v3, v7, v11, v15, m[s6], m[s7]);    \
    TKV_BLAKE2B_G(v0, v5, v10, v15, m[s8], m[s9]);   TKV_BLAKE2B_G(v1, v6, v11, v12, m[s10], m[s11]);  \
    TKV_BLAKE2B_G(v2, v7, v8, v13, m[s12], m[s13]);  TKV_BLAKE2B_G(v3, v4, v9, v14, m[s14], m[s15])

/* F of RFC 7693, 3.2, for messages below 2^64 bytes: `count` is the message length up to the end of this block. */
static inline void tkv_blake2b_compress(uint64_t h[8], const uint8_t* block, uint64_t count, int last)
{
    uint64_t m[16];
    memcpy(m, block, TKV_BLAKE2B_BLOCK);

    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = TKV_BLAKE2B_IV0, v9 = TKV_BLAKE2B_IV1, v10 = TKV_BLAKE2B_IV2, v11 = TKV_BLAKE2B_IV3;
    uint64_t v12 = TKV_BLAKE2B_IV4 ^ count, v13 = TKV_BLAKE2B_IV5;
    uint64_t v14 = last ? ~TKV_BLAKE2B_IV6 : TKV_BLAKE2B_IV6, v15 = TKV_BLAKE2B_IV7;

    TKV_BLAKE2B_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    TKV_BLAKE2B_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);
    TKV_BLAKE2B_ROUND(11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4);
    TKV_BLAKE2B_ROUND(7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8);
    TKV_BLAKE2B_ROUND(9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13);
    TKV_BLAKE2B_ROUND(2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9);
    TKV_BLAKE2B_ROUND(12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11);
    TKV_BLAKE2B_ROUND(13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10);
    TKV_BLAKE2B_ROUND(6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5);
    TKV_BLAKE2B_ROUND(10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0);
    TKV_BLAKE2B_ROUND(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    TKV_BLAKE2B_ROUND(14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3);

    h[0] ^= v0 ^ v8;
    h[1] ^= v1 ^ v9;
    h[2] ^= v2 ^ v10;
    h[3] ^= v3 ^ v11;
    h[4] ^= v4 ^ v12;
    h[5] ^= v5 ^ v13;
    h[6] ^= v6 ^ v14;
    h[7] ^= v7 ^ v15;
}

/* The digest of a key as two words: bytes 0..7 and 8..15, little-endian. `key` may be NULL when `size` is 0. */
static inline void tkv_blake2b(uint8_t type, const uint8_t* key, uint64_t size, uint64_t halves[2])
{
    uint64_t h[8] = {
        TKV_BLAKE2B_IV0 ^ UINT64_C(0x01010010), /* the parameter block: depth 1, fanout 1, no key, 16 bytes of digest */
        TKV_BLAKE2B_IV1, TKV_BLAKE2B_IV2, TKV_BLAKE2B_IV3, TKV_BLAKE2B_IV4, TKV_BLAKE2B_IV5, TKV_BLAKE2B_IV6, TKV_BLAKE2B_IV7,
    };
    const uint64_t total = TKV_BLAKE2B_PREFIX + size;
    uint8_t block[TKV_BLAKE2B_BLOCK] = {type};
    size_t used = TKV_BLAKE2B_PREFIX;
    memcpy(block + 1, &size, sizeof size);

    /* The last block carries the final flag, so a block is compressed here only when more of the message follows it. */
    if (total > TKV_BLAKE2B_BLOCK) {
        const size_t room = TKV_BLAKE2B_BLOCK - TKV_BLAKE2B_PREFIX;
        uint64_t count = TKV_BLAKE2B_BLOCK;
        memcpy(block + TKV_BLAKE2B_PREFIX, key, room);
        tkv_blake2b_compress(h, block, count, 0);
        for (key += room, size -= room; size > TKV_BLAKE2B_BLOCK; key += TKV_BLAKE2B_BLOCK, size -= TKV_BLAKE2B_BLOCK) {
            count += TKV_BLAKE2B_BLOCK;
            tkv_blake2b_compress(h, key, count, 0);
        }
        memset(block, 0, sizeof block);
        used = 0;
    }
    if (size)
        memcpy(block + used, key, size);
    tkv_blake2b_compress(h, block, total, 1);
    halves[0] = h[0];
    halves[1] = h[1];
}

#endif
