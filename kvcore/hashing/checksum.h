/* MD5 (RFC 1321) and SHA-256 (RFC 6234) of n bytes as they lie in memory; `data` may be NULL when n is 0. Nothing is allocated. */
#ifndef TKV_CHECKSUM_H
#define TKV_CHECKSUM_H

#include "hashing/md5.h"

enum { TKV_MD5_BYTES = 16, TKV_SHA256_BYTES = 32, TKV_SUM_BLOCK = 64, TKV_SUM_LENGTH_AT = 56 };

/* The blocks that end a message, of which `data` has the last n % 64 bytes: 0x80, zeros, room for the bit count. Returns 1 or 2. */
static inline int tkv_sum_padding(const uint8_t* data, size_t n, uint8_t tail[2 * TKV_SUM_BLOCK])
{
    const size_t used = n % TKV_SUM_BLOCK;
    memset(tail, 0, 2 * TKV_SUM_BLOCK);
    if (used)
        memcpy(tail, data + (n - used), used);
    tail[used] = 0x80;
    return used < TKV_SUM_LENGTH_AT ? 1 : 2;
}

static inline void tkv_md5_of(const uint8_t* data, size_t n, uint8_t digest[TKV_MD5_BYTES])
{
    uint32_t state[4] = {0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, m[16];
    uint8_t tail[2 * TKV_SUM_BLOCK];
    const int blocks = tkv_sum_padding(data, n, tail);
    const uint64_t bits = (uint64_t)n << 3;
    memcpy(tail + TKV_SUM_BLOCK * blocks - 8, &bits, sizeof bits);
    for (size_t at = 0; n - at >= TKV_SUM_BLOCK; at += TKV_SUM_BLOCK) {
        tkv_md5_load(m, data + at);
        tkv_md5_compress(state, m);
    }
    for (int i = 0; i < blocks; i++) {
        tkv_md5_load(m, tail + TKV_SUM_BLOCK * i);
        tkv_md5_compress(state, m);
    }
    memcpy(digest, state, TKV_MD5_BYTES);
}

/* RFC 6234, 5.1: the first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
static const uint32_t tkv_sha256_k[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5, 0xd807aa98, 0x12835b01,
    0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174, 0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc,
    0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da, 0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147,
    0x06ca6351, 0x14292967, 0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070, 0x19a4c116, 0x1e376c08,
    0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3, 0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208,
    0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static inline uint32_t tkv_sha256_rotate(uint32_t x, int n)
{
    return x >> n | x << (32 - n);
}

/* RFC 6234, 6.2 step 3, where the eight variables stay and their names move. */
#define TKV_SHA256_STEP(a, b, c, d, e, f, g, h, i) \
    h += (tkv_sha256_rotate(e, 6) ^ tkv_sha256_rotate(e, 11) ^ tkv_sha256_rotate(e, 25)) + (g ^ (e & (f ^ g))) \
         + tkv_sha256_k[i] + w[i]; \
    d += h; \
    h += (tkv_sha256_rotate(a, 2) ^ tkv_sha256_rotate(a, 13) ^ tkv_sha256_rotate(a, 22)) + ((a & b) | (c & (a | b)))

static inline void tkv_sha256_compress(uint32_t state[8], const uint8_t* block)
{
    uint32_t a = state[0], b = state[1], c = state[2], d = state[3], e = state[4], f = state[5], g = state[6], h = state[7];
    uint32_t w[64];
    for (int i = 0; i < 16; i++) {
        uint32_t loaded;
        memcpy(&loaded, block + 4 * i, 4);
        w[i] = __builtin_bswap32(loaded);
    }
    for (int i = 16; i < 64; i++) {
        const uint32_t x = w[i - 15], y = w[i - 2];
        w[i] = w[i - 16] + (tkv_sha256_rotate(x, 7) ^ tkv_sha256_rotate(x, 18) ^ x >> 3) + w[i - 7]
               + (tkv_sha256_rotate(y, 17) ^ tkv_sha256_rotate(y, 19) ^ y >> 10);
    }
    for (int i = 0; i < 64; i += 8) {
        TKV_SHA256_STEP(a, b, c, d, e, f, g, h, i);
        TKV_SHA256_STEP(h, a, b, c, d, e, f, g, i + 1);
        TKV_SHA256_STEP(g, h, a, b, c, d, e, f, i + 2);
        TKV_SHA256_STEP(f, g, h, a, b, c, d, e, i + 3);
        TKV_SHA256_STEP(e, f, g, h, a, b, c, d, i + 4);
        TKV_SHA256_STEP(d, e, f, g, h, a, b, c, i + 5);
        TKV_SHA256_STEP(c, d, e, f, g, h, a, b, i + 6);
        TKV_SHA256_STEP(b, c, d, e, f, g, h, a, i + 7);
    }
    state[0] += a;
    state[1] += b;
    state[2] += c;
    state[3] += d;
    state[4] += e;
    state[5] += f;
    state[6] += g;
    state[7] += h;
}

static inline void tkv_sha256_of(const uint8_t* data, size_t n, uint8_t digest[TKV_SHA256_BYTES])
{
    uint32_t state[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    uint8_t tail[2 * TKV_SUM_BLOCK];
    const int blocks = tkv_sum_padding(data, n, tail);
    const uint64_t bits = __builtin_bswap64((uint64_t)n << 3);
    memcpy(tail + TKV_SUM_BLOCK * blocks - 8, &bits, sizeof bits);
    for (size_t at = 0; n - at >= TKV_SUM_BLOCK; at += TKV_SUM_BLOCK)
        tkv_sha256_compress(state, data + at);
    for (int i = 0; i < blocks; i++)
        tkv_sha256_compress(state, tail + TKV_SUM_BLOCK * i);
    for (int i = 0; i < 8; i++) {
        const uint32_t word = __builtin_bswap32(state[i]);
        memcpy(digest + 4 * i, &word, 4);
    }
}

#endif
