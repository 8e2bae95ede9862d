/* Where a cell is: see address.pxd. In C for its unions, which Cython has no words for. */
#ifndef TKV_ADDRESS_H
#define TKV_ADDRESS_H

#include <stdint.h>

typedef struct {
    union {
        uint64_t tile;
        const uint8_t *record;
    };
    union {
        uint32_t cell;
        uint32_t key_size;
    };
    uint32_t fragment;
    uint32_t n;
    uint8_t type;
} tkv_cell_address;

#endif
