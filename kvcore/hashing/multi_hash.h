/* Digests of many keys at once: every lane of the vector registers hashes a key of its own.
 *
 * Here is what both hash functions and all levels of instructions share: which key goes into which lane, and where the next block
 * of its message lies. The kernels (multi_hash_kernels.h) load the blocks and compute.
 *
 * Short keys, of one block, are collected until every lane has one. The others go through the lanes block by block, and a lane
 * that is done takes the next of them, so lengths may be mixed.
 */
#ifndef TKV_MULTI_HASH_H
#define TKV_MULTI_HASH_H

#include "hashing/blake2b.h"
#include "hashing/md5.h"

/* A short key is one block of either hash function, and its message eight words. */
enum { TKV_SHORT_KEY = TKV_MD5_BLOCK - TKV_MD5_LENGTH_BYTES - 1 - TKV_PREFIX, TKV_SHORT_WORDS = TKV_MD5_WORDS };

enum { TKV_MOST_LANES = 32, TKV_BLOCKS_WORDS = 256, TKV_STATE_WORDS = 128 };

/* Fewer keys than this are digested one by one. Zen 5: a block of BLAKE2b in all 16 lanes of AVX-512 takes as long as 2.7 blocks
 * one after another, in all 8 lanes of AVX2 as long as 3.5; MD5 less. */
enum { TKV_LANES_PAY = 4 };

typedef struct tkv_lanes {
    const uint8_t* block[TKV_MOST_LANES];           /* of every lane's message: in the key, or in `blocks` */
    _Alignas(64) uint64_t blocks[TKV_BLOCKS_WORDS]; /* room for a block a lane, for those with a message's begin or end */
    _Alignas(64) uint64_t state[TKV_STATE_WORDS];   /* rows of one word for each lane; the first two are the digest's halves */
    _Alignas(64) uint64_t count[TKV_MOST_LANES];    /* the message length up to the end of this block */
    _Alignas(64) uint64_t last[TKV_MOST_LANES];     /* all ones where the message ends with this block, else zero */
} tkv_lanes;

/* A hash function at one level of instructions. */
typedef struct tkv_hash {
    void (*one)(const tkv_key* key, uint64_t halves[2]);
    void (*whole)(tkv_lanes* lanes);        /* the digests of short keys, the first TKV_SHORT_WORDS of whose blocks are given */
    void (*step)(tkv_lanes* lanes);         /* one more block into the state */
    uint64_t (*blocks)(uint64_t length);    /* of a message */
    const uint64_t* start;                  /* the state before the first block, the same in all lanes */
    unsigned lanes, rows, words;            /* rows of the state, words of a block; lanes is 0 where there is `one` alone */
    uint8_t end;                            /* the byte after the message */
    uint8_t length_word;                    /* of the last block, which has the length in bits; 0: there is none */
} tkv_hash;

/* The keys in the lanes, by their place in the batch. */
typedef struct tkv_batch {
    const tkv_hash* hash;
    const tkv_key* keys;
    size_t n;
    uint64_t* c0;
    uint64_t* c1;
    size_t owner[TKV_MOST_LANES];
} tkv_batch;

static inline void tkv_one(const tkv_hash* hash, const tkv_key* key, uint64_t* c0, uint64_t* c1)
{
    uint64_t halves[2];
    hash->one(key, halves);
    *c0 = halves[0];
    *c1 = halves[1];
}

static inline void tkv_one_of(const tkv_batch* batch, size_t i)
{
    tkv_one(batch->hash, &batch->keys[i], &batch->c0[i], &batch->c1[i]);
}

static inline void tkv_take(const tkv_batch* batch, const tkv_lanes* lanes, unsigned lane)
{
    batch->c0[batch->owner[lane]] = lanes->state[lane];
    batch->c1[batch->owner[lane]] = lanes->state[batch->hash->lanes + lane];
}

static inline uint64_t* tkv_room(const tkv_hash* hash, tkv_lanes* lanes, unsigned lane)
{
    return lanes->blocks + lane * hash->words;
}

/* Returns how many keys are not short. REQUIRES: lanes->block[lane] is the lane's room. */
static size_t tkv_short_keys(tkv_batch* batch, tkv_lanes* lanes)
{
    const tkv_hash* hash = batch->hash;
    size_t longer = 0;
    unsigned filled = 0;
    for (size_t i = 0; i < batch->n; i++) {
        if (batch->keys[i].size > TKV_SHORT_KEY) {
            longer++;
            continue;
        }
        tkv_block_words(tkv_room(hash, lanes, filled), TKV_SHORT_WORDS, &batch->keys[i], 0, hash->end);
        batch->owner[filled++] = i;
        if (filled == hash->lanes) {
            hash->whole(lanes);
            for (; filled > 0; filled--)
                tkv_take(batch, lanes, filled - 1);
        }
    }
    if (filled >= TKV_LANES_PAY) {
        hash->whole(lanes); /* idle lanes digest whatever is in them */
        for (; filled > 0; filled--)
            tkv_take(batch, lanes, filled - 1);
    }
    for (; filled > 0; filled--)
        tkv_one_of(batch, batch->owner[filled - 1]);
    return longer;
}

/* Where the longer keys in the lanes stand. */
typedef struct tkv_course {
    uint64_t from[TKV_MOST_LANES]; /* the next block begins there in the message */
    uint64_t left[TKV_MOST_LANES]; /* blocks; 0: no key in this lane */
} tkv_course;

/* Gives the next block of a lane's key to the kernel. */
static inline void tkv_put_block(const tkv_batch* batch, tkv_lanes* lanes, unsigned lane, tkv_course* course)
{
    const tkv_hash* hash = batch->hash;
    const tkv_key* key = &batch->keys[batch->owner[lane]];
    const uint64_t length = tkv_message_length(key), from = course->from[lane], to = from + 8 * hash->words;
    const int last = --course->left[lane] == 0;
    if (from > 0 && to <= length) {
        lanes->block[lane] = key->data + (from - TKV_PREFIX);
    } else {
        uint64_t* room = tkv_room(hash, lanes, lane);
        tkv_block_words(room, hash->words, key, from, hash->end);
        if (last && hash->length_word)
            room[hash->length_word] = length << 3;
        lanes->block[lane] = (const uint8_t*)room;
    }
    lanes->count[lane] = last ? length : to;
    lanes->last[lane] = last ? UINT64_MAX : 0;
    course->from[lane] = to;
}

static void tkv_longer_keys(tkv_batch* batch, tkv_lanes* lanes)
{
    const tkv_hash* hash = batch->hash;
    tkv_course course = {{0}, {0}};
    unsigned filled = 0, lane;
    size_t next = 0;
    for (;;) {
        for (lane = 0; lane < hash->lanes; lane++) {
            if (course.left[lane])
                continue;
            while (next < batch->n && batch->keys[next].size <= TKV_SHORT_KEY)
                next++;
            if (next == batch->n)
                break;
            course.from[lane] = 0;
            course.left[lane] = hash->blocks(tkv_message_length(&batch->keys[next]));
            for (unsigned row = 0; row < hash->rows; row++)
                lanes->state[row * hash->lanes + lane] = hash->start[row];
            batch->owner[lane] = next++;
            filled++;
        }
        if (filled < TKV_LANES_PAY)
            break;
        uint32_t done = 0;
        for (lane = 0; lane < hash->lanes; lane++)
            if (course.left[lane]) {
                tkv_put_block(batch, lanes, lane, &course);
                done |= (uint32_t)(course.left[lane] == 0) << lane;
            }
        hash->step(lanes);
        for (lane = 0; lane < hash->lanes; lane++)
            if (done >> lane & 1) {
                tkv_take(batch, lanes, lane);
                filled--;
            }
    }
/* The few that are left begin anew: one alone would take as long for a block as all lanes together. */
    for (lane = 0; lane < hash->lanes; lane++)
        if (course.left[lane])
            tkv_one_of(batch, batch->owner[lane]);
}

__attribute__((noinline)) static void tkv_digest_lanes(
    const tkv_hash* hash, const tkv_key* keys, size_t n, uint64_t* c0, uint64_t* c1)
{
    tkv_batch batch = {.hash = hash, .keys = keys, .n = n, .c0 = c0, .c1 = c1};
    tkv_lanes lanes;
    memset(&lanes, 0, sizeof lanes);
    for (unsigned lane = 0; lane < hash->lanes; lane++)
        lanes.block[lane] = (const uint8_t*)tkv_room(hash, &lanes, lane);
    if (tkv_short_keys(&batch, &lanes))
        tkv_longer_keys(&batch, &lanes);
}

/* The digests of n keys: bytes 0..7 of each into c0, bytes 8..15 into c1. The look-up of one key pays for none of the lanes. */
static inline void tkv_digest_all(const tkv_hash* hash, const tkv_key* keys, size_t n, uint64_t* c0, uint64_t* c1)
{
    if (hash->lanes && n >= TKV_LANES_PAY)
        tkv_digest_lanes(hash, keys, n, c0, c1);
    else
        for (size_t i = 0; i < n; i++)
            tkv_one(hash, &keys[i], &c0[i], &c1[i]);
}

#endif
