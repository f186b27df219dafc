/* What becomes of the codes of a rounded weight while it is trained: figures for the log, and freezing.
 *
 * Nagel et al. 2022 (Overcoming oscillations in quantization-aware training), algorithm 1: a code
 * oscillates in a step in which it changes against the direction of its last change; the frequency of that is a moving
 * average over the steps; a weight whose frequency passes the limit is frozen at the code nearest to the moving average
 * of its codes, and gets no gradient from then on. Both averages have the m = 0.01 of their code. The mean of the
 * frequencies is the moving average of the share of weights that oscillate, so without freezing no average is kept for
 * single weights.
 *
 * "Code" means its place among the format's codes in the order of their values, which gives fp8 and fp4 a direction
 * too. A frozen weight is held in codes: when its scale changes, so does its value. Its fp32 value stays behind unused.
 * Looked at once a step, when the weights are rounded for it; evaluations see what is frozen and change nothing. */
#include <math.h>
#include <stdatomic.h>
#include <string.h>

#include "base/parallel.h"
#include "numeric/piece.h"
#include "train/student_parts.h"

static const float SHARE = 0.01f; /* of a step in an average */

enum { ROSE = 1, FELL = 2, WENT = ROSE | FELL, FROZEN = 4 }; /* of `course` */
enum { CHUNK = 256 };

/* ---- codes in order ---- */

/* Codes of one value (-0 and 0) share a place; NaN, which no weight becomes, has none. */
static void order_codes(qz_code_order *o, const qz_scheme *scheme)
{
    const int codes = 1 << qz_format_of(scheme->format)->bits;
    float value[256];
    int sorted[256], count = 0;
    *o = (qz_code_order){0};
    for (int c = scheme->narrow ? 1 : 0; c < codes; c++) {
        const float v = qz_code_value(c, scheme->format);
        int at = count;
        if (isnan(v)) continue;
        for (; at > 0 && value[at - 1] > v; at--) {
            value[at] = value[at - 1];
            sorted[at] = sorted[at - 1];
        }
        value[at] = v;
        sorted[at] = c;
        count++;
    }
    for (int i = 0; i < count; i++) {
        if (i == 0 || value[i] != value[i - 1]) o->code[o->count++] = (uint8_t)sorted[i];
        o->place[sorted[i]] = (uint8_t)(o->count - 1);
    }
}

/* ---- one linear ---- */

typedef struct tally {
    int64_t flips, backs, beyond, frozen;
} tally;

typedef struct pass {
    const qz_qtensor *q;
    const qz_tensor *w, *rounded;
    qz_student_watch *watch;
    float limit; /* frequency above which weights are frozen; 0: none is */
    bool fresh;  /* nothing is remembered yet */
    bool learning;
} pass;

/* Moves the two averages of a weight whose place went from `before` to `now`; the place where it is frozen, or -1.
 * `ahead` is by how much the average of the places is ahead of the present one. */
static int freeze(qz_student_watch *w, int64_t i, int before, int now, bool back, float limit)
{
    const float frequency = SHARE * (float)back + (1 - SHARE) * qz_f16_decode(w->frequency[i]);
    const float ahead = (1 - SHARE) * (qz_f16_decode(w->ahead[i]) + (float)(before - now));
    w->frequency[i] = qz_f16_encode(frequency);
    w->ahead[i] = qz_f16_encode(ahead);
    return frequency > limit ? (int)qz_rint_small(qz_clamp((float)now + ahead, 0, (float)(w->order.count - 1))) : -1;
}

static void follow(const pass *p, int64_t i, int now, tally *t)
{
    qz_student_watch *w = p->watch;
    const int before = w->rank[i], last = w->course[i] & WENT;
    bool back = false;
    if (now != before) {
        const int way = now > before ? ROSE : FELL;
        back = last && last != way;
        w->course[i] = (uint8_t)way;
        w->rank[i] = (uint8_t)now;
        t->flips++;
        t->backs += back;
    }
    const int held = p->limit > 0 ? freeze(w, i, before, now, back, p->limit) : -1;
    if (held < 0) return;
    w->rank[i] = (uint8_t)held;
    w->course[i] |= FROZEN;
}

static void begin(const pass *p, int64_t i, int now)
{
    p->watch->rank[i] = (uint8_t)now;
    p->watch->course[i] = 0;
    if (p->limit > 0) p->watch->frequency[i] = p->watch->ahead[i] = 0;
}

/* How many lie beyond the outermost values, for integers by more than the half step that still rounds to them; the
 * weight that a fitted scale comes from lies on that bound, give or take a rounding, and does not count. */
static int64_t count_beyond(const pass *p, const float *w, int64_t count, int64_t piece)
{
    const qz_code_order *o = &p->watch->order;
    const uint8_t outermost[] = {o->code[0], o->code[o->count - 1]};
    const bool whole = qz_format_of(p->q->scheme.format)->kind == QZ_KIND_INTEGER;
    const float margin = (whole ? 0.5001f : 0) * p->q->scales[piece];
    float value[2];
    int64_t beyond = 0;
    qz_piece_decode(value, outermost, 2, p->q, piece);
    for (int64_t i = 0; i < count; i++) beyond += w[i] < value[0] - margin || w[i] > value[1] + margin;
    return beyond;
}

/* A frozen weight's value is that of its code. */
static void hold(const pass *p, int64_t i, int64_t piece)
{
    const uint8_t code = p->watch->order.code[p->watch->rank[i]];
    if (p->rounded) qz_piece_decode(qz_f32(p->rounded) + i, &code, 1, p->q, piece);
}

/* Weights [first, first + count) of the matrix row by row, at most CHUNK and in one piece. */
static void pass_chunk(const pass *p, int64_t first, int64_t count, int64_t piece, tally *t)
{
    const float *w = qz_f32(p->w) + first;
    const uint8_t *course = p->watch->course + first;
    uint8_t codes[CHUNK];
    if (p->learning) {
        qz_piece_encode(codes, w, count, p->q, piece);
        t->beyond += count_beyond(p, w, count, piece);
    }
    for (int64_t i = 0; i < count; i++) {
        if (p->learning && p->fresh)
            begin(p, first + i, p->watch->order.place[codes[i]]);
        else if (p->learning && !(course[i] & FROZEN))
            follow(p, first + i, p->watch->order.place[codes[i]], t);
        if (!(course[i] & FROZEN)) continue;
        t->frozen++;
        hold(p, first + i, piece);
    }
}

static void pass_row(const pass *p, int64_t row, tally *t)
{
    const int64_t cols = p->q->cols;
    for (int64_t k = 0, end; k < cols; k = end) {
        int64_t piece;
        end = qz_piece_run(&piece, p->q, row, k);
        for (int64_t at = k; at < end; at += CHUNK)
            pass_chunk(p, row * cols + at, end - at < CHUNK ? end - at : CHUNK, piece, t);
    }
}

static void add_up(_Atomic int64_t *sums, const tally *t)
{
    const int64_t part[] = {t->flips, t->backs, t->beyond, t->frozen};
    for (int i = 0; i < 4; i++) atomic_fetch_add_explicit(sums + i, part[i], memory_order_relaxed);
}

/* Counts do not depend on who made them. */
static tally pass_all(const pass *p)
{
    _Atomic int64_t sums[4] = {0};
    const int64_t rows = p->q->rows, each = p->q->cols < 16384 ? 16384 / p->q->cols : 1;
    QZ_PARALLEL_FOR for (int64_t first = 0; first < rows; first += each)
    {
        tally t = {0};
        for (int64_t n = first; n < rows && n < first + each; n++) pass_row(p, n, &t);
        add_up(sums, &t);
    }
    return (tally){sums[0], sums[1], sums[2], sums[3]};
}

/* ---- figures ---- */

static double drift(const qz_student_watch *w, const qz_qtensor *q, bool fresh)
{
    const int64_t pieces = qz_scheme_pieces(&q->scheme, q->rows, q->cols);
    double sum = 0;
    if (fresh) memcpy(w->start, q->scales, (size_t)pieces * sizeof(float));
    for (int64_t i = 0; i < pieces; i++) sum += fabs((double)q->scales[i] / (double)w->start[i] - 1);
    return sum / (double)pieces;
}

static void tell(qz_student *s, int i, const tally *t, bool fresh)
{
    qz_student_watch *w = &s->watch[i];
    const qz_qtensor *q = &s->linear[i].q;
    const double count = (double)(q->rows * q->cols), share = (double)SHARE;
    s->oscillation[i] = share * (double)t->backs / count + (1 - share) * (fresh ? 0 : s->oscillation[i]);
    w->health = (qz_student_health){.flipped = (double)t->flips / count,
                                    .oscillation = s->oscillation[i],
                                    .scale_drift = drift(w, q, fresh),
                                    .saturation = (double)t->beyond / count,
                                    .frozen = (double)t->frozen / count};
}

static pass pass_of(const qz_student *s, int i, bool learning)
{
    return (pass){.q = &s->linear[i].q,
                  .w = &s->linear[i].weight,
                  .watch = &s->watch[i],
                  .limit = (float)s->rule.rounding.freeze,
                  .fresh = s->marks[QZ_STUDENT_WATCHED] == 0,
                  .learning = learning};
}

void qz_student_look(qz_student *s, int i, const qz_tensor *rounded)
{
    if (!s->watch || !s->watch[i].rank || s->rule.dry) return;
    pass p = pass_of(s, i, s->learning);
    p.rounded = rounded;
    if (!s->learning && (p.fresh || p.limit == 0)) return;
    const tally t = pass_all(&p);
    if (s->learning) tell(s, i, &t, p.fresh);
}

bool qz_student_health_of(const qz_student *s, int i, qz_student_health *out)
{
    if (!s->watch || !s->watch[i].rank || s->marks[QZ_STUDENT_WATCHED] == 0) return false;
    *out = s->watch[i].health;
    return true;
}

/* ---- what is frozen ---- */

static bool freezes(const qz_student *s, int i)
{
    return s->watch && s->watch[i].frequency && s->marks[QZ_STUDENT_WATCHED] > 0;
}

void qz_student_hold_codes(const qz_student *s, int i, qz_qtensor *q)
{
    if (!freezes(s, i)) return;
    const qz_student_watch *w = &s->watch[i];
    for (int64_t j = 0; j < q->rows * q->cols; j++)
        if (w->course[j] & FROZEN) q->codes[j] = w->order.code[w->rank[j]];
}

/* A frozen weight is (code - zero) scale with a fixed code, whose derivatives go to scale and offset; no rule of the
 * tape knows of it, so what it gets is taken away first. */
static void hold_run(const qz_student *s, int i, int64_t first, int64_t count, int64_t piece)
{
    const qz_student_linear *l = &s->linear[i];
    const qz_student_watch *w = &s->watch[i];
    const float scale = l->q.scales[piece], factor = qz_ag_scale_factor(&l->q);
    float *dy = qz_f32(&s->step[i].grad) + first;
    double by_scale = 0, by_offset = 0;
    for (int64_t j = 0; j < count; j++) {
        float value;
        if (!(w->course[first + j] & FROZEN)) continue;
        qz_piece_decode(&value, &w->order.code[w->rank[first + j]], 1, &l->q, piece);
        by_scale += (double)dy[j] * (double)value / (double)scale;
        by_offset -= (double)dy[j] * (double)scale;
        dy[j] = 0;
    }
    if (l->scale) qz_f32(&l->scale->grad)[piece] += (float)((double)factor * by_scale);
    if (l->offset) qz_f32(&l->offset->grad)[piece] += (float)((double)factor * by_offset);
}

static void hold_gradient(const qz_student *s, int i)
{
    const qz_student_linear *l = &s->linear[i];
    for (int64_t n = 0; n < l->n; n++) {
        for (int64_t k = 0, end; k < l->k; k = end) {
            int64_t piece;
            end = qz_piece_run(&piece, &l->q, n, k);
            hold_run(s, i, n * l->k + k, end - k, piece);
        }
    }
}

void qz_student_hold_gradients(qz_student *s)
{
    QZ_PARALLEL_FOR for (int i = 0; i < s->linears; i++)
    {
        if (freezes(s, i) && s->step[i].rounded) hold_gradient(s, i);
    }
}

/* ---- making ---- */

static void *room(qz_student *s, int64_t count, size_t size)
{
    s->bytes += (uint64_t)count * size;
    return s->rule.dry ? NULL : qz_arena_alloc(s->arena, qz_array_bytes((size_t)count, size));
}

static qz_status add_watch(qz_student *s, int i)
{
    const qz_student_linear *l = &s->linear[i];
    qz_student_watch *w = &s->watch[i];
    const int64_t count = l->n * l->k, pieces = qz_scheme_pieces(&l->q.scheme, l->n, l->k);
    if (!l->rounded || l->base) return QZ_OK; /* weights of adapters are made anew in each pass, and not followed */
    order_codes(&w->order, &l->q.scheme);
    w->watched = true;
    w->rank = room(s, count, 1);
    w->course = room(s, count, 1);
    w->start = room(s, pieces, sizeof *w->start);
    if (!s->rule.dry && (!w->rank || !w->course || !w->start)) return qz_arena_failed(s->arena);
    if (s->rule.rounding.freeze <= 0) return QZ_OK;
    w->frequency = room(s, count, sizeof *w->frequency);
    w->ahead = room(s, count, sizeof *w->ahead);
    return s->rule.dry || (w->frequency && w->ahead) ? QZ_OK : qz_arena_failed(s->arena);
}

qz_status qz_student_add_watches(qz_student *s)
{
    const qz_student_rounding *r = &s->rule.rounding;
    if (!r->watch && r->freeze <= 0) return QZ_OK;
    s->watch = qz_arena_calloc(s->arena, (size_t)s->linears * sizeof *s->watch);
    s->oscillation = qz_arena_calloc(s->arena, (size_t)s->linears * sizeof *s->oscillation);
    if (!s->watch || !s->oscillation) return qz_arena_failed(s->arena);
    for (int i = 0; i < s->linears; i++) QZ_TRY(add_watch(s, i));
    return QZ_OK;
}
