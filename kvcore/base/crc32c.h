/* CRC-32C (Castagnoli, reflected; RFC 3720 appendix B.4): by instruction where the machine has one, by tables elsewhere.
 *
 * The CRC instruction takes 3 cycles but a new one starts every cycle, so long input is read as three neighbouring
 * streams of TKV_CRC_STREAM bytes at once. The register is linear in the input: the register of a stream is carried over the
 * stream after it by one table look-up per byte of the register (skip), and added to that stream's own.
 *
 * Every module that includes this header has its own tables (12 KiB), filled when the module is loaded.
 */

#ifndef TKV_CRC32C_H
#define TKV_CRC32C_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "tilekv reads and writes its little-endian files by plain loads and stores"
#endif

#define TKV_CRC_STREAM 256

static uint32_t tkv_crc_slice[8][256]; /* [k][b]: the register after byte b and k zero bytes */
static uint32_t tkv_crc_skip[4][256];  /* [k][b]: the register b << 8k after TKV_CRC_STREAM zero bytes */

static inline uint64_t tkv_crc_load(const uint8_t *p)
{
    uint64_t v;
    memcpy(&v, p, 8);
    return v;
}

/* Slicing-by-8. */
__attribute__((unused)) static uint32_t tkv_crc32c_tables(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data;
    crc = ~crc;
    for (; n >= 8; p += 8, n -= 8) {
        uint64_t v = tkv_crc_load(p) ^ crc;
        crc = 0;
        for (int k = 0; k < 8; k++)
            crc ^= tkv_crc_slice[7 - k][(v >> (8 * k)) & 0xff];
    }
    for (; n > 0; p++, n--)
        crc = (crc >> 8) ^ tkv_crc_slice[0][(crc ^ *p) & 0xff];
    return ~crc;
}

#if defined(__x86_64__)

#include <nmmintrin.h>
#define TKV_CRC_TARGET __attribute__((target("sse4.2")))
#define TKV_CRC_8(crc, v) _mm_crc32_u64((crc), (v))
#define TKV_CRC_1(crc, b) _mm_crc32_u8((uint32_t)(crc), (b))
typedef uint64_t tkv_crc_register; /* the instruction's own width: no extension between two of them */

static int tkv_crc_hardware(void)
{
    __builtin_cpu_init();
    return __builtin_cpu_supports("sse4.2");
}

#elif defined(__aarch64__)

#include <arm_acle.h>
#if defined(__linux__)
#include <sys/auxv.h>
#endif
#define TKV_CRC_TARGET __attribute__((target("+crc")))
#define TKV_CRC_8(crc, v) __crc32cd((crc), (v))
#define TKV_CRC_1(crc, b) __crc32cb((crc), (b))
typedef uint32_t tkv_crc_register;

static int tkv_crc_hardware(void)
{
#if defined(__linux__)
    return (getauxval(AT_HWCAP) >> 7) & 1; /* HWCAP_CRC32 */
#else
    return 1; /* every Apple processor of this kind */
#endif
}

#endif

#ifdef TKV_CRC_TARGET

static inline uint32_t tkv_crc_over_stream(uint32_t crc)
{
    return tkv_crc_skip[0][crc & 0xff] ^ tkv_crc_skip[1][(crc >> 8) & 0xff] ^ tkv_crc_skip[2][(crc >> 16) & 0xff]
           ^ tkv_crc_skip[3][crc >> 24];
}

TKV_CRC_TARGET static uint32_t tkv_crc32c_instruction(uint32_t crc, const void *data, size_t n)
{
    const uint8_t *p = (const uint8_t *)data;
    tkv_crc_register a = (uint32_t)~crc;
    for (; n >= 3 * TKV_CRC_STREAM; p += 3 * TKV_CRC_STREAM, n -= 3 * TKV_CRC_STREAM) {
        tkv_crc_register b = 0, c = 0;
        for (int i = 0; i < TKV_CRC_STREAM; i += 8) {
            a = TKV_CRC_8(a, tkv_crc_load(p + i));
            b = TKV_CRC_8(b, tkv_crc_load(p + TKV_CRC_STREAM + i));
            c = TKV_CRC_8(c, tkv_crc_load(p + 2 * TKV_CRC_STREAM + i));
        }
        a = tkv_crc_over_stream(tkv_crc_over_stream((uint32_t)a) ^ (uint32_t)b) ^ (uint32_t)c;
    }
    for (; n >= 8; p += 8, n -= 8)
        a = TKV_CRC_8(a, tkv_crc_load(p));
    for (; n > 0; p++, n--)
        a = TKV_CRC_1(a, *p);
    return ~(uint32_t)a;
}

#endif

static uint32_t (*tkv_crc32c_best)(uint32_t crc, const void *data, size_t n) = tkv_crc32c_tables;

__attribute__((constructor)) static void tkv_crc32c_fill(void)
{
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t crc = b;
        for (int bit = 0; bit < 8; bit++)
            crc = (crc >> 1) ^ (crc & 1 ? 0x82f63b78u : 0);
        tkv_crc_slice[0][b] = crc;
    }
    for (uint32_t b = 0; b < 256; b++)
        for (int k = 1; k < 8; k++) {
            uint32_t crc = tkv_crc_slice[k - 1][b];
            tkv_crc_slice[k][b] = (crc >> 8) ^ tkv_crc_slice[0][crc & 0xff];
        }
    for (int k = 0; k < 4; k++)
        for (uint32_t b = 1; b < 256; b++) {
            uint32_t crc = tkv_crc_skip[k][b & (b - 1)] ^ tkv_crc_skip[k][b & -b];
            if ((b & (b - 1)) == 0) {
                crc = b << (8 * k);
                for (int i = 0; i < TKV_CRC_STREAM; i++)
                    crc = (crc >> 8) ^ tkv_crc_slice[0][crc & 0xff];
            }
            tkv_crc_skip[k][b] = crc;
        }
#ifdef TKV_CRC_TARGET
    if (tkv_crc_hardware())
        tkv_crc32c_best = tkv_crc32c_instruction;
#endif
}

static inline uint32_t tkv_crc32c(uint32_t crc, const void *data, size_t n)
{
    return tkv_crc32c_best(crc, data, n);
}

#endif
