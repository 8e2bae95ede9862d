/* SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; one compression and three finalisation rounds) of
 *
 *     u64 first | bytes
 *
 * The word in front lets a caller hash a tag together with bytes that stay where they are.
 */
#ifndef TKV_SIPHASH_H
#define TKV_SIPHASH_H

#include <stdint.h>
#include <string.h>

#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tilekv needs a little-endian machine: SipHash loads its message words as they lie in memory"
#endif

#define TKV_ROTL64(x, n) (((x) << (n)) | ((x) >> (64 - (n))))

#define TKV_SIPROUND(v0, v1, v2, v3)                                                     \
    do {                                                                                 \
        v0 += v1; v1 = TKV_ROTL64(v1, 13); v1 ^= v0; v0 = TKV_ROTL64(v0, 32);            \
        v2 += v3; v3 = TKV_ROTL64(v3, 16); v3 ^= v2;                                     \
        v0 += v3; v3 = TKV_ROTL64(v3, 21); v3 ^= v0;                                     \
        v2 += v1; v1 = TKV_ROTL64(v1, 17); v1 ^= v2; v2 = TKV_ROTL64(v2, 32);            \
    } while (0)

#define TKV_SIP_ABSORB(word)              \
    do {                                  \
        const uint64_t absorbed = (word); \
        v3 ^= absorbed;                   \
        TKV_SIPROUND(v0, v1, v2, v3);     \
        v0 ^= absorbed;                   \
    } while (0)

/* `bytes` may be NULL when `size` is 0. */
static inline uint64_t tkv_siphash13(const uint64_t secret[2], uint64_t first, const uint8_t* bytes, uint64_t size)
{
    uint64_t v0 = secret[0] ^ UINT64_C(0x736f6d6570736575), v1 = secret[1] ^ UINT64_C(0x646f72616e646f6d);
    uint64_t v2 = secret[0] ^ UINT64_C(0x6c7967656e657261), v3 = secret[1] ^ UINT64_C(0x7465646279746573);
    uint64_t last = (sizeof first + size) << 56; /* the message length mod 256, above the 0 to 7 bytes left over */

    TKV_SIP_ABSORB(first);
    for (; size >= 8; bytes += 8, size -= 8) {
        uint64_t word;
        memcpy(&word, bytes, sizeof word);
        TKV_SIP_ABSORB(word);
    }
    for (unsigned i = 0; i < size; i++)
        last |= (uint64_t)bytes[i] << 8 * i;
    TKV_SIP_ABSORB(last);

    v2 ^= 0xff;
    TKV_SIPROUND(v0, v1, v2, v3);
    TKV_SIPROUND(v0, v1, v2, v3);
    TKV_SIPROUND(v0, v1, v2, v3);
    return v0 ^ v1 ^ v2 ^ v3;
}

#endif
