/* A split-block Bloom filter over digests: docs/format.md 8.10.
 *
 * A block is eight 32-bit words, in each of which a key sets one bit: one cache line, and one vector compare. The salts are those of
 * Parquet's filter (https://github.com/apache/parquet-format/blob/master/BloomFilter.md), odd numbers that spread 32 bits.
 */
#ifndef TKV_BLOOM_H
#define TKV_BLOOM_H

#include <stdint.h>
#include <string.h>

#define TKV_BLOOM_WORDS 8

static const uint32_t tkv_bloom_salts[TKV_BLOOM_WORDS] = {
    0x47b6137bu, 0x44974d91u, 0x8824ad5bu, 0xa2b7289du, 0x705495c7u, 0x2df1424bu, 0x9efc4947u, 0x5c6bfb31u,
};

/* floor(a * b / 2^64) */
static inline uint64_t tkv_high_product(uint64_t a, uint64_t b)
{
    return (uint64_t)(((unsigned __int128)a * b) >> 64);
}

/* floor(a * 2^64 / b), or 2^64 - 1 where that is more. */
static inline uint64_t tkv_high_ratio(uint64_t a, uint64_t b)
{
    return a >= b ? UINT64_MAX : (uint64_t)(((unsigned __int128)a << 64) / b);
}

static inline void tkv_bloom_set(uint8_t *block, uint32_t hash)
{
    uint32_t words[TKV_BLOOM_WORDS];
    int i;
    memcpy(words, block, sizeof words);
    for (i = 0; i < TKV_BLOOM_WORDS; i++)
        words[i] |= 1u << ((hash * tkv_bloom_salts[i]) >> 27);
    memcpy(block, words, sizeof words);
}

static inline int tkv_bloom_has(const uint8_t *block, uint32_t hash)
{
    uint32_t words[TKV_BLOOM_WORDS], missing = 0;
    int i;
    memcpy(words, block, sizeof words);
    for (i = 0; i < TKV_BLOOM_WORDS; i++)
        missing |= ~words[i] & (1u << ((hash * tkv_bloom_salts[i]) >> 27));
    return missing == 0;
}

#endif
