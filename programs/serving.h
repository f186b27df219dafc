/* What a serving program will refuse of a folder, or silently do otherwise than it says: rules over config.json and the
 * stored tensors. Nothing is run, and no container reader of ours is asked: the files are looked at as the consumer
 * does.
 *
 *     qz_findings f;
 *     QZ_TRY(qz_serving_check(&f, folder, QZ_FOR_VLLM, arena));
 *     QZ_TRY(qz_serving_print(&f, stdout, ""));
 *     if (qz_serving_spoils(&f)) ...
 *
 * The rules are rows of serving_rules.def; docs/serving.md says what each looks at and where its facts come from. */
#ifndef QZ_PROGRAMS_SERVING_H
#define QZ_PROGRAMS_SERVING_H

#include <stdbool.h>
#include <stdio.h>

#include "base/arena.h"
#include "base/json.h"

/* Flags, since a rule can hold for several. */
typedef enum qz_consumer { QZ_FOR_VLLM = 1, QZ_FOR_TRANSFORMERS = 2, QZ_FOR_TRT_LLM = 4, QZ_FOR_ALL = 7 } qz_consumer;

/* By name: "vllm", "transformers", "trt-llm"; QZ_ARG naming them. */
QZ_NODISCARD qz_status qz_consumer_find(qz_consumer *out, const char *name);
const char *qz_consumer_name(qz_consumer one);

typedef enum qz_harm {
    QZ_HARM_REFUSED, /* it does not load */
    QZ_HARM_WRONG,   /* it loads and computes something else than the folder says */
    QZ_HARM_LIMITED, /* it loads, but not everywhere, or slower than it could */
    QZ_HARMS
} qz_harm;

const char *qz_harm_name(qz_harm harm); /* "refused", "silently wrong", "limited" */

typedef struct qz_finding {
    struct qz_finding *next;
    const char *rule;
    qz_harm harm;
    const char *where;  /* the first tensor, module or key */
    const char *what;   /* what was found */
    const char *advice; /* what to do */
    size_t more;        /* further places with the same finding */
} qz_finding;

typedef struct qz_findings {
    qz_arena *arena;
    qz_consumer consumer;
    const char *rule;         /* the one that runs */
    qz_finding *first, *last; /* in the order of the rules */
    size_t count[QZ_HARMS];
    bool failed; /* memory was short */
} qz_findings;

/* A folder that is no checkpoint (no config.json, unreadable tensors, a family that we do not know) is an error. All
 * texts live in `arena`. */
QZ_NODISCARD qz_status qz_serving_check(qz_findings *out, const char *folder, qz_consumer consumer, qz_arena *arena);
/* Something is refused or silently wrong. */
bool qz_serving_spoils(const qz_findings *f);
/* Two lines each: "refused (vllm, group-size): model.layers.0.mlp.up_proj: groups of 48 ...", and what to do. */
void qz_serving_print(const qz_findings *f, FILE *out, const char *prefix);
/* An array member `key` with an object for each finding. */
void qz_serving_put(const qz_findings *f, qz_json_writer *w, const char *key);

/* The rules, for the documentation and its test; NULL after the last. */
typedef struct qz_serving_rule qz_serving_rule;
const qz_serving_rule *qz_serving_rule_at(size_t i);
const char *qz_serving_rule_name(const qz_serving_rule *r);
const char *qz_serving_rule_help(const qz_serving_rule *r);
unsigned qz_serving_rule_consumers(const qz_serving_rule *r);

#endif
