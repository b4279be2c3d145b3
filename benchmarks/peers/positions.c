/* Net positions in C: the straightforward loop over rows grouped by asset, each row validated as our kernels do.
   start[assets + 1] bounds the rows of each asset; net[assets][participants] comes as zeros. Returns the first bad row, or -1. */

#include <stdint.h>

#define NET_INT64(NAME, ID)                                                                        \
    int64_t NAME(const ID *debtor, const ID *creditor, const uint64_t *lo, const int64_t *start,   \
                 int64_t first, int64_t last, uint64_t participants, uint64_t *net)                \
    {                                                                                              \
        for (int64_t asset = first; asset < last; asset++) {                                       \
            uint64_t *cells = net + (uint64_t)asset * participants;                                \
            for (int64_t row = start[asset]; row < start[asset + 1]; row++) {                      \
                uint64_t payer = debtor[row], payee = creditor[row], amount = lo[row];             \
                if (payer >= participants || payee >= participants || payer == payee || !amount)   \
                    return row;                                                                    \
                cells[payer] -= amount;                                                            \
                cells[payee] += amount;                                                            \
            }                                                                                      \
        }                                                                                          \
        return -1;                                                                                 \
    }

NET_INT64(net_int64_u16, uint16_t)
NET_INT64(net_int64_u32, uint32_t)

#ifdef __SIZEOF_INT128__
typedef unsigned __int128 wide;

#define NET_INT128(NAME, ID)                                                                       \
    int64_t NAME(const ID *debtor, const ID *creditor, const uint64_t *lo, const uint64_t *hi,     \
                 const int64_t *start, int64_t first, int64_t last, uint64_t participants,         \
                 wide *net)                                                                        \
    {                                                                                              \
        for (int64_t asset = first; asset < last; asset++) {                                       \
            wide *cells = net + (uint64_t)asset * participants;                                    \
            for (int64_t row = start[asset]; row < start[asset + 1]; row++) {                      \
                uint64_t payer = debtor[row], payee = creditor[row];                               \
                wide amount = (wide)hi[row] << 64 | lo[row];                                       \
                if (payer >= participants || payee >= participants || payer == payee || !amount)   \
                    return row;                                                                    \
                cells[payer] -= amount;                                                            \
                cells[payee] += amount;                                                            \
            }                                                                                      \
        }                                                                                          \
        return -1;                                                                                 \
    }

NET_INT128(net_int128_u16, uint16_t)
NET_INT128(net_int128_u32, uint32_t)
#endif

/* Reads every word and keeps one: what no method can do without. */
uint64_t sweep(const uint64_t *words, int64_t count)
{
    uint64_t sum[8] = {0};
    int64_t at = 0;
    for (; at + 8 <= count; at += 8)
        for (int lane = 0; lane < 8; lane++)
            sum[lane] ^= words[at + lane];
    for (; at < count; at++)
        sum[0] ^= words[at];
    uint64_t all = 0;
    for (int lane = 0; lane < 8; lane++)
        all ^= sum[lane];
    return all;
}
