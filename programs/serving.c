/* Runs the rules over a folder, and keeps and prints what they find. A finding made at several places is told once,
 * with the first place and the number of further ones. */
#include "programs/serving.h"

#include <stdarg.h>
#include <string.h>

#include "programs/served.h"

static const qz_serving_rule rules[] = {
#define QZ_SERVING_RULE(id, name, consumers, help) {name, help, consumers, qz_serving_##id},
#include "programs/serving_rules.def"
#undef QZ_SERVING_RULE
};

static const struct {
    qz_consumer consumer;
    const char *name;
} consumers[] = {{QZ_FOR_VLLM, "vllm"}, {QZ_FOR_TRANSFORMERS, "transformers"}, {QZ_FOR_TRT_LLM, "trt-llm"}};

enum { CONSUMERS = sizeof consumers / sizeof *consumers };

qz_status qz_consumer_find(qz_consumer *out, const char *name)
{
    for (size_t i = 0; i < CONSUMERS; i++) {
        if (strcmp(consumers[i].name, name) != 0) continue;
        *out = consumers[i].consumer;
        return QZ_OK;
    }
    return QZ_FAIL(QZ_ARG, "found the consumer \"%s\"; known are vllm, transformers and trt-llm", name);
}

const char *qz_consumer_name(qz_consumer one)
{
    for (size_t i = 0; i < CONSUMERS; i++)
        if (consumers[i].consumer == one) return consumers[i].name;
    return "";
}

const char *qz_harm_name(qz_harm harm)
{
    static const char *const names[QZ_HARMS] = {"refused", "silently wrong", "limited"};
    return names[harm];
}

const qz_serving_rule *qz_serving_rule_at(size_t i)
{
    return i < sizeof rules / sizeof *rules ? &rules[i] : NULL;
}

const char *qz_serving_rule_name(const qz_serving_rule *r)
{
    return r->name;
}

const char *qz_serving_rule_help(const qz_serving_rule *r)
{
    return r->help;
}

unsigned qz_serving_rule_consumers(const qz_serving_rule *r)
{
    return r->consumers;
}

/* ---- findings ---- */

static qz_finding *find_same(const qz_findings *f, const qz_finding *like)
{
    for (qz_finding *x = f->first; x; x = x->next)
        if (x->rule == like->rule && x->harm == like->harm && x->advice == like->advice &&
            strcmp(x->what, like->what) == 0)
            return x;
    return NULL;
}

static void append(qz_findings *f, const qz_finding *finding)
{
    qz_finding *copy = qz_arena_alloc(f->arena, sizeof *copy);
    if (!copy) {
        f->failed = true;
        return;
    }
    *copy = *finding;
    copy->where = qz_arena_strdup(f->arena, finding->where);
    copy->what = qz_arena_strdup(f->arena, finding->what);
    if (!copy->where || !copy->what) f->failed = true;
    if (f->failed) return;
    if (f->last)
        f->last->next = copy;
    else
        f->first = copy;
    f->last = copy;
    f->count[copy->harm]++;
}

void qz_finding_add(qz_findings *f, qz_harm harm, const char *where, const char *advice, const char *format, ...)
{
    char what[512];
    va_list args;
    va_start(args, format);
    vsnprintf(what, sizeof what, format, args);
    va_end(args);
    const qz_finding finding = {.rule = f->rule, .harm = harm, .where = where, .what = what, .advice = advice};
    qz_finding *same = find_same(f, &finding);
    if (same)
        same->more++;
    else
        append(f, &finding);
}

static qz_status run_rules(qz_findings *f, const qz_served *s)
{
    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++) {
        if (!(rules[i].consumers & s->consumer)) continue;
        f->rule = rules[i].name;
        QZ_TRY_CTX(rules[i].check(s, f), "%s: rule %s", s->folder, rules[i].name);
    }
    return f->failed ? QZ_FAIL(QZ_MEMORY, "%s: no memory for the findings", s->folder) : QZ_OK;
}

qz_status qz_serving_check(qz_findings *out, const char *folder, qz_consumer consumer, qz_arena *arena)
{
    qz_served served;
    *out = (qz_findings){.arena = arena, .consumer = consumer};
    QZ_TRY(qz_served_open(&served, folder, consumer, arena));
    qz_status status = run_rules(out, &served);
    qz_served_close(&served);
    return status;
}

bool qz_serving_spoils(const qz_findings *f)
{
    return f->count[QZ_HARM_REFUSED] + f->count[QZ_HARM_WRONG] > 0;
}

void qz_serving_print(const qz_findings *f, FILE *out, const char *prefix)
{
    for (const qz_finding *x = f->first; x; x = x->next) {
        fprintf(out, "%s%s (%s, %s): %s: %s", prefix, qz_harm_name(x->harm), qz_consumer_name(f->consumer), x->rule,
                x->where, x->what);
        if (x->more) fprintf(out, " (and at %zu more)", x->more);
        fprintf(out, "\n%s    %s\n", prefix, x->advice);
    }
}

void qz_serving_put(const qz_findings *f, qz_json_writer *w, const char *key)
{
    qz_json_begin_array(w, key);
    for (const qz_finding *x = f->first; x; x = x->next) {
        qz_json_begin_object(w, NULL);
        qz_json_put_string(w, "rule", x->rule);
        qz_json_put_string(w, "harm", qz_harm_name(x->harm));
        qz_json_put_string(w, "where", x->where);
        qz_json_put_int(w, "further_places", (int64_t)x->more);
        qz_json_put_string(w, "found", x->what);
        qz_json_put_string(w, "advice", x->advice);
        qz_json_end(w);
    }
    qz_json_end(w);
}
