/* Strict UTF-8 (RFC 3629): no surrogates, nothing overlong, nothing above U+10FFFF; what Python's decoder takes. */
#ifndef TKV_UTF8_H
#define TKV_UTF8_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline int tkv_utf8_valid(const uint8_t *at, size_t n)
{
    const uint8_t *end = at + n;
    while (at < end) {
        uint8_t lead = *at, low = 0x80, high = 0xBF;
        int more;
        if (lead < 0x80) {
            uint64_t word;
            if (end - at >= 8 && (memcpy(&word, at, 8), (word & UINT64_C(0x8080808080808080)) == 0))
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
