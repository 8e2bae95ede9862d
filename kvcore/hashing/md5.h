/* MD5 (RFC 1321) of a key's message (message.h), and the variant that TileDB 1.x computed on LP64 systems (docs/format.md 1.1).
 * Its source took `unsigned long` for a 32-bit word: state, sums and NOT are 64 bits wide there, and "rotate left" is
 * (x << s) | (x >> (32 - s)), a rotation of 32-bit words only. So both are one text, instantiated for uint32_t and for uint64_t;
 * the steps below may not assume a word's width.
 *
 * Keys of up to 46 bytes are one block. Nothing is allocated.
 */
#ifndef TKV_MD5_H
#define TKV_MD5_H

#include "hashing/message.h"

enum { TKV_MD5_BLOCK = 64, TKV_MD5_WORDS = 8, TKV_MD5_LENGTH_BYTES = 8 };

/* The byte that follows a message. */
#define TKV_MD5_END 0x80

#define TKV_MD5_A 0x67452301u
#define TKV_MD5_B 0xefcdab89u
#define TKV_MD5_C 0x98badcfeu
#define TKV_MD5_D 0x10325476u

static const uint64_t tkv_md5_start[2] = {TKV_MD5_A | (uint64_t)TKV_MD5_B << 32, TKV_MD5_C | (uint64_t)TKV_MD5_D << 32};

/* The 64 steps of RFC 1321, 3.4: F, G, H and I are called (a, b, c, d, index of the message word, shift, constant). */
#define TKV_MD5_STEPS(F, G, H, I) \
    F(a, b, c, d, 0, 7, 0xd76aa478) F(d, a, b, c, 1, 12, 0xe8c7b756)    \
    F(c, d, a, b, 2, 17, 0x242070db) F(b, c, d, a, 3, 22, 0xc1bdceee)   \
    F(a, b, c, d, 4, 7, 0xf57c0faf) F(d, a, b, c, 5, 12, 0x4787c62a)    \
    F(c, d, a, b, 6, 17, 0xa8304613) F(b, c, d, a, 7, 22, 0xfd469501)   \
    F(a, b, c, d, 8, 7, 0x698098d8) F(d, a, b, c, 9, 12, 0x8b44f7af)    \
    F(c, d, a, b, 10, 17, 0xffff5bb1) F(b, c, d, a, 11, 22, 0x895cd7be) \
    F(a, b, c, d, 12, 7, 0x6b901122) F(d, a, b, c, 13, 12, 0xfd987193)  \
    F(c, d, a, b, 14, 17, 0xa679438e) F(b, c, d, a, 15, 22, 0x49b40821) \
    G(a, b, c, d, 1, 5, 0xf61e2562) G(d, a, b, c, 6, 9, 0xc040b340)     \
    G(c, d, a, b, 11, 14, 0x265e5a51) G(b, c, d, a, 0, 20, 0xe9b6c7aa)  \
    G(a, b, c, d, 5, 5, 0xd62f105d) G(d, a, b, c, 10, 9, 0x02441453)    \
    G(c, d, a, b, 15, 14, 0xd8a1e681) G(b, c, d, a, 4, 20, 0xe7d3fbc8)  \
    G(a, b, c, d, 9, 5, 0x21e1cde6) G(d, a, b, c, 14, 9, 0xc33707d6)    \
    G(c, d, a, b, 3, 14, 0xf4d50d87) G(b, c, d, a, 8, 20, 0x455a14ed)   \
    G(a, b, c, d, 13, 5, 0xa9e3e905) G(d, a, b, c, 2, 9, 0xfcefa3f8)    \
    G(c, d, a, b, 7, 14, 0x676f02d9) G(b, c, d, a, 12, 20, 0x8d2a4c8a)  \
    H(a, b, c, d, 5, 4, 0xfffa3942) H(d, a, b, c, 8, 11, 0x8771f681)    \
    H(c, d, a, b, 11, 16, 0x6d9d6122) H(b, c, d, a, 14, 23, 0xfde5380c) \
    H(a, b, c, d, 1, 4, 0xa4beea44) H(d, a, b, c, 4, 11, 0x4bdecfa9)    \
    H(c, d, a, b, 7, 16, 0xf6bb4b60) H(b, c, d, a, 10, 23, 0xbebfbc70)  \
    H(a, b, c, d, 13, 4, 0x289b7ec6) H(d, a, b, c, 0, 11, 0xeaa127fa)   \
    H(c, d, a, b, 3, 16, 0xd4ef3085) H(b, c, d, a, 6, 23, 0x04881d05)   \
    H(a, b, c, d, 9, 4, 0xd9d4d039) H(d, a, b, c, 12, 11, 0xe6db99e5)   \
    H(c, d, a, b, 15, 16, 0x1fa27cf8) H(b, c, d, a, 2, 23, 0xc4ac5665)  \
    I(a, b, c, d, 0, 6, 0xf4292244) I(d, a, b, c, 7, 10, 0x432aff97)    \
    I(c, d, a, b, 14, 15, 0xab9423a7) I(b, c, d, a, 5, 21, 0xfc93a039)  \
    I(a, b, c, d, 12, 6, 0x655b59c3) I(d, a, b, c, 3, 10, 0x8f0ccc92)   \
    I(c, d, a, b, 10, 15, 0xffeff47d) I(b, c, d, a, 1, 21, 0x85845dd1)  \
    I(a, b, c, d, 8, 6, 0x6fa87e4f) I(d, a, b, c, 15, 10, 0xfe2ce6e0)   \
    I(c, d, a, b, 6, 15, 0xa3014314) I(b, c, d, a, 13, 21, 0x4e0811a1)  \
    I(a, b, c, d, 4, 6, 0xf7537e82) I(d, a, b, c, 11, 10, 0xbd3af235)   \
    I(c, d, a, b, 2, 15, 0x2ad7d2bb) I(b, c, d, a, 9, 21, 0xeb86d391)

/* a = b + rotate(a + f + m[g] + k, s) */
#define TKV_MD5_STEP(f, a, b, g, s, k) \
    a += (f) + m[g] + k; a = (a << s) | (a >> (32 - s)); a += b;

/* F and G in the forms with the shortest path from b: F selects by XOR; G's two terms share no bit, so it is a sum of which the
 * term without b can be added early. */
#define TKV_MD5_STEP_F(a, b, c, d, g, s, k) TKV_MD5_STEP(d ^ (b & (c ^ d)), a, b, g, s, k)
#define TKV_MD5_STEP_G(a, b, c, d, g, s, k) a += ~d & c; TKV_MD5_STEP(d & b, a, b, g, s, k)
#define TKV_MD5_STEP_H(a, b, c, d, g, s, k) TKV_MD5_STEP(b ^ c ^ d, a, b, g, s, k)
#define TKV_MD5_STEP_I(a, b, c, d, g, s, k) TKV_MD5_STEP(c ^ (b | ~d), a, b, g, s, k)

/* The blocks of a message: its bytes, TKV_MD5_END, and in the last eight bytes of the last block its length in bits. */
static inline uint64_t tkv_md5_blocks(uint64_t length) { return (length + TKV_MD5_LENGTH_BYTES) / TKV_MD5_BLOCK + 1; }

/* Defines name(), the digest of a key as two words: bytes 0..7 and 8..15, little-endian. Message words are 4 bytes each,
 * zero-extended. Words 14 and 15 of the last block are set as words, because the LP64 variant has the whole bit count in word
 * 14, where RFC 1321 has its low half. */
#define TKV_MD5_DEFINE(name, word) \
    static inline void name##_compress(word state[4], const word m[16]) \
    { \
        word a = state[0], b = state[1], c = state[2], d = state[3]; \
        TKV_MD5_STEPS(TKV_MD5_STEP_F, TKV_MD5_STEP_G, TKV_MD5_STEP_H, TKV_MD5_STEP_I) \
        state[0] += a; \
        state[1] += b; \
        state[2] += c; \
        state[3] += d; \
    } \
    static inline void name##_load(word m[16], const uint8_t* block) \
    { \
        for (int i = 0; i < 16; i++) { \
            uint32_t loaded; \
            memcpy(&loaded, block + 4 * i, 4); \
            m[i] = loaded; \
        } \
    } \
    static inline void name(const tkv_key* key, uint64_t halves[2]) \
    { \
        word state[4] = {TKV_MD5_A, TKV_MD5_B, TKV_MD5_C, TKV_MD5_D}, m[16]; \
        const uint64_t length = tkv_message_length(key), blocks = tkv_md5_blocks(length); \
        for (uint64_t i = 0; i < blocks; i++) { \
            uint64_t words[TKV_MD5_WORDS]; \
            tkv_block_words(words, TKV_MD5_WORDS, key, i * TKV_MD5_BLOCK, TKV_MD5_END); \
            name##_load(m, (const uint8_t*)words); \
            if (i == blocks - 1) { \
                m[14] = (word)(length << 3); \
                m[15] = sizeof(word) == 4 ? (word)(length >> 29) : 0; \
            } \
            name##_compress(state, m); \
        } \
        halves[0] = (uint32_t)state[0] | (uint64_t)(uint32_t)state[1] << 32; \
        halves[1] = (uint32_t)state[2] | (uint64_t)(uint32_t)state[3] << 32; \
    }

TKV_MD5_DEFINE(tkv_md5, uint32_t)
TKV_MD5_DEFINE(tkv_md5_lp64, uint64_t)

#endif
