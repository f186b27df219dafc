/* Any bytes as a safetensors file: an error, or tensors that lie back to back inside the data. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoints/checkpoints.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    qz_safetensors *st;
    if (qz_safetensors_parse(&st, data, size, "fuzz") != QZ_OK) return 0;
    size_t header, n = qz_safetensors_count(st);
    uint64_t file_size;
    qz_safetensors_header(st, &header, &file_size);
    uint64_t end = 8 + header;
    volatile uint8_t sum = 0;
    for (size_t i = 0; i < n; i++) {
        const qz_stored *t = qz_safetensors_at(st, i);
        const uint8_t *bytes = t->view.data;
        if (t->offset != end || (t->bytes && bytes != data + t->offset)) abort();
        if (qz_safetensors_find(st, t->name) != t) abort();
        for (uint64_t b = 0; b < t->bytes; b++) sum = (uint8_t)(sum + bytes[b]);
        end += t->bytes;
    }
    if (end != size || file_size != size) abort();
    qz_safetensors_close(st);
    return 0;
}
