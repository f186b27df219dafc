/* How good a checkpoint is: perplexity by the rule that the interop checks use, and how far its predictions are from
 * those of the model that it was made from.
 *
 * Windows of `length` ids (BOS first where the model has one); ids 1 .. length - 1 of each are predicted from those
 * before them; perplexity = exp(-mean natural log probability). Without BOS nothing changes but id 0.
 *
 *     qz_hidden *base;
 *     QZ_TRY(qz_eval_hidden(&base, &original, model, &windows, progress));
 *     QZ_TRY(qz_eval_against(base, &quantized, &divergence, written, &windows, progress));
 *
 * A model is evaluated as a server runs it: what its checkpoint says of the rounding of activations and of the cache is
 * done. Where it says nothing, the tap that is installed on the model counts. */
#ifndef QZ_EVAL_EVAL_H
#define QZ_EVAL_EVAL_H

#include "base/progress.h"
#include "data/data.h"
#include "models/models.h"

typedef struct qz_perplexity {
    double perplexity, mean_log_prob;
    int64_t tokens, windows;
    double seconds;
} qz_perplexity;

/* Layer by layer over all windows, so that a layer's weights are widened once. */
QZ_NODISCARD qz_status qz_eval_perplexity(qz_perplexity *out, const qz_model *m, const qz_windows *w,
                                          qz_progress *progress);
/* Bytes that it allocates at its peak. */
uint64_t qz_eval_bytes(const qz_model *m, int64_t windows, int64_t length);

/* The last hidden states of a model on windows, after the final norm: all that its predictions depend on but the head.
 * It refers to model and windows, which must outlive it. */
typedef struct qz_hidden qz_hidden;

/* qz_eval_perplexity, with the hidden states kept: `out` is the same to the last bit. */
QZ_NODISCARD qz_status qz_eval_hidden(qz_hidden **kept, qz_perplexity *out, const qz_model *m, const qz_windows *w,
                                      qz_progress *progress);
void qz_hidden_free(qz_hidden *h);
/* Moves the states to a file without a name in `folder`, mapped: they do not count as memory that is needed any more.
 * QZ_IO when the folder cannot hold them; then they stay. */
QZ_NODISCARD qz_status qz_hidden_spill(qz_hidden *h, const char *folder);
/* Bytes of the states. */
uint64_t qz_hidden_bytes(const qz_model *m, int64_t windows, int64_t length);

/* Over the predicted positions, P being the base's distribution and Q the other's:
 * KL(P || Q) = sum_v P(v) (log P(v) - log Q(v)) in nats, and whether both have the same most likely token (the first
 * of equals). kl_99 is the smallest value that 99 % of the positions do not exceed. */
typedef struct qz_divergence {
    double kl_mean, kl_99, top1;
    int64_t tokens;
} qz_divergence;

/* Perplexity of a model, the same to the last bit as above, and its divergence from the base, in one pass over both
 * heads. The windows must be those of the base and the vocabulary the same: else QZ_ARG naming both folders. */
QZ_NODISCARD qz_status qz_eval_against(const qz_hidden *base, qz_perplexity *out, qz_divergence *divergence,
                                       const qz_model *m, const qz_windows *w, qz_progress *progress);
/* Bytes at the peak of evaluating a model like `m` against a base, without what the base keeps. */
uint64_t qz_eval_compare_bytes(const qz_model *m, int64_t windows, int64_t length);

/* ---- what a server rounds at run time (rounding.c) ---- */

/* One input of a layer's linears; mode NONE: it stays. */
typedef struct qz_eval_input_rounding {
    qz_act_scheme scheme;
    qz_act_values values; /* for QZ_ACT_TENSOR */
} qz_eval_input_rounding;

/* One layer. Filled from a checkpoint below, or by the caller (calibration, with what it has just chosen). */
typedef struct qz_eval_layer_rounding {
    const qz_backend *backend;
    int inputs;                          /* 0: none is rounded */
    const qz_eval_input_rounding *input; /* [inputs] */
    qz_kv_scheme kv;
    const float *key, *value; /* (HK) scales, all equal unless per head; when kv.wanted */
} qz_eval_layer_rounding;

typedef struct qz_eval_rounding {
    int layers;
    qz_eval_layer_rounding *layer; /* [layers] */
} qz_eval_rounding;

/* What the model's checkpoint says. Linears that share an input and disagree are QZ_FORMAT naming both. Evaluations
 * of this folder do it by themselves. */
QZ_NODISCARD qz_status qz_eval_rounding_read(qz_eval_rounding *out, const qz_model *m, qz_arena *arena);
/* A tap that rounds as said, for qz_layer.tap or qz_model_set_tap; it refers to `r`. {NULL, NULL} when nothing is
 * rounded. */
qz_tap qz_eval_layer_tap(const qz_eval_layer_rounding *r);
qz_tap qz_eval_rounding_tap(const qz_eval_rounding *r);
/* "112 of 112 inputs rounded (int8 per token); cache fp8_e4m3 per tensor", for reports. */
void qz_eval_rounding_describe(const qz_eval_rounding *r, char *out, size_t size);

#endif
