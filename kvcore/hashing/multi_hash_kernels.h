/* The kernels of multi_hash.h at one level of vector instructions. Included once for every level, by simd_dispatch.h, which
 * defines before
 *
 *     TKV_AT(name)                 the name at this level
 *     TKV_TARGET                   the attribute that lets a function use the level's instructions
 *     TKV_WIDTH                    bytes of a register
 *     TKV_ROTR64, TKV_ROTL32       (vector, constant)
 *     TKV_F, TKV_G, TKV_H, TKV_I   (b, c, d): the functions of RFC 1321, 3.4
 *     TKV_TRANSPOSE                (columns, blocks): as many words as a register has, of each of as many blocks, as columns
 *     TKV_EVEN, TKV_ODD            (x, y): the low and the high 32-bit halves of the words of two registers, as one register
 *     TKV_LOW, TKV_HIGH            (even, odd): the inverse, x and y again
 *
 * Every kernel works on two sets of registers. The steps of a hash depend on each other, and a single set leaves the processor
 * waiting for results: on Zen 5 both sets take 1.3 times as long as one.
 */

typedef uint64_t TKV_AT(tkv_v64) __attribute__((vector_size(TKV_WIDTH), may_alias));
typedef uint32_t TKV_AT(tkv_v32) __attribute__((vector_size(TKV_WIDTH), may_alias));
#define TKV_V64 TKV_AT(tkv_v64)
#define TKV_V32 TKV_AT(tkv_v32)
enum { TKV_AT(tkv_across) = TKV_WIDTH / 8 };
#define TKV_ACROSS TKV_AT(tkv_across)

/* columns[i] = word i of the blocks of TKV_ACROSS lanes from `lane` on, for all i < words and up to a multiple of TKV_ACROSS. */
TKV_TARGET __attribute__((always_inline)) static inline void TKV_AT(tkv_load)(
    TKV_V64* columns, int words, const tkv_lanes* lanes, int lane)
{
    for (int i = 0; i < words; i += TKV_ACROSS)
        TKV_TRANSPOSE(columns + i, lanes->block + lane, 8 * i);
}

/* --- BLAKE2b: a word of all lanes of a set is one register --- */

#define TKV_BLAKE2B_SETS(a, b, c, d, r, s, x) \
    v[0][a] += m[0][x] + v[0][b];                v[1][a] += m[1][x] + v[1][b]; \
    v[0][d] = TKV_ROTR64(v[0][d] ^ v[0][a], r);  v[1][d] = TKV_ROTR64(v[1][d] ^ v[1][a], r); \
    v[0][c] += v[0][d];                          v[1][c] += v[1][d]; \
    v[0][b] = TKV_ROTR64(v[0][b] ^ v[0][c], s);  v[1][b] = TKV_ROTR64(v[1][b] ^ v[1][c], s);
#define TKV_BLAKE2B_SETS_G(a, b, c, d, x, y) TKV_BLAKE2B_SETS(a, b, c, d, 32, 24, x) TKV_BLAKE2B_SETS(a, b, c, d, 16, 63, y)

/* F of RFC 7693, 3.2, of one block of each lane, into h. */
TKV_TARGET __attribute__((always_inline)) static inline void TKV_AT(tkv_blake2b_rounds)(
    TKV_V64 h[2][8], const TKV_V64 m[2][TKV_BLAKE2B_WORDS], const TKV_V64 count[2], const TKV_V64 last[2])
{
    const TKV_V64 zero = {0};
    TKV_V64 v[2][16];
    for (int set = 0; set < 2; set++) {
        for (int i = 0; i < 8; i++)
            v[set][i] = h[set][i];
        v[set][8] = zero + TKV_BLAKE2B_IV0;
        v[set][9] = zero + TKV_BLAKE2B_IV1;
        v[set][10] = zero + TKV_BLAKE2B_IV2;
        v[set][11] = zero + TKV_BLAKE2B_IV3;
        v[set][12] = count[set] ^ TKV_BLAKE2B_IV4;
        v[set][13] = zero + TKV_BLAKE2B_IV5;
        v[set][14] = last[set] ^ TKV_BLAKE2B_IV6;
        v[set][15] = zero + TKV_BLAKE2B_IV7;
    }
    TKV_BLAKE2B_ROUNDS(TKV_BLAKE2B_SETS_G)
    for (int set = 0; set < 2; set++)
        for (int i = 0; i < 8; i++)
            h[set][i] ^= v[set][i] ^ v[set][i + 8];
}

TKV_TARGET static void TKV_AT(tkv_blake2b_whole)(tkv_lanes* lanes)
{
    TKV_V64* state = (TKV_V64*)lanes->state;
    const TKV_V64 zero = {0};
    TKV_V64 h[2][8], m[2][TKV_BLAKE2B_WORDS], count[2], last[2];
    for (int set = 0; set < 2; set++) {
        for (int i = 0; i < 8; i++)
            h[set][i] = zero + tkv_blake2b_start[i];
        TKV_AT(tkv_load)(m[set], TKV_SHORT_WORDS, lanes, set * TKV_ACROSS);
        /* That these are zero, and h constant, is known to the compiler: 8 % less time. */
        for (int i = TKV_SHORT_WORDS; i < TKV_BLAKE2B_WORDS; i++)
            m[set][i] = zero;
        count[set] = (m[set][0] >> 8) + TKV_PREFIX; /* above the key's type is the size */
        last[set] = ~zero;
    }
    TKV_AT(tkv_blake2b_rounds)(h, m, count, last);
    for (int set = 0; set < 2; set++)
        for (int i = 0; i < 2; i++)
            state[2 * i + set] = h[set][i];
}

TKV_TARGET static void TKV_AT(tkv_blake2b_step)(tkv_lanes* lanes)
{
    TKV_V64* state = (TKV_V64*)lanes->state;
    TKV_V64 h[2][8], m[2][TKV_BLAKE2B_WORDS];
    for (int set = 0; set < 2; set++) {
        for (int i = 0; i < 8; i++)
            h[set][i] = state[2 * i + set];
        TKV_AT(tkv_load)(m[set], TKV_BLAKE2B_WORDS, lanes, set * TKV_ACROSS);
    }
    TKV_AT(tkv_blake2b_rounds)(h, m, (const TKV_V64*)lanes->count, (const TKV_V64*)lanes->last);
    for (int set = 0; set < 2; set++)
        for (int i = 0; i < 8; i++)
            state[2 * i + set] = h[set][i];
}

static const tkv_hash TKV_AT(tkv_blake2b) = {
    .one = tkv_blake2b,
    .whole = TKV_AT(tkv_blake2b_whole),
    .step = TKV_AT(tkv_blake2b_step),
    .blocks = tkv_blake2b_blocks,
    .start = tkv_blake2b_start,
    .lanes = 2 * TKV_WIDTH / 8,
    .rows = 8,
    .words = TKV_BLAKE2B_WORDS,
};

/* --- MD5: words of 32 bits, so a set has twice the lanes of TKV_ACROSS --- */

#define TKV_MD5_SETS(f, a, b, c, d, g, s, k) \
    a[0] += m[0][g] + k + f(b[0], c[0], d[0]);  a[1] += m[1][g] + k + f(b[1], c[1], d[1]); \
    a[0] = TKV_ROTL32(a[0], s) + b[0];          a[1] = TKV_ROTL32(a[1], s) + b[1];
#define TKV_MD5_SETS_F(a, b, c, d, g, s, k) TKV_MD5_SETS(TKV_F, a, b, c, d, g, s, k)
#define TKV_MD5_SETS_G(a, b, c, d, g, s, k) TKV_MD5_SETS(TKV_G, a, b, c, d, g, s, k)
#define TKV_MD5_SETS_H(a, b, c, d, g, s, k) TKV_MD5_SETS(TKV_H, a, b, c, d, g, s, k)
#define TKV_MD5_SETS_I(a, b, c, d, g, s, k) TKV_MD5_SETS(TKV_I, a, b, c, d, g, s, k)

/* One block of each lane into the state, from m to state. */
TKV_TARGET __attribute__((always_inline)) static inline void TKV_AT(tkv_md5_steps)(
    TKV_V64* state, const TKV_V32 from[2][4], const TKV_V32 m[2][2 * TKV_MD5_WORDS])
{
    TKV_V32 a[2] = {from[0][0], from[1][0]}, b[2] = {from[0][1], from[1][1]};
    TKV_V32 c[2] = {from[0][2], from[1][2]}, d[2] = {from[0][3], from[1][3]};
    TKV_MD5_STEPS(TKV_MD5_SETS_F, TKV_MD5_SETS_G, TKV_MD5_SETS_H, TKV_MD5_SETS_I)
    for (int set = 0; set < 2; set++) {
        a[set] += from[set][0];
        b[set] += from[set][1];
        c[set] += from[set][2];
        d[set] += from[set][3];
        state[2 * set] = TKV_LOW(a[set], b[set]);
        state[2 * set + 1] = TKV_HIGH(a[set], b[set]);
        state[2 * set + 4] = TKV_LOW(c[set], d[set]);
        state[2 * set + 5] = TKV_HIGH(c[set], d[set]);
    }
}

/* m[i] = word i of the blocks of set `set`. */
TKV_TARGET __attribute__((always_inline)) static inline void TKV_AT(tkv_md5_load)(
    TKV_V32 m[2 * TKV_MD5_WORDS], const tkv_lanes* lanes, int set)
{
    TKV_V64 x[TKV_MD5_WORDS], y[TKV_MD5_WORDS];
    TKV_AT(tkv_load)(x, TKV_MD5_WORDS, lanes, 2 * set * TKV_ACROSS);
    TKV_AT(tkv_load)(y, TKV_MD5_WORDS, lanes, (2 * set + 1) * TKV_ACROSS);
    for (int i = 0; i < TKV_MD5_WORDS; i++) {
        m[2 * i] = TKV_EVEN(x[i], y[i]);
        m[2 * i + 1] = TKV_ODD(x[i], y[i]);
    }
}

TKV_TARGET static void TKV_AT(tkv_md5_whole)(tkv_lanes* lanes)
{
    const TKV_V32 zero = {0};
    TKV_V32 from[2][4], m[2][2 * TKV_MD5_WORDS];
    for (int set = 0; set < 2; set++) {
        from[set][0] = zero + TKV_MD5_A;
        from[set][1] = zero + TKV_MD5_B;
        from[set][2] = zero + TKV_MD5_C;
        from[set][3] = zero + TKV_MD5_D;
        TKV_AT(tkv_md5_load)(m[set], lanes, set);
        m[set][14] = ((m[set][0] >> 8) + TKV_PREFIX) << 3; /* above the key's type is the size */
    }
    TKV_AT(tkv_md5_steps)((TKV_V64*)lanes->state, from, m);
}

TKV_TARGET static void TKV_AT(tkv_md5_step)(tkv_lanes* lanes)
{
    const TKV_V64* state = (const TKV_V64*)lanes->state;
    TKV_V32 from[2][4], m[2][2 * TKV_MD5_WORDS];
    for (int set = 0; set < 2; set++) {
        for (int i = 0; i < 2; i++) {
            const TKV_V64* row = state + 4 * i + 2 * set;
            from[set][2 * i] = TKV_EVEN(row[0], row[1]);
            from[set][2 * i + 1] = TKV_ODD(row[0], row[1]);
        }
        TKV_AT(tkv_md5_load)(m[set], lanes, set);
    }
    TKV_AT(tkv_md5_steps)((TKV_V64*)lanes->state, from, m);
}

static const tkv_hash TKV_AT(tkv_md5) = {
    .one = tkv_md5,
    .whole = TKV_AT(tkv_md5_whole),
    .step = TKV_AT(tkv_md5_step),
    .blocks = tkv_md5_blocks,
    .start = tkv_md5_start,
    .lanes = 4 * TKV_WIDTH / 8,
    .rows = 2,
    .words = TKV_MD5_WORDS,
    .end = TKV_MD5_END,
    .length_word = TKV_MD5_WORDS - 1,
};

#undef TKV_V64
#undef TKV_V32
#undef TKV_ACROSS
#undef TKV_BLAKE2B_SETS
#undef TKV_BLAKE2B_SETS_G
#undef TKV_MD5_SETS
#undef TKV_MD5_SETS_F
#undef TKV_MD5_SETS_G
#undef TKV_MD5_SETS_H
#undef TKV_MD5_SETS_I
