/* Strict UTF-8 (RFC 3629): no surrogates, nothing overlong, nothing above U+10FFFF; what Python's decoder takes. */
#ifndef TKV_UTF8_H
#define TKV_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define TKV_NOT_ASCII UINT64_C(0x8080808080808080)  /* of the eight bytes of a word */

/* Every byte is a character of its own. */
static inline int tkv_ascii(const uint8_t *at, size_t n)
{
    uint64_t words[8];
    uint8_t any = 0;
    for (; n >= sizeof words; at += sizeof words, n -= sizeof words) {
        memcpy(words, at, sizeof words);
        if ((words[0] | words[1] | words[2] | words[3] | words[4] | words[5] | words[6] | words[7]) & TKV_NOT_ASCII)
            return 0;
    }
    while (n > 0)
        any |= at[--n];
    return any < 0x80;
}

static inline int tkv_utf8_valid(const uint8_t *at, size_t n)
{
    const uint8_t *end = at + n;
    while (at < end) {
        uint8_t lead = *at, low = 0x80, high = 0xBF;
        int more;
        if (lead < 0x80) {
            uint64_t words[4];
            if (end - at >= 32 && (memcpy(words, at, 32), ((words[0] | words[1] | words[2] | words[3]) & TKV_NOT_ASCII) == 0))
                at += 32;
            else if (end - at >= 8 && (memcpy(words, at, 8), (words[0] & TKV_NOT_ASCII) == 0))
                at += 8;
            else
                at++;
            continue;
        }
        if (lead >= 0xC2 && lead <= 0xDF) {
            more = 1;
        } else if ((lead & 0xF0) == 0xE0) {
            more = 2;
            if (lead == 0xE0)
                low = 0xA0;
            else if (lead == 0xED)
                high = 0x9F;
        } else if (lead >= 0xF0 && lead <= 0xF4) {
            more = 3;
            if (lead == 0xF0)
                low = 0x90;
            else if (lead == 0xF4)
                high = 0x8F;
        } else {
            return 0;
        }
        if (end - at <= more || at[1] < low || at[1] > high)
            return 0;
        for (at += 2; --more > 0; at++)
            if ((*at & 0xC0) != 0x80)
                return 0;
    }
    return 1;
}

#endif
