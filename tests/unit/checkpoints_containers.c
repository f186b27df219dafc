/* The table of containers, whatever rows it has. */
#include "checkpoints/checkpoints.h"
#include "testing/testing.h"

Test(containers, every_row_is_whole)
{
    const qz_plugins *list = qz_containers();
    cr_assert(list->count >= 2);
    cr_assert_str_eq(list->kind, "container");
    for (size_t i = 0; i < list->count; i++) {
        const qz_container *c = qz_container_at(i), *found;
        cr_assert(&c->plugin == list->rows[i]);
        cr_assert(c->plugin.name && c->plugin.help && c->plugin.source && c->consumers && *c->consumers);
        check_ok(qz_container_find(&found, c->plugin.name));
        cr_assert(found == c);
        cr_assert(c->recognise && c->suffixes && qz_dtype_is_plain(c->preferred_plain_type));
        cr_assert(!c->holds == !c->read_linear && !c->holds == !c->read_scheme, "%s", c->plugin.name);
        bool writes = c->can_express != NULL;
        cr_assert(writes == (c->declare_linear != NULL) && writes == (c->write_linear != NULL) &&
                      writes == (c->config_block != NULL),
                  "%s", c->plugin.name);
    }
}

Test(containers, one_row_recognises_a_config)
{
    static const char *const text[] = {"{}", "{\"quantization_config\":null}",
                                       "{\"quantization_config\":{\"quant_method\":\"awq\"}}"};
    static const char *const name[] = {"dense", "dense", "awq"};
    for (size_t t = 0; t < 3; t++) {
        qz_json *doc;
        check_ok(qz_json_parse(&doc, text[t], strlen(text[t])));
        for (size_t i = 0; i < qz_containers()->count; i++) {
            const qz_container *c = qz_container_at(i);
            cr_assert(c->recognise(qz_json_root(doc)) == (strcmp(c->plugin.name, name[t]) == 0), "%s %s", text[t],
                      c->plugin.name);
        }
        qz_json_close(doc);
    }
}

Test(containers, unknown_name)
{
    const qz_container *c;
    check_fails(QZ_ARG, "container \"awk\" is not known", qz_container_find(&c, "awk"));
}
