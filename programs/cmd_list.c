/* qcal list KIND: what recipes can name, as a table or as JSON. */
#include <string.h>

#include "base/json.h"
#include "calib/calib.h"
#include "programs/cli.h"
#include "programs/table.h"

typedef struct list_kind {
    const char *name;
    const qz_plugins *(*plugins[3])(void);
    bool consumers; /* rows are containers */
} list_kind;

static const list_kind kinds[] = {
    {"methods", {qz_transforms, qz_ranges, qz_solvers}, false},
    {"transforms", {qz_transforms}, false},
    {"ranges", {qz_ranges}, false},
    {"solvers", {qz_solvers}, false},
    {"formats", {NULL}, false},
    {"containers", {qz_containers}, true},
    {"families", {qz_families}, false},
    {"backends", {qz_backends}, false},
};

enum { KINDS = sizeof kinds / sizeof kinds[0] };

static qz_status find_kind(const list_kind **out, const char *name)
{
    const char *names[KINDS + 1] = {0};
    char all[128] = "";
    for (size_t i = 0; i < KINDS; i++) {
        *out = &kinds[i];
        if (strcmp(kinds[i].name, name) == 0) return QZ_OK;
        names[i] = kinds[i].name;
        size_t used = strlen(all);
        snprintf(all + used, sizeof all - used, "%s%s", used ? ", " : "", kinds[i].name);
    }
    const char *nearest = qz_nearest_name(name, names);
    if (nearest) return QZ_FAIL(QZ_ARG, "list: unknown kind \"%s\"; did you mean \"%s\"?", name, nearest);
    return QZ_FAIL(QZ_ARG, "list: unknown kind \"%s\"; there are: %s", name, all);
}

/* ---- as text ---- */

static void print_option(FILE *out, const qz_option *o)
{
    char value[128];
    if (o->type == QZ_OPT_BOOL)
        snprintf(value, sizeof value, "%s", o->fallback != 0 ? "true" : "false");
    else if (o->type == QZ_OPT_CHOICE)
        snprintf(value, sizeof value, "%s", o->choices[(int)o->fallback]);
    else
        snprintf(value, sizeof value, "%g, from %g to %g", o->fallback, o->low, o->high);
    fprintf(out, "    %-16s %s (default %s)\n", o->name, o->help, value);
}

static void print_plugin(FILE *out, const char *kind, const qz_plugin *p, const char *consumers)
{
    fprintf(out, "%s%s%s\n    %s%s%s%s\n", p->name, *kind ? ", " : "", kind, p->help, *p->source ? " (" : "", p->source,
            *p->source ? ")" : "");
    if (consumers) fprintf(out, "    loaded by: %s\n", consumers);
    for (const qz_option *o = p->options; o && o->type != QZ_OPT_END; o++) print_option(out, o);
}

static qz_status print_formats(const qz_cli *cli)
{
    qz_table t = qz_table_new(cli->arena, 4);
    t.left[3] = true;
    qz_table_row_add(&t);
    static const char *const head[] = {"format", "bits", "largest", "specification"};
    for (int c = 0; c < 4; c++) qz_table_set(&t, c, "%s", head[c]);
    for (int f = 0; f < QZ_FORMAT_COUNT; f++) {
        const qz_format_info *info = qz_format_of((qz_format)f);
        qz_table_row_add(&t);
        qz_table_set(&t, 0, "%s", info->name);
        qz_table_set(&t, 1, "%d", info->bits);
        qz_table_set(&t, 2, "%.6g", info->largest);
        qz_table_set(&t, 3, "%s", info->specification);
    }
    return qz_table_print(&t, cli->out, "");
}

static void print_plugins(const qz_cli *cli, const list_kind *kind)
{
    bool several = kind->plugins[1] != NULL;
    for (int i = 0; i < 3 && kind->plugins[i]; i++) {
        const qz_plugins *list = kind->plugins[i]();
        for (size_t row = 0; row < list->count; row++)
            print_plugin(cli->out, several ? list->kind : "", list->rows[row],
                         kind->consumers ? qz_container_at(row)->consumers : NULL);
    }
}

/* ---- as JSON ---- */

static void put_option(qz_json_writer *w, const qz_option *o)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "name", o->name);
    qz_json_put_string(w, "help", o->help);
    if (o->type == QZ_OPT_BOOL) qz_json_put_bool(w, "default", o->fallback != 0);
    if (o->type == QZ_OPT_CHOICE) {
        qz_json_put_string(w, "default", o->choices[(int)o->fallback]);
        qz_json_begin_array(w, "choices");
        for (int i = 0; o->choices[i]; i++) qz_json_put_string(w, NULL, o->choices[i]);
        qz_json_end(w);
    }
    if (o->type == QZ_OPT_INT || o->type == QZ_OPT_NUMBER) {
        qz_json_put_double(w, "default", o->fallback);
        qz_json_put_double(w, "low", o->low);
        qz_json_put_double(w, "high", o->high);
    }
    qz_json_end(w);
}

static void put_plugin(qz_json_writer *w, const char *kind, const qz_plugin *p, const char *consumers)
{
    qz_json_begin_object(w, NULL);
    qz_json_put_string(w, "name", p->name);
    qz_json_put_string(w, "kind", kind);
    qz_json_put_string(w, "help", p->help);
    qz_json_put_string(w, "source", p->source);
    if (consumers) qz_json_put_string(w, "consumers", consumers);
    qz_json_begin_array(w, "options");
    for (const qz_option *o = p->options; o && o->type != QZ_OPT_END; o++) put_option(w, o);
    qz_json_end(w);
    qz_json_end(w);
}

static void put_formats(qz_json_writer *w)
{
    for (int f = 0; f < QZ_FORMAT_COUNT; f++) {
        const qz_format_info *info = qz_format_of((qz_format)f);
        qz_json_begin_object(w, NULL);
        qz_json_put_string(w, "name", info->name);
        qz_json_put_int(w, "bits", info->bits);
        qz_json_put_double(w, "largest", info->largest);
        qz_json_put_string(w, "specification", info->specification);
        qz_json_end(w);
    }
}

static qz_status print_json(const qz_cli *cli, const list_kind *kind)
{
    qz_json_writer *w;
    const char *text;
    size_t size;
    QZ_TRY(qz_json_writer_new(&w, true));
    qz_json_begin_array(w, NULL);
    if (!kind->plugins[0]) put_formats(w);
    for (int i = 0; i < 3 && kind->plugins[i]; i++) {
        const qz_plugins *list = kind->plugins[i]();
        for (size_t row = 0; row < list->count; row++)
            put_plugin(w, list->kind, list->rows[row], kind->consumers ? qz_container_at(row)->consumers : NULL);
    }
    qz_json_end(w);
    qz_status status = qz_json_writer_finish(w, &text, &size);
    if (status == QZ_OK) fputs(text, cli->out);
    qz_json_writer_free(w);
    return status;
}

qz_status qz_cmd_list(qz_cli *cli, int *exit_code)
{
    const list_kind *kind;
    *exit_code = QZ_EXIT_DONE;
    QZ_TRY(find_kind(&kind, cli->argument[0]));
    if (cli->json) return print_json(cli, kind);
    if (!kind->plugins[0]) return print_formats(cli);
    print_plugins(cli, kind);
    return QZ_OK;
}
