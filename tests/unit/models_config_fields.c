/* Fields that several families share: flags, numbers with defaults, Qwen's sliding window. */
#include "models/families.h"

#include "testing/testing.h"

static qz_json *doc;

static const qz_json_node *node_of(const char *text)
{
    qz_json_close(doc);
    check_ok(qz_json_parse(&doc, text, strlen(text)));
    return qz_json_root(doc);
}

static void tidy(void)
{
    qz_json_close(doc);
}

TestSuite(config_fields, .fini = tidy);

Test(config_fields, flag)
{
    bool b;
    check_ok(qz_config_flag(node_of("{}"), "f", true, &b));
    cr_assert(b);
    check_ok(qz_config_flag(node_of("{\"f\": null}"), "f", true, &b));
    cr_assert(b);
    check_ok(qz_config_flag(node_of("{\"f\": false}"), "f", true, &b));
    cr_assert(!b);
    check_fails(QZ_FORMAT, "f", qz_config_flag(node_of("{\"f\": 1}"), "f", true, &b));
}

Test(config_fields, absent_and_null_differ)
{
    int64_t n;
    check_ok(qz_config_int_or(node_of("{}"), "n", 1, 9, 5, 0, &n));
    cr_assert(n == 5);
    check_ok(qz_config_int_or(node_of("{\"n\": null}"), "n", 1, 9, 5, 0, &n));
    cr_assert(n == 0);
    check_ok(qz_config_int_or(node_of("{\"n\": 7}"), "n", 1, 9, 5, 0, &n));
    cr_assert(n == 7);
    check_fails(QZ_FORMAT, "n", qz_config_int_or(node_of("{\"n\": 10}"), "n", 1, 9, 5, 0, &n));
}

static qz_status window_of(qz_model_config *c, uint8_t slides[4], const char *text)
{
    *c = (qz_model_config){.layers = 4, .layer_slides = slides};
    memset(slides, 9, 4);
    return qz_config_qwen_window(c, node_of(text));
}

Test(config_fields, qwen_slides_only_when_told)
{
    qz_model_config c;
    uint8_t s[4];
    check_ok(window_of(&c, s, "{\"sliding_window\": 8, \"max_window_layers\": 1}"));
    cr_assert(c.window == 0 && s[0] == 0 && s[3] == 0);
    check_ok(window_of(&c, s, "{\"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 1}"));
    cr_assert(c.window == 8 && s[0] == 0 && s[1] == 1 && s[3] == 1);
    check_ok(window_of(&c, s, "{\"use_sliding_window\": true, \"sliding_window\": null, \"max_window_layers\": 1}"));
    cr_assert(c.window == 0 && s[3] == 0);
    check_ok(window_of(&c, s, "{\"use_sliding_window\": true}"));
    cr_assert(c.window == 4096 && c.first_window_layer == 28 && s[3] == 0);
}

Test(config_fields, layer_types_win)
{
    qz_model_config c;
    uint8_t s[4];
    check_ok(
        window_of(&c, s,
                  "{\"use_sliding_window\": true, \"sliding_window\": 8, \"max_window_layers\": 0, \"layer_types\": "
                  "[\"full_attention\", \"sliding_attention\", \"full_attention\", \"full_attention\"]}"));
    cr_assert(s[0] == 0 && s[1] == 1 && s[2] == 0 && s[3] == 0);
}

Test(config_fields, layer_types_must_make_sense)
{
    qz_model_config c;
    uint8_t s[4];
    check_fails(QZ_FORMAT, "each of 4 layers", window_of(&c, s, "{\"layer_types\": [\"full_attention\"]}"));
    check_fails(QZ_FORMAT, "layer_types", window_of(&c, s, "{\"layer_types\": \"full_attention\"}"));
    check_fails(QZ_FORMAT, "layer_types[1]: found \"chunked_attention\"",
                window_of(&c, s,
                          "{\"layer_types\": [\"full_attention\", \"chunked_attention\", \"full_attention\", "
                          "\"full_attention\"]}"));
    check_fails(QZ_FORMAT, "use_sliding_window",
                window_of(&c, s,
                          "{\"layer_types\": [\"sliding_attention\", \"full_attention\", \"full_attention\", "
                          "\"full_attention\"]}"));
    check_fails(QZ_FORMAT, "layer_types[0]: found 3", window_of(&c, s, "{\"layer_types\": [3, 3, 3, 3]}"));
    check_fails(QZ_FORMAT, "sliding_window", window_of(&c, s, "{\"sliding_window\": 0}"));
    check_fails(QZ_FORMAT, "max_window_layers", window_of(&c, s, "{\"max_window_layers\": -1}"));
}
