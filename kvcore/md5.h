/* MD5 (RFC 1321) of the digest message of FORMAT.md 1:
 *
 *     u8 key type | u64 key size | key bytes
 *
 * and the variant that TileDB 1.x computed on LP64 systems (FORMAT.md 1.1). Its source took `unsigned long` for a 32-bit word:
 * state, sums and NOT are 64 bits wide there, and "rotate left" is (x << s) | (x >> (32 - s)), a rotation of 32-bit words only.
 * So both are one text, instantiated for uint32_t and for uint64_t; nothing below may assume a word's width.
 *
 * Keys of up to 46 bytes are one block, built on the stack; longer ones are compressed where they lie. Nothing is allocated.
 */
#ifndef TKV_MD5_H
#define TKV_MD5_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tilekv needs a little-endian machine: MD5 loads its message words as they lie in memory"
#endif

enum { TKV_MD5_BLOCK = 64, TKV_MD5_PREFIX = 9, TKV_MD5_LENGTH_AT = 56 };

/* a = b + rotate(a + f + m[g] + k, s) */
#define TKV_MD5_STEP(f, a, b, g, s, k) \
    a += (f) + m[g] + k; a = (a << s) | (a >> (32 - s)); a += b

/* F and G in the forms with the shortest path from b: F selects by XOR; G's two terms share no bit, so it is a sum of which the
 * term without b can be added early. */
#define TKV_MD5_STEP_F(a, b, c, d, g, s, k) TKV_MD5_STEP(d ^ (b & (c ^ d)), a, b, g, s, k)
#define TKV_MD5_STEP_G(a, b, c, d, g, s, k) a += ~d & c; TKV_MD5_STEP(d & b, a, b, g, s, k)
#define TKV_MD5_STEP_H(a, b, c, d, g, s, k) TKV_MD5_STEP(b ^ c ^ d, a, b, g, s, k)
#define TKV_MD5_STEP_I(a, b, c, d, g, s, k) TKV_MD5_STEP(c ^ (b | ~d), a, b, g, s, k)

/* The 64 steps of RFC 1321, 3.4, over a, b, c, d and m. */
#define TKV_MD5_STEPS \
    TKV_MD5_STEP_F(a, b, c, d, 0, 7, 0xd76aa478);   TKV_MD5_STEP_F(d, a, b, c, 1, 12, 0xe8c7b756);  \
    TKV_MD5_STEP_F(c, d, a, b, 2, 17, 0x242070db);  TKV_MD5_STEP_F(b, c, d, a, 3, 22, 0xc1bdceee);  \
    TKV_MD5_STEP_F(a, b, c, d, 4, 7, 0xf57c0faf);   TKV_MD5_STEP_F(d, a, b, c, 5, 12, 0x4787c62a);  \
    TKV_MD5_STEP_F(c, d, a, b, 6, 17, 0xa8304613);  TKV_MD5_STEP_F(b, c, d, a, 7, 22, 0xfd469501);  \
    TKV_MD5_STEP_F(a, b, c, d, 8, 7, 0x698098d8);   TKV_MD5_STEP_F(d, a, b, c, 9, 12, 0x8b44f7af);  \
    TKV_MD5_STEP_F(c, d, a, b, 10, 17, 0xffff5bb1); TKV_MD5_STEP_F(b, c, d, a, 11, 22, 0x895cd7be); \
    TKV_MD5_STEP_F(a, b, c, d, 12, 7, 0x6b901122);  TKV_MD5_STEP_F(d, a, b, c, 13, 12, 0xfd987193); \
    TKV_MD5_STEP_F(c, d, a, b, 14, 17, 0xa679438e); TKV_MD5_STEP_F(b, c, d, a, 15, 22, 0x49b40821); \
    TKV_MD5_STEP_G(a, b, c, d, 1, 5, 0xf61e2562);   TKV_MD5_STEP_G(d, a, b, c, 6, 9, 0xc040b340);   \
    TKV_MD5_STEP_G(c, d, a, b, 11, 14, 0x265e5a51); TKV_MD5_STEP_G(b, c, d, a, 0, 20, 0xe9b6c7aa);  \
    TKV_MD5_STEP_G(a, b, c, d, 5, 5, 0xd62f105d);   TKV_MD5_STEP_G(d, a, b, c, 10, 9, 0x02441453);  \
    TKV_MD5_STEP_G(c, d, a, b, 15, 14, 0xd8a1e681); TKV_MD5_STEP_G(b, c, d, a, 4, 20, 0xe7d3fbc8);  \
    TKV_MD5_STEP_G(a, b, c, d, 9, 5, 0x21e1cde6);   TKV_MD5_STEP_G(d, a, b, c, 14, 9, 0xc33707d6);  \
    TKV_MD5_STEP_G(c, d, a, b, 3, 14, 0xf4d50d87);  TKV_MD5_STEP_G(b, c, d, a, 8, 20, 0x455a14ed);  \
    TKV_MD5_STEP_G(a, b, c, d, 13, 5, 0xa9e3e905);  TKV_MD5_STEP_G(d, a, b, c, 2, 9, 0xfcefa3f8);   \
    TKV_MD5_STEP_G(c, d, a, b, 7, 14, 0x676f02d9);  TKV_MD5_STEP_G(b, c, d, a, 12, 20, 0x8d2a4c8a); \
    TKV_MD5_STEP_H(a, b, c, d, 5, 4, 0xfffa3942);   TKV_MD5_STEP_H(d, a, b, c, 8, 11, 0x8771f681);  \
    TKV_MD5_STEP_H(c, d, a, b, 11, 16, 0x6d9d6122); TKV_MD5_STEP_H(b, c, d, a, 14, 23, 0xfde5380c); \
    TKV_MD5_STEP_H(a, b, c, d, 1, 4, 0xa4beea44);   TKV_MD5_STEP_H(d, a, b, c, 4, 11, 0x4bdecfa9);  \
    TKV_MD5_STEP_H(c, d, a, b, 7, 16, 0xf6bb4b60);  TKV_MD5_STEP_H(b, c, d, a, 10, 23, 0xbebfbc70); \
    TKV_MD5_STEP_H(a, b, c, d, 13, 4, 0x289b7ec6);  TKV_MD5_STEP_H(d, a, b, c, 0, 11, 0xeaa127fa);  \
    TKV_MD5_STEP_H(c, d, a, b, 3, 16, 0xd4ef3085);  TKV_MD5_STEP_H(b, c, d, a, 6, 23, 0x04881d05);  \
    TKV_MD5_STEP_H(a, b, c, d, 9, 4, 0xd9d4d039);   TKV_MD5_STEP_H(d, a, b, c, 12, 11, 0xe6db99e5); \
    TKV_MD5_STEP_H(c, d, a, b, 15, 16, 0x1fa27cf8); TKV_MD5_STEP_H(b, c, d, a, 2, 23, 0xc4ac5665);  \
    TKV_MD5_STEP_I(a, b, c, d, 0, 6, 0xf4292244);   TKV_MD5_STEP_I(d, a, b, c, 7, 10, 0x432aff97);  \
    TKV_MD5_STEP_I(c, d, a, b, 14, 15, 0xab9423a7); TKV_MD5_STEP_I(b, c, d, a, 5, 21, 0xfc93a039);  \
    TKV_MD5_STEP_I(a, b, c, d, 12, 6, 0x655b59c3);  TKV_MD5_STEP_I(d, a, b, c, 3, 10, 0x8f0ccc92);  \
    TKV_MD5_STEP_I(c, d, a, b, 10, 15, 0xffeff47d); TKV_MD5_STEP_I(b, c, d, a, 1, 21, 0x85845dd1);  \
    TKV_MD5_STEP_I(a, b, c, d, 8, 6, 0x6fa87e4f);   TKV_MD5_STEP_I(d, a, b, c, 15, 10, 0xfe2ce6e0); \
    TKV_MD5_STEP_I(c, d, a, b, 6, 15, 0xa3014314);  TKV_MD5_STEP_I(b, c, d, a, 13, 21, 0x4e0811a1); \
    TKV_MD5_STEP_I(a, b, c, d, 4, 6, 0xf7537e82);   TKV_MD5_STEP_I(d, a, b, c, 11, 10, 0xbd3af235); \
    TKV_MD5_STEP_I(c, d, a, b, 2, 15, 0x2ad7d2bb);  TKV_MD5_STEP_I(b, c, d, a, 9, 21, 0xeb86d391);

/* Defines name(), the digest of a key as two words: bytes 0..7 and 8..15, little-endian. `key` may be NULL when `size` is 0.
 * Message words are 4 bytes each, zero-extended. Words 14 and 15 of the last block are set as words, not as bytes, because the
 * LP64 variant has the whole bit count in word 14, where RFC 1321 has its low half. */
#define TKV_MD5_DEFINE(name, word) \
    static inline void name##_compress(word state[4], const word m[16]) \
    { \
        word a = state[0], b = state[1], c = state[2], d = state[3]; \
        TKV_MD5_STEPS \
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
    static inline void name(uint8_t type, const uint8_t* key, uint64_t size, uint64_t halves[2]) \
    { \
        word state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, m[16]; \
        const uint64_t total = TKV_MD5_PREFIX + size; \
        uint8_t block[TKV_MD5_BLOCK] = {type}; \
        size_t used = TKV_MD5_PREFIX; \
        memcpy(block + 1, &size, sizeof size); \
        if (total >= TKV_MD5_BLOCK) { \
            const size_t room = TKV_MD5_BLOCK - TKV_MD5_PREFIX; \
            memcpy(block + TKV_MD5_PREFIX, key, room); \
            name##_load(m, block); \
            name##_compress(state, m); \
            for (key += room, size -= room; size >= TKV_MD5_BLOCK; key += TKV_MD5_BLOCK, size -= TKV_MD5_BLOCK) { \
                name##_load(m, key); \
                name##_compress(state, m); \
            } \
            memset(block, 0, sizeof block); \
            used = 0; \
        } \
        if (size) \
            memcpy(block + used, key, size); \
        used += size; \
        block[used] = 0x80; \
        name##_load(m, block); \
        if (used >= TKV_MD5_LENGTH_AT) { /* no room left for the bit count */ \
            name##_compress(state, m); \
            memset(m, 0, sizeof m); \
        } \
        m[14] = (word)(total << 3); \
        m[15] = sizeof(word) == 4 ? (word)(total >> 29) : 0; \
        name##_compress(state, m); \
        halves[0] = (uint32_t)state[0] | (uint64_t)(uint32_t)state[1] << 32; \
        halves[1] = (uint32_t)state[2] | (uint64_t)(uint32_t)state[3] << 32; \
    }

TKV_MD5_DEFINE(tkv_md5, uint32_t)
TKV_MD5_DEFINE(tkv_md5_lp64, uint64_t)

#endif
