/* Where a model's folder keeps its chat template: chat_template.jinja, else the member chat_template of
 * tokenizer_config.json (text, or a list of named ones of which "default" is taken), as transformers looks for it. */
#include <string.h>

#include "base/file.h"
#include "data/chat.h"

enum { LARGEST_TEMPLATE = 1 << 18, LARGEST_CONFIG = 1 << 26 };

static const char *text_of(const qz_json_node *node)
{
    return qz_json_is(node, QZ_JSON_STRING) ? qz_json_text(node) : NULL;
}

/* "<s>", or {"content": "<s>", ...}. */
static const char *token_of(const qz_json_node *config, const char *key)
{
    const qz_json_node *token = qz_json_get(config, key);
    return qz_json_is(token, QZ_JSON_OBJECT) ? text_of(qz_json_get(token, "content")) : text_of(token);
}

static const char *template_of(const qz_json_node *config)
{
    const qz_json_node *value = qz_json_get(config, "chat_template");
    if (!qz_json_is(value, QZ_JSON_ARRAY)) return text_of(value);
    for (const qz_json_node *c = qz_json_first(value); c; c = qz_json_next(c)) {
        const char *name = text_of(qz_json_get(c, "name"));
        if (name && strcmp(name, "default") == 0) return text_of(qz_json_get(c, "template"));
    }
    return NULL;
}

static qz_status keep(const char **out, const char *text, qz_arena *arena)
{
    *out = text ? qz_arena_strdup(arena, text) : NULL;
    return text && !*out ? qz_arena_failed(arena) : QZ_OK;
}

static qz_status parse(qz_chat *out, const char *folder, const char *own_file, const qz_json_node *config,
                       qz_arena *arena)
{
    const char *text = own_file ? own_file : template_of(config), *bos, *eos;
    if (!text)
        return QZ_FAIL(QZ_UNSUPPORTED,
                       "%s: has no chat template (chat_template.jinja, or chat_template in tokenizer_config.json), so "
                       "conversations cannot be rendered: give lines with \"text\"",
                       folder);
    if (strlen(text) > LARGEST_TEMPLATE)
        return QZ_FAIL(QZ_UNSUPPORTED, "%s: the chat template has %zu bytes; at most %d are read", folder, strlen(text),
                       LARGEST_TEMPLATE);
    QZ_TRY(keep(&bos, token_of(config, "bos_token"), arena));
    QZ_TRY(keep(&eos, token_of(config, "eos_token"), arena));
    QZ_TRY_CTX(qz_chat_parse(out, text, bos, eos, arena), "%s", folder);
    return QZ_OK;
}

qz_status qz_chat_open(qz_chat *out, const char *folder, qz_arena *arena)
{
    char *own_path = qz_path_join(arena, folder, "chat_template.jinja"), *own_file = NULL, *text;
    char *config_path = qz_path_join(arena, folder, "tokenizer_config.json");
    qz_json *config = NULL;
    size_t size;
    if (!own_path || !config_path) return qz_arena_failed(arena);
    if (qz_path_exists(own_path)) QZ_TRY(qz_file_read(&own_file, &size, own_path, LARGEST_TEMPLATE, arena));
    if (qz_path_exists(config_path)) {
        QZ_TRY(qz_file_read(&text, &size, config_path, LARGEST_CONFIG, arena));
        QZ_TRY_CTX(qz_json_parse(&config, text, size), "%s", config_path);
    }
    qz_status status = parse(out, folder, own_file, qz_json_root(config), arena);
    qz_json_close(config);
    return status;
}
