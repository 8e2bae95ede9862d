/* The levels of vector instructions that the digests have kernels for, and the hash functions at each. The package is built for
 * the baseline of its processor family: only the kernels of a level use its instructions, and which level is used is decided when
 * the module is loaded. Other processors than x86-64 have the scalar level alone.
 */
#ifndef TKV_SIMD_DISPATCH_H
#define TKV_SIMD_DISPATCH_H

#include "hashing/multi_hash.h"

enum { TKV_SCALAR, TKV_AVX2, TKV_AVX512, TKV_LEVELS };

static inline void tkv_colliding(const tkv_key* key, uint64_t halves[2])
{
    (void)key;
    halves[0] = halves[1] = 1;
}

static const tkv_hash tkv_scalar[TKV_KINDS] = {
    [TKV_BLAKE2B] = {.one = tkv_blake2b},
    [TKV_MD5] = {.one = tkv_md5},
    [TKV_MD5_LP64] = {.one = tkv_md5_lp64},
    [TKV_COLLIDING] = {.one = tkv_colliding},
};

#if defined(__x86_64__)

#include <immintrin.h>

/* --- AVX2: no rotation, but a byte shuffle is one where the count is a multiple of 8 --- */

#define TKV_AT(name) name##_avx2
#define TKV_TARGET __attribute__((target("avx2")))
#define TKV_WIDTH 32

TKV_TARGET __attribute__((always_inline)) static inline __m256i tkv_rotr64_avx2(__m256i x, int n)
{
    const __m256i by_24 = _mm256_setr_epi8(3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10,
                                           3, 4, 5, 6, 7, 0, 1, 2, 11, 12, 13, 14, 15, 8, 9, 10);
    const __m256i by_16 = _mm256_setr_epi8(2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9,
                                           2, 3, 4, 5, 6, 7, 0, 1, 10, 11, 12, 13, 14, 15, 8, 9);
    switch (n) {
    case 32:
        return _mm256_shuffle_epi32(x, 0xb1);
    case 24:
        return _mm256_shuffle_epi8(x, by_24);
    case 16:
        return _mm256_shuffle_epi8(x, by_16);
    default: /* 63 */
        return _mm256_or_si256(_mm256_srli_epi64(x, 63), _mm256_add_epi64(x, x));
    }
}

TKV_TARGET __attribute__((always_inline)) static inline void tkv_transpose_avx2(
    __m256i columns[4], const uint8_t* const blocks[4], size_t at)
{
    __m256i r[4], t[4];
    for (int i = 0; i < 4; i++)
        r[i] = _mm256_loadu_si256((const __m256i*)(blocks[i] + at));
    for (int i = 0; i < 4; i += 2) {
        t[i] = _mm256_unpacklo_epi64(r[i], r[i + 1]); /* words 0 and 2 */
        t[i + 1] = _mm256_unpackhi_epi64(r[i], r[i + 1]); /* words 1 and 3 */
    }
    for (int i = 0; i < 2; i++) {
        columns[i] = _mm256_permute2x128_si256(t[i], t[i + 2], 0x20);
        columns[i + 2] = _mm256_permute2x128_si256(t[i], t[i + 2], 0x31);
    }
}

#define TKV_TRANSPOSE(columns, blocks, at) tkv_transpose_avx2((__m256i*)(columns), blocks, at)
#define TKV_ROTR64(x, n) (TKV_V64)tkv_rotr64_avx2((__m256i)(x), n)
#define TKV_ROTL32(x, n) ((x) << (n) | (x) >> (32 - (n)))
#define TKV_F(b, c, d) (d ^ (b & (c ^ d)))
#define TKV_G(b, c, d) ((d & b) + (~d & c))
#define TKV_H(b, c, d) (b ^ c ^ d)
#define TKV_I(b, c, d) (c ^ (b | ~d))
#define TKV_EVEN(x, y) (TKV_V32)_mm256_shuffle_ps((__m256)(x), (__m256)(y), 0x88)
#define TKV_ODD(x, y) (TKV_V32)_mm256_shuffle_ps((__m256)(x), (__m256)(y), 0xdd)
#define TKV_LOW(even, odd) (TKV_V64)_mm256_unpacklo_epi32((__m256i)(even), (__m256i)(odd))
#define TKV_HIGH(even, odd) (TKV_V64)_mm256_unpackhi_epi32((__m256i)(even), (__m256i)(odd))

#include "hashing/multi_hash_kernels.h"

#undef TKV_AT
#undef TKV_TARGET
#undef TKV_WIDTH
#undef TKV_TRANSPOSE
#undef TKV_ROTR64
#undef TKV_ROTL32
#undef TKV_F
#undef TKV_G
#undef TKV_H
#undef TKV_I
#undef TKV_EVEN
#undef TKV_ODD
#undef TKV_LOW
#undef TKV_HIGH

/* --- AVX-512: rotations, and any function of three bits in one instruction, which is named by its table of values --- */

#define TKV_AT(name) name##_avx512
#define TKV_TARGET __attribute__((target("avx512f")))
#define TKV_WIDTH 64

TKV_TARGET __attribute__((always_inline)) static inline void tkv_transpose_avx512(
    __m512i columns[8], const uint8_t* const blocks[8], size_t at)
{
    __m512i r[8], t[8], u[8];
    for (int i = 0; i < 8; i++)
        r[i] = _mm512_loadu_si512(blocks[i] + at);
    for (int i = 0; i < 8; i += 2) {
        t[i] = _mm512_unpacklo_epi64(r[i], r[i + 1]);     /* words 0, 2, 4 and 6 */
        t[i + 1] = _mm512_unpackhi_epi64(r[i], r[i + 1]); /* words 1, 3, 5 and 7 */
    }
    for (int i = 0; i < 8; i += 4)
        for (int odd = 0; odd < 2; odd++) {
            u[i + odd] = _mm512_permutex2var_epi64(
                t[i + odd], _mm512_setr_epi64(0, 1, 8, 9, 4, 5, 12, 13), t[i + 2 + odd]); /* words 0 and 4 */
            u[i + 2 + odd] = _mm512_permutex2var_epi64(
                t[i + odd], _mm512_setr_epi64(2, 3, 10, 11, 6, 7, 14, 15), t[i + 2 + odd]); /* words 2 and 6 */
        }
    for (int i = 0; i < 4; i++) {
        columns[i] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0x44);
        columns[i + 4] = _mm512_shuffle_i64x2(u[i], u[i + 4], 0xee);
    }
}

#define TKV_TRANSPOSE(columns, blocks, at) tkv_transpose_avx512((__m512i*)(columns), blocks, at)
#define TKV_ROTR64(x, n) (TKV_V64)_mm512_ror_epi64((__m512i)(x), n)
#define TKV_ROTL32(x, n) (TKV_V32)_mm512_rol_epi32((__m512i)(x), n)
#define TKV_OF_BITS(b, c, d, table) (TKV_V32)_mm512_ternarylogic_epi32((__m512i)(b), (__m512i)(c), (__m512i)(d), table)
#define TKV_F(b, c, d) TKV_OF_BITS(b, c, d, 0xca)
#define TKV_G(b, c, d) TKV_OF_BITS(b, c, d, 0xe4)
#define TKV_H(b, c, d) TKV_OF_BITS(b, c, d, 0x96)
#define TKV_I(b, c, d) TKV_OF_BITS(b, c, d, 0x39)
#define TKV_EVEN(x, y) (TKV_V32)_mm512_shuffle_ps((__m512)(x), (__m512)(y), 0x88)
#define TKV_ODD(x, y) (TKV_V32)_mm512_shuffle_ps((__m512)(x), (__m512)(y), 0xdd)
#define TKV_LOW(even, odd) (TKV_V64)_mm512_unpacklo_epi32((__m512i)(even), (__m512i)(odd))
#define TKV_HIGH(even, odd) (TKV_V64)_mm512_unpackhi_epi32((__m512i)(even), (__m512i)(odd))

#include "hashing/multi_hash_kernels.h"

/* The highest level that this processor runs, and its operating system lets it run. */
static inline int tkv_best_level(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") ? TKV_AVX512 : __builtin_cpu_supports("avx2") ? TKV_AVX2 : TKV_SCALAR;
}

/* REQUIRES: level <= tkv_best_level(). */
static inline const tkv_hash* tkv_hash_at(int kind, int level)
{
    if (level == TKV_SCALAR || kind > TKV_MD5)
        return &tkv_scalar[kind];
    if (kind == TKV_BLAKE2B)
        return level == TKV_AVX2 ? &tkv_blake2b_avx2 : &tkv_blake2b_avx512;
    return level == TKV_AVX2 ? &tkv_md5_avx2 : &tkv_md5_avx512;
}

#else

static inline int tkv_best_level(void) { return TKV_SCALAR; }
static inline const tkv_hash* tkv_hash_at(int kind, int level)
{
    (void)level;
    return &tkv_scalar[kind];
}

#endif
#endif
