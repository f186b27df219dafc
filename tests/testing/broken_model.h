/* Copies of demo/model with something wrong in them. What is not changed is linked, so a copy costs little. */
#ifndef QZ_TESTING_BROKEN_MODEL_H
#define QZ_TESTING_BROKEN_MODEL_H

#include <stddef.h>
#include <stdint.h>

/* A folder in test_folder() that holds links to every file of demo/model but `without` (NULL: all). */
const char *broken_folder(const char *without);

/* With another config.json: member `key` set to the JSON text `value`; NULL removes it. */
const char *broken_config(const char *key, const char *value);
/* With config.json replaced by `text`. */
const char *broken_config_text(const char *text);

/* With another model.safetensors: `from` replaced by `to` in the header (its length may change); `header_size` is
 * written as it is, 0 means the true one; `cut` bytes are missing at the end. */
const char *broken_header(const char *from, const char *to, uint64_t header_size, size_t cut);
/* With the bf16 number `bits` as element `index` of `tensor`; count of them from there. */
const char *broken_weight(const char *tensor, size_t index, size_t count, uint16_t bits);

/* With `from` replaced by `to` in tokenizer.json. */
const char *broken_tokenizer(const char *from, const char *to);

#endif
