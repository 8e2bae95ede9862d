/* BLAKE2b with a 16-byte digest (RFC 7693: unkeyed, no salt, no personalisation) of a key's message (message.h). Keys of up to
 * 119 bytes are one block. Nothing is allocated.
 *
 * This is the kernel for one key, in general registers. Its time is that of the longest path through the rounds, 286 steps of one
 * cycle. One key in the rows of a vector register, as other implementations have it, is slower where a vector instruction takes
 * two cycles (142 ns against 80 on Zen 5).
 */
#ifndef TKV_BLAKE2B_H
#define TKV_BLAKE2B_H

#include "hashing/message.h"

enum { TKV_BLAKE2B_BLOCK = 128, TKV_BLAKE2B_WORDS = 16 };

#define TKV_BLAKE2B_IV0 UINT64_C(0x6a09e667f3bcc908)
#define TKV_BLAKE2B_IV1 UINT64_C(0xbb67ae8584caa73b)
#define TKV_BLAKE2B_IV2 UINT64_C(0x3c6ef372fe94f82b)
#define TKV_BLAKE2B_IV3 UINT64_C(0xa54ff53a5f1d36f1)
#define TKV_BLAKE2B_IV4 UINT64_C(0x510e527fade682d1)
#define TKV_BLAKE2B_IV5 UINT64_C(0x9b05688c2b3e6c1f)
#define TKV_BLAKE2B_IV6 UINT64_C(0x1f83d9abfb41bd6b)
#define TKV_BLAKE2B_IV7 UINT64_C(0x5be0cd19137e2179)

/* h before the first block. The parameter block in its first word: depth 1, fanout 1, no key, 16 bytes of digest. */
static const uint64_t tkv_blake2b_start[8] = {
    TKV_BLAKE2B_IV0 ^ UINT64_C(0x01010010), TKV_BLAKE2B_IV1, TKV_BLAKE2B_IV2, TKV_BLAKE2B_IV3,
    TKV_BLAKE2B_IV4, TKV_BLAKE2B_IV5, TKV_BLAKE2B_IV6, TKV_BLAKE2B_IV7,
};

static inline uint64_t tkv_blake2b_blocks(uint64_t length) { return (length + TKV_BLAKE2B_BLOCK - 1) / TKV_BLAKE2B_BLOCK; }

/* One round; G(a, b, c, d, x, y) mixes m[x] and m[y] into v[a], v[b], v[c], v[d]; s0..s15 is the round's row of
 * SIGMA (RFC 7693, 2.7). */
#define TKV_BLAKE2B_ROUND(G, s0, s1, s2, s3, s4, s5, s6, s7, s8, s9, s10, s11, s12, s13, s14, s15) \
    G(0, 4, 8, 12, s0, s1)   G(1, 5, 9, 13, s2, s3)   G(2, 6, 10, 14, s4, s5)  G(3, 7, 11, 15, s6, s7)    \
    G(0, 5, 10, 15, s8, s9)  G(1, 6, 11, 12, s10, s11) G(2, 7, 8, 13, s12, s13) G(3, 4, 9, 14, s14, s15)

#define TKV_BLAKE2B_ROUNDS(G) \
    TKV_BLAKE2B_ROUND(G, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) \
    TKV_BLAKE2B_ROUND(G, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3) \
    TKV_BLAKE2B_ROUND(G, 11, 8, 12, 0, 5, 2, 15, 13, 10, 14, 3, 6, 7, 1, 9, 4) \
    TKV_BLAKE2B_ROUND(G, 7, 9, 3, 1, 13, 12, 11, 14, 2, 6, 5, 10, 4, 0, 15, 8) \
    TKV_BLAKE2B_ROUND(G, 9, 0, 5, 7, 2, 4, 10, 15, 14, 1, 11, 12, 6, 8, 3, 13) \
    TKV_BLAKE2B_ROUND(G, 2, 12, 6, 10, 0, 11, 8, 3, 4, 13, 7, 5, 15, 14, 1, 9) \
    TKV_BLAKE2B_ROUND(G, 12, 5, 1, 15, 14, 13, 4, 10, 0, 7, 6, 3, 9, 2, 8, 11) \
    TKV_BLAKE2B_ROUND(G, 13, 11, 7, 14, 12, 1, 3, 9, 5, 0, 15, 4, 8, 6, 2, 10) \
    TKV_BLAKE2B_ROUND(G, 6, 15, 14, 9, 11, 3, 0, 8, 12, 2, 13, 7, 1, 4, 10, 5) \
    TKV_BLAKE2B_ROUND(G, 10, 2, 8, 4, 7, 6, 1, 5, 15, 11, 9, 14, 3, 12, 13, 0) \
    TKV_BLAKE2B_ROUND(G, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15) \
    TKV_BLAKE2B_ROUND(G, 14, 10, 4, 8, 9, 15, 13, 6, 1, 12, 0, 2, 11, 7, 5, 3)

static inline uint64_t tkv_rotr64(uint64_t x, int n) { return x >> n | x << (64 - n); }

/* v is sixteen variables: as an array it costs 8 ns more. The sum takes b last, since b is what it waits for. */
#define TKV_BLAKE2B_G(a, b, c, d, x, y) TKV_BLAKE2B_MIX(v##a, v##b, v##c, v##d, m[x], m[y])
#define TKV_BLAKE2B_MIX(a, b, c, d, x, y) \
    a = a + (x) + b; d = tkv_rotr64(d ^ a, 32); c += d; b = tkv_rotr64(b ^ c, 24); \
    a = a + (y) + b; d = tkv_rotr64(d ^ a, 16); c += d; b = tkv_rotr64(b ^ c, 63);

/* F of RFC 7693, 3.2, for messages below 2^64 bytes: `count` is the message length up to the end of this block. */
__attribute__((always_inline)) static inline void tkv_blake2b_compress(
    uint64_t h[8], const uint64_t m[TKV_BLAKE2B_WORDS], uint64_t count, int last)
{
    uint64_t v0 = h[0], v1 = h[1], v2 = h[2], v3 = h[3], v4 = h[4], v5 = h[5], v6 = h[6], v7 = h[7];
    uint64_t v8 = TKV_BLAKE2B_IV0, v9 = TKV_BLAKE2B_IV1, v10 = TKV_BLAKE2B_IV2, v11 = TKV_BLAKE2B_IV3;
    uint64_t v12 = TKV_BLAKE2B_IV4 ^ count, v13 = TKV_BLAKE2B_IV5;
    uint64_t v14 = last ? ~TKV_BLAKE2B_IV6 : TKV_BLAKE2B_IV6, v15 = TKV_BLAKE2B_IV7;
    TKV_BLAKE2B_ROUNDS(TKV_BLAKE2B_G)
    h[0] ^= v0 ^ v8;
    h[1] ^= v1 ^ v9;
    h[2] ^= v2 ^ v10;
    h[3] ^= v3 ^ v11;
    h[4] ^= v4 ^ v12;
    h[5] ^= v5 ^ v13;
    h[6] ^= v6 ^ v14;
    h[7] ^= v7 ^ v15;
}

/* The digest of a key whose message is `count` words or fewer. That the others are zero, and h constant, is known to the
 * compiler: 80 ns for 4 words, 84 for 8, 98 for 16. */
__attribute__((always_inline)) static inline void tkv_blake2b_words(const tkv_key* key, int count, uint64_t halves[2])
{
    uint64_t h[8], m[TKV_BLAKE2B_WORDS], words[TKV_BLAKE2B_WORDS];
    memcpy(h, tkv_blake2b_start, sizeof h);
    tkv_block_words(words, count, key, 0, 0);
    for (int i = 0; i < TKV_BLAKE2B_WORDS; i++)
        m[i] = i < count ? words[i] : 0;
    tkv_blake2b_compress(h, m, tkv_message_length(key), 1);
    halves[0] = h[0];
    halves[1] = h[1];
}

/* Not inlined: the compiler finds better code for each alone. */
#define TKV_ALONE __attribute__((noinline)) static void
TKV_ALONE tkv_blake2b_4(const tkv_key* key, uint64_t halves[2]) { tkv_blake2b_words(key, 4, halves); }
TKV_ALONE tkv_blake2b_8(const tkv_key* key, uint64_t halves[2]) { tkv_blake2b_words(key, 8, halves); }

TKV_ALONE tkv_blake2b_long(const tkv_key* key, uint64_t halves[2])
{
    uint64_t h[8], m[TKV_BLAKE2B_WORDS];
    const uint64_t length = tkv_message_length(key);
    memcpy(h, tkv_blake2b_start, sizeof h);
    for (uint64_t from = 0; from < length; from += TKV_BLAKE2B_BLOCK) {
        const int last = length - from <= TKV_BLAKE2B_BLOCK;
        tkv_block_words(m, TKV_BLAKE2B_WORDS, key, from, 0);
        tkv_blake2b_compress(h, m, last ? length : from + TKV_BLAKE2B_BLOCK, last);
    }
    halves[0] = h[0];
    halves[1] = h[1];
}

/* The digest of a key as two words: bytes 0..7 and 8..15, little-endian. */
static inline void tkv_blake2b(const tkv_key* key, uint64_t halves[2])
{
    const uint64_t length = tkv_message_length(key);
    if (length <= 8 * 4)
        tkv_blake2b_4(key, halves);
    else if (length <= 8 * 8)
        tkv_blake2b_8(key, halves);
    else
        tkv_blake2b_long(key, halves);
}

#endif
