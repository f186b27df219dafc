/* An export plan -> the names of what is not quantized. */
#include "checkpoints/plain_list.h"

#include <string.h>

#define HEAD "lm_head"

void qz_export_put_plain(qz_json_writer *w, const char *key, const qz_export_plan *plan)
{
    bool head = false;
    qz_json_begin_array(w, key);
    for (size_t i = 0; i < plan->linears; i++) {
        const qz_export_linear *l = &plan->linear[i];
        head |= strcmp(l->module, HEAD) == 0;
        if (!l->quantized) qz_json_put_string(w, NULL, l->module);
    }
    for (size_t i = 0; i < plan->routers; i++) qz_json_put_string(w, NULL, plan->router[i]);
    if (!head) qz_json_put_string(w, NULL, HEAD);
    qz_json_end(w);
}
