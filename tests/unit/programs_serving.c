/* The serving rules together: sound folders pass all of them, each is documented, and `qcal check` says what they
 * find. */
#include "base/file.h"
#include "programs/cli.h"
#include "testing/serving_case.h"

static char *out, *err;

static void stop(void)
{
    free(out);
    free(err);
    teardown();
}

TestSuite(serving, .init = setup, .fini = stop);

/* Folders as their formats want them: nothing is refused or wrong. */
Test(serving, sound_folders_pass)
{
    static const struct {
        const char *quant;
        void (*make)(const char *, int64_t, int64_t);
        unsigned consumers;
    } sound[] = {{NULL, make_plain, QZ_FOR_ALL},
                 {AWQ(""), make_awq, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {GPTQ("4", "true", "false", ""), make_gptq, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {COMPRESSED("pack-quantized", INT4, "null", IGNORE), make_packed, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {COMPRESSED("int-quantized", INT8, STATIC, IGNORE), make_int8, QZ_FOR_VLLM | QZ_FOR_TRANSFORMERS},
                 {FP8("static", ""), make_fp8, QZ_FOR_VLLM},
                 {FP8("dynamic", BLOCKS), make_blocks, QZ_FOR_ALL},
                 {NF4, make_nf4, QZ_FOR_TRANSFORMERS}};
    for (size_t i = 0; i < sizeof sound / sizeof *sound; i++)
        for (int c = 1; c <= 4; c *= 2) {
            if (!(sound[i].consumers & (unsigned)c)) continue;
            new_folder(sound[i].quant);
            each_linear(sound[i].make);
            check_for((qz_consumer)c);
            cr_assert(!qz_serving_spoils(&findings), "case %zu, %s: %s: %s", i, qz_consumer_name((qz_consumer)c),
                      findings.first->where, findings.first->what);
        }
}

/* Plain models of every family: the names that the rules look for are those that are stored. */
Test(serving, every_family)
{
    char **names, folder[512];
    size_t count, seen = 0;
    check_ok(qz_folder_list(&names, &count, "tests/golden/models", arena));
    for (size_t i = 0; i < count; i++, seen++) {
        snprintf(folder, sizeof folder, "tests/golden/models/%s", names[i]);
        check_ok(qz_serving_check(&findings, folder, QZ_FOR_VLLM, arena));
        cr_assert(!qz_serving_spoils(&findings), "%s: %s: %s", names[i], findings.first->where, findings.first->what);
    }
    cr_assert(seen >= 5);
}

/* ---- the table and the command ---- */

/* docs/serving.md has a heading for each rule, with what it looks at and whom it is for. */
Test(serving, every_rule_is_documented)
{
    FILE *in = fopen("docs/serving.md", "r");
    char page[32768];
    cr_assert(in != NULL);
    page[fread(page, 1, sizeof page - 1, in)] = '\0';
    fclose(in);
    const qz_serving_rule *r;
    size_t i = 0;
    for (; (r = qz_serving_rule_at(i)) != NULL; i++) {
        char heading[64];
        snprintf(heading, sizeof heading, "\n### %s\n", qz_serving_rule_name(r));
        const char *at = strstr(page, heading), *next = at ? strstr(at + 4, "\n### ") : NULL;
        cr_assert(at != NULL, "docs/serving.md has no section %s", qz_serving_rule_name(r));
        for (int c = 1; c <= 4; c *= 2) {
            const char *named = strstr(at, qz_consumer_name((qz_consumer)c));
            const bool here = named && (!next || named < next);
            cr_assert(here || !(qz_serving_rule_consumers(r) & (unsigned)c), "section %s does not name %s",
                      qz_serving_rule_name(r), qz_consumer_name((qz_consumer)c));
        }
        cr_assert(*qz_serving_rule_help(r));
    }
    size_t headings = 0;
    for (const char *at = page; (at = strstr(at, "\n### ")) != NULL; at++) headings++;
    cr_assert_eq(headings, i, "docs/serving.md has %zu sections, there are %zu rules", headings, i);
}

static int qcal(const char *folder, const char *consumer, const char *more)
{
    const char *argv[] = {"qcal", "check", folder, "--for", consumer, more, NULL};
    size_t out_size, err_size;
    free(out);
    free(err);
    FILE *o = open_memstream(&out, &out_size), *e = open_memstream(&err, &err_size);
    const int code = qz_cli_main(&qz_qcal, more ? 6 : 5, (char **)argv, o, e);
    fclose(o);
    fclose(e);
    return code;
}

Test(serving, command)
{
    new_folder(GPTQ("3", "true", "false", ""));
    each_linear(make_gptq);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", write_folder());
    cr_assert_eq(qcal(folder, "vllm", NULL), QZ_EXIT_NOT_ACCEPTED);
    cr_assert(strstr(out, "refused (vllm, gptq-kind): model.layers.0.self_attn.q_proj: 3 bits") &&
                  strstr(out, "(and at 13 more)") && strstr(out, "1 refused, 0 silently wrong"),
              "%s", out);
    cr_assert_eq(qcal(folder, "transformers", NULL), QZ_EXIT_DONE);
    cr_assert(strstr(out, "0 refused, 0 silently wrong"), "%s", out);
    cr_assert_eq(qcal(folder, "vllm", "--json"), QZ_EXIT_NOT_ACCEPTED);
    qz_json *doc;
    check_ok(qz_json_parse(&doc, out, strlen(out)));
    const qz_json_node *first = qz_json_first(qz_json_get(qz_json_root(doc), "findings"));
    cr_assert(!qz_json_true(qz_json_get(qz_json_root(doc), "loads_as_written")));
    cr_assert_str_eq(qz_json_text(qz_json_get(first, "rule")), "gptq-kind");
    qz_json_close(doc);
    cr_assert_eq(qcal(folder, "ollama", NULL), QZ_EXIT_USAGE);
    cr_assert(strstr(err, "known are vllm, transformers and trt-llm"), "%s", err);
    cr_assert_eq(qcal("/nowhere", "vllm", NULL), QZ_EXIT_FAILED);
}

Test(serving, every_allocation_may_fail)
{
    new_folder(AWQ(""));
    each_linear(make_awq);
    char folder[512];
    snprintf(folder, sizeof folder, "%s", write_folder());
    int n = 0;
    for (;;) {
        qz_arena *a;
        qz_findings f;
        check_ok(qz_arena_new(&a, "test"));
        qz_alloc_fail_at(++n);
        qz_status status = qz_serving_check(&f, folder, QZ_FOR_VLLM, a);
        qz_alloc_fail_at(0);
        qz_arena_free(a);
        if (status == QZ_OK) break;
        cr_assert(status == QZ_MEMORY && n < 1000, "allocation %d: %s", n, qz_error_message());
    }
    cr_assert(n > 5);
}
