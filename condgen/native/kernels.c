/* What lies between the convolutions of PixelCNN++, each function one pass over memory. activations.py says what is
   computed; this computes the same, dropout's bits included, which are never stored.

   Legend: B images, H x W pixels, C channels, innermost in memory; h a tensor in bf16, f one in fp32. A tensor that is
   larger than H x W (a convolution's padding) is given by the distances, in numbers, of its images and rows. */
#include <stdint.h>
#include <stdlib.h>

typedef float f;
typedef uint16_t h;

/* A row as fp32: itself, or a copy in `space`; and the place where a row is computed before it is stored. Loops over
   one type alone are short and use whole vectors. */
static inline const f *read_f(const f *row, int64_t n, f *space) { (void)n, (void)space; return row; }
static inline const f *read_h(const h *row, int64_t n, f *space) {
    for (int64_t k = 0; k < n; k++) {
        union { uint32_t bits; f value; } u = {(uint32_t)row[k] << 16};
        space[k] = u.value;
    }
    return space;
}
static inline f *place_f(f *row, f *space) { (void)space; return row; }
static inline f *place_h(h *row, f *space) { (void)row; return space; }
static inline void store_f(f *row, int64_t n, const f *space) { (void)row, (void)n, (void)space; }
static inline void store_h(h *row, int64_t n, const f *space) {
    for (int64_t k = 0; k < n; k++) {
        union { f value; uint32_t bits; } u = {space[k]};
        uint32_t rounded = (u.bits + 0x7fff + ((u.bits >> 16) & 1)) >> 16;
        row[k] = space[k] != space[k] ? 0x7fc0 : rounded;
    }
}

/* e^x for x <= 0 within 2 ulp; NaN stays NaN. 2^n by the exponent's bits, e^r by its series, |r| <= ln 2 / 2. */
static inline f exp_below(f x) {
    x = x < -87.0f ? -87.0f : x;
    union { f value; int32_t bits; } n = {x * 1.44269504f + 12582912.0f}, scale;
    f whole = n.value - 12582912.0f;
    f r = x - whole * 0.693145752f - whole * 1.42860677e-6f;
    f p = 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    scale.bits = (int32_t)((uint32_t)(n.bits - 0x4b400000 + 127) << 23);
    return p * scale.value;
}
static inline f magnitude(f x) { return x < 0 ? -x : x; }
static inline f sigmoid(f x) {
    f e = exp_below(-magnitude(x)), s = 1.0f / (1.0f + e);
    return x < 0 ? e * s : s;
}

/* Dropout: bits (rate one half) or bytes of SplitMix64, as streams.example_bytes draws them for an example's key. */
typedef struct { const int64_t *keys; uint64_t offset; int threshold; f factor; } dropout;

static inline uint64_t mix(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9u;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBu;
    return x ^ (x >> 31);
}

static uint64_t bits_of[256]; /* a byte for each of a byte's bits */
__attribute__((constructor)) static void write_bits(void) {
    for (int k = 0; k < 256 * 8; k++) ((uint8_t *)bits_of)[k] = k / 8 >> k % 8 & 1;
}

/* The space of a thread: rows of `size` numbers, and what dropout draws for a row. */
typedef struct { f *a, *b, *c, *kept; uint64_t *words, *bits; } space;

static space space_for(int64_t size, f factor) {
    space s;
    size = (size + 127) / 64 * 64;
    s.a = malloc(size * (4 * sizeof(f) + sizeof(uint64_t) + 1));
    if (!s.a) abort();
    s.b = s.a + size, s.c = s.b + size, s.kept = s.c + size;
    s.words = (uint64_t *)(s.kept + size), s.bits = s.words + size / 8;
    for (int64_t k = 0; k < size; k++) s.kept[k] = factor;
    return s;
}

/* What the elements first .. first + count of an image are multiplied by. */
static const f *kept(const dropout *d, int64_t image, int64_t first, int64_t count, space *s) {
    if (!d->keys) return s->kept;
    int a_word = d->threshold == 128 ? 64 : 8;
    int64_t begin = first / a_word, n = (first + count + a_word - 1) / a_word - begin;
    uint64_t start = mix((uint64_t)d->keys[image] + d->offset);
    for (int64_t k = 0; k < n; k++) s->words[k] = mix(start + (uint64_t)(begin + k) * 0x9E3779B97F4A7C15u);
    const uint8_t *bytes = (const uint8_t *)s->words;
    f factor = d->factor, *out = s->kept;
    if (a_word == 64) {
        for (int64_t k = 0; k < 8 * n; k++) s->bits[k] = bits_of[bytes[k]];
        bytes = (const uint8_t *)s->bits;
        for (int64_t k = 0; k < 64 * n; k++) out[k] = (f)bytes[k] * factor;
    } else {
        for (int64_t k = 0; k < 8 * n; k++) out[k] = bytes[k] >= d->threshold ? factor : 0;
    }
    return out + (first - begin * a_word);
}

/* Every row of every image; each thread has its own space. */
#define ROWS(...)                                                                                                     \
    _Pragma("omp parallel num_threads(threads)") {                                                                    \
        space s = space_for(2 * W * C, d.factor);                                                                     \
        _Pragma("omp for") for (int64_t k = 0; k < B * rows; k++) {                                                   \
            int64_t b = k / rows, row = k % rows;                                                                     \
            __VA_ARGS__                                                                                               \
        }                                                                                                             \
        free(s.a);                                                                                                    \
    }

/* y = [elu(v), elu(-v)] * kept, v = x + added; elu(v) = max(v, e^-|v| - 1), for both with the same exponential. */
#define CONCAT_ELU(X, Y)                                                                                              \
    void concat_elu_##X##Y(const X *x, const X *added, Y *y, int64_t B, int64_t H, int64_t W, int64_t C, int64_t xb,  \
                           int64_t xr, int64_t ab, int64_t ar, const int64_t *keys, uint64_t offset, int threshold,   \
                           f factor, int threads) {                                                                   \
        dropout d = {keys, offset, threshold, factor};                                                                \
        int64_t rows = H, n = W * C;                                                                                  \
        ROWS({                                                                                                        \
            const f *m = kept(&d, b, row * 2 * n, 2 * n, &s), *from = read_##X(x + b * xb + row * xr, n, s.a);        \
            if (added) {                                                                                              \
                const f *plus = read_##X(added + b * ab + row * ar, n, s.b);                                          \
                for (int64_t c = 0; c < n; c++) s.a[c] = from[c] + plus[c];                                           \
                from = s.a;                                                                                           \
            }                                                                                                         \
            Y *to = y + k * 2 * n;                                                                                    \
            f *restrict v = place_##Y(to, s.c);                                                                       \
            for (int64_t w = 0; w < W; w++, from += C, v += 2 * C, m += 2 * C)                                        \
                for (int64_t c = 0; c < C; c++) {                                                                     \
                    f x = from[c], e = exp_below(-magnitude(x)) - 1.0f;                                               \
                    v[c] = (x > e ? x : e) * m[c];                                                                    \
                    v[C + c] = (-x > e ? -x : e) * m[C + c];                                                          \
                }                                                                                                     \
            store_##Y(to, 2 * n, s.c);                                                                                \
        })                                                                                                            \
    }
CONCAT_ELU(f, f)
CONCAT_ELU(h, h)
CONCAT_ELU(f, h)

/* The gradient of x, of `rows` x `columns` pixels, zero beyond H x W, from the result: 1 above 0, y + factor below. */
#define CONCAT_ELU_BACKWARD(X, Y)                                                                                     \
    void concat_elu_backward_##X##Y(const Y *g, const Y *y, X *out, int64_t B, int64_t H, int64_t W, int64_t C,       \
                                    int64_t rows, int64_t columns, const int64_t *keys, uint64_t offset,              \
                                    int threshold, f factor, int threads) {                                           \
        dropout d = {keys, offset, threshold, 1.0f};                                                                  \
        int64_t n = W * C;                                                                                            \
        ROWS({                                                                                                        \
            X *to = out + k * columns * C;                                                                            \
            int64_t done = 0;                                                                                         \
            if (row < H) {                                                                                            \
                int64_t at = (b * H + row) * 2 * n;                                                                   \
                const f *m = kept(&d, b, row * 2 * n, 2 * n, &s);                                                     \
                const f *from = read_##Y(g + at, 2 * n, s.a), *p = read_##Y(y + at, 2 * n, s.b);                      \
                f *restrict v = place_##X(to, s.c);                                                                   \
                for (int64_t w = 0; w < W; w++, v += C, from += 2 * C, p += 2 * C, m += 2 * C)                        \
                    for (int64_t c = 0; c < C; c++)                                                                   \
                        v[c] = from[c] * ((p[c] > 0 ? 0 : p[c]) + factor) * m[c]                                      \
                               - from[C + c] * ((p[C + c] > 0 ? 0 : p[C + c]) + factor) * m[C + c];                   \
                store_##X(to, n, s.c);                                                                                \
                done = n;                                                                                             \
            }                                                                                                         \
            for (int64_t c = done; c < columns * C; c++) to[c] = 0;                                                   \
        })                                                                                                            \
    }
CONCAT_ELU_BACKWARD(f, f)
CONCAT_ELU_BACKWARD(h, h)
CONCAT_ELU_BACKWARD(f, h)

/* out = x + a sigmoid(b); gates are (a, b), a pixel's side by side, with distances gb and gr of images and rows. */
#define GATED_RESIDUAL(X, G)                                                                                          \
    void gated_residual_##X##G(const X *x, const G *gates, X *out, int64_t B, int64_t H, int64_t W, int64_t C,        \
                               int64_t gb, int64_t gr, int threads) {                                                 \
        dropout d = {0};                                                                                              \
        int64_t rows = H, n = W * C;                                                                                  \
        ROWS({                                                                                                        \
            const f *from = read_##X(x + k * n, n, s.a), *gate = read_##G(gates + b * gb + row * gr, 2 * n, s.b);     \
            f *restrict v = place_##X(out + k * n, s.c);                                                              \
            for (int64_t w = 0; w < W; w++, from += C, v += C, gate += 2 * C)                                         \
                for (int64_t c = 0; c < C; c++) v[c] = from[c] + gate[c] * sigmoid(gate[C + c]);                      \
            store_##X(out + k * n, n, s.c);                                                                           \
        })                                                                                                            \
    }
GATED_RESIDUAL(f, f)
GATED_RESIDUAL(f, h)
GATED_RESIDUAL(h, h)

/* The gradient of the gates, of `rows` x `columns` pixels, zero beyond H x W. */
#define GATED_RESIDUAL_BACKWARD(X, G)                                                                                 \
    void gated_residual_backward_##X##G(const X *g, const G *gates, G *out, int64_t B, int64_t H, int64_t W,          \
                                        int64_t C, int64_t gb, int64_t gr, int64_t rows, int64_t columns,             \
                                        int threads) {                                                                \
        dropout d = {0};                                                                                              \
        int64_t n = W * C;                                                                                            \
        ROWS({                                                                                                        \
            G *to = out + k * columns * 2 * C;                                                                        \
            int64_t done = 0;                                                                                         \
            if (row < H) {                                                                                            \
                const f *from = read_##X(g + (b * H + row) * n, n, s.a);                                              \
                const f *gate = read_##G(gates + b * gb + row * gr, 2 * n, s.b);                                      \
                f *restrict v = place_##G(to, s.c);                                                                   \
                for (int64_t w = 0; w < W; w++, from += C, v += 2 * C, gate += 2 * C)                                 \
                    for (int64_t c = 0; c < C; c++) {                                                                 \
                        f opening = sigmoid(gate[C + c]), of_a = from[c] * opening;                                   \
                        v[c] = of_a;                                                                                  \
                        v[C + c] = of_a * (1.0f - opening) * gate[c];                                                 \
                    }                                                                                                 \
                store_##G(to, 2 * n, s.c);                                                                            \
                done = 2 * n;                                                                                         \
            }                                                                                                         \
            for (int64_t c = done; c < columns * 2 * C; c++) to[c] = 0;                                               \
        })                                                                                                            \
    }
GATED_RESIDUAL_BACKWARD(f, f)
GATED_RESIDUAL_BACKWARD(f, h)
GATED_RESIDUAL_BACKWARD(h, h)

/* W = g V / ||V|| for every output channel, whose n weights lie together; `scale` keeps 1 / ||V||. */
void weight_norm(const f *g, const f *v, f *w, f *scale, int64_t outputs, int64_t n, int threads) {
    _Pragma("omp parallel for num_threads(threads)") for (int64_t o = 0; o < outputs; o++) {
        const f *from = v + o * n;
        f *restrict to = w + o * n, sum = 0;
        _Pragma("omp simd reduction(+ : sum)") for (int64_t k = 0; k < n; k++) sum += from[k] * from[k];
        scale[o] = 1.0f / __builtin_sqrtf(sum);
        f by = g[o] * scale[o];
        for (int64_t k = 0; k < n; k++) to[k] = from[k] * by;
    }
}

/* The gradients of g and V; dW lies in memory as V does. */
void weight_norm_backward(const f *dw, const f *g, const f *v, const f *scale, f *dg, f *dv, int64_t outputs, int64_t n,
                          int threads) {
    _Pragma("omp parallel for num_threads(threads)") for (int64_t o = 0; o < outputs; o++) {
        const f *of_w = dw + o * n, *at = v + o * n;
        f *restrict to = dv + o * n, sum = 0;
        _Pragma("omp simd reduction(+ : sum)") for (int64_t k = 0; k < n; k++) sum += of_w[k] * at[k];
        dg[o] = sum * scale[o];
        f by = g[o] * scale[o], back = sum * scale[o] * scale[o];
        for (int64_t k = 0; k < n; k++) to[k] = by * (of_w[k] - at[k] * back);
    }
}

/* out = start + a w, for a few images: a (B, K) and w (K, N). Five vectors of weights against four images at a time. */
typedef f v8 __attribute__((vector_size(32), aligned(4), may_alias));

#define BLOCK(IMAGES, VECTORS)                                                                                        \
    {                                                                                                                 \
        v8 sum[IMAGES][VECTORS];                                                                                      \
        for (int i = 0; i < IMAGES; i++)                                                                              \
            for (int j = 0; j < VECTORS; j++) sum[i][j] = *(const v8 *)(start + (b + i) * N + n + 8 * j);             \
        for (int64_t k = 0; k < K; k++)                                                                               \
            for (int j = 0; j < VECTORS; j++) {                                                                       \
                v8 weights = *(const v8 *)(w + k * N + n + 8 * j);                                                    \
                for (int i = 0; i < IMAGES; i++) sum[i][j] += a[(b + i) * as + k] * weights;                          \
            }                                                                                                         \
        for (int i = 0; i < IMAGES; i++)                                                                              \
            for (int j = 0; j < VECTORS; j++) *(v8 *)(out + (b + i) * N + n + 8 * j) = sum[i][j];                     \
    }
#define BLOCKS(IMAGES)                                                                                                \
    {                                                                                                                 \
        int64_t n = 0;                                                                                                \
        for (; n + 40 <= N; n += 40) BLOCK(IMAGES, 5)                                                                 \
        for (; n + 8 <= N; n += 8) BLOCK(IMAGES, 1)                                                                   \
        for (; n < N; n++)                                                                                            \
            for (int i = 0; i < IMAGES; i++) {                                                                        \
                f sum = start[(b + i) * N + n];                                                                       \
                for (int64_t k = 0; k < K; k++) sum += a[(b + i) * as + k] * w[k * N + n];                            \
                out[(b + i) * N + n] = sum;                                                                           \
            }                                                                                                         \
    }
static void dense(const f *a, int64_t as, const f *w, int64_t B, int64_t K, int64_t N, const f *start, f *out) {
    int64_t b = 0;
    for (; b + 4 <= B; b += 4) BLOCKS(4)
    for (; b < B; b++) BLOCKS(1)
}

/* Steps of a sampler at a pixel, as two_streams_steps.py lays them out; its buffers are theirs. */
typedef struct { f *at; int64_t image, pixel; } place; /* of column c and image b: at + b image + c pixel */

typedef struct { int64_t B, F; place x, y; } nonlinearity;

static inline void concat_elu(const f *x, f *restrict y, int64_t F) {
    for (int64_t k = 0; k < F; k++) {
        f e = exp_below(-magnitude(x[k])) - 1.0f;
        y[k] = x[k] > e ? x[k] : e;
        y[F + k] = -x[k] > e ? -x[k] : e;
    }
}

void concat_elu_pixel(const nonlinearity *s, int64_t c) {
    for (int64_t b = 0; b < s->B; b++)
        concat_elu(s->x.at + b * s->x.image, s->y.at + b * s->y.image + c * s->y.pixel, s->F);
}

/* x + a sigmoid(b) with (a, b) = gates_row + second [... hidden], hidden = in_row + first [... x] + other. */
typedef struct {
    int64_t B, F;
    place x, y, in_row, gates_row, outer, other, inner, written; /* windows into what the convolutions read */
    int64_t outer_inputs, other_inputs, inner_inputs;
    const f *first, *of_other, *second;
    f *hidden, *gates;
} resnet;

void resnet_pixel(const resnet *s, int64_t c) {
    int64_t B = s->B, F = s->F;
    dense(s->outer.at + c * s->outer.pixel, s->outer.image, s->first, B, s->outer_inputs, F,
          s->in_row.at + c * s->in_row.pixel, s->hidden);
    if (s->of_other)
        dense(s->other.at + c * s->other.pixel, s->other.image, s->of_other, B, s->other_inputs, F, s->hidden,
              s->hidden);
    for (int64_t b = 0; b < B; b++)
        concat_elu(s->hidden + b * F, s->written.at + b * s->written.image + c * s->written.pixel, F);
    dense(s->inner.at + c * s->inner.pixel, s->inner.image, s->second, B, s->inner_inputs, 2 * F,
          s->gates_row.at + c * s->gates_row.pixel, s->gates);
    for (int64_t b = 0; b < B; b++) {
        const f *x = s->x.at + b * s->x.image, *g = s->gates + b * 2 * F;
        f *restrict y = s->y.at + b * s->y.image;
        for (int64_t k = 0; k < F; k++) y[k] = x[k] + g[k] * sigmoid(g[F + k]);
    }
}
