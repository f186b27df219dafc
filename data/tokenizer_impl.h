/* What the files of the tokenizer share. Nothing outside data/ includes this.
 *
 * A text becomes ids in five steps, each in its own file: added tokens are cut out (tokenizer_added.c), the rest is
 * normalized (tokenizer_normalize.c) and split into words (tokenizer_split.c, tokenizer_regex.c), each word becomes
 * ids (tokenizer_bpe.c over the tables of tokenizer_vocab.c), and the template adds its tokens (tokenizer_post.c).
 * Words flow through depth first, so ids come out in text order and encoding may stop as soon as enough are there.
 *
 * Semantics are those of Hugging Face's tokenizers library 0.23 (https://github.com/huggingface/tokenizers).
 */
#ifndef QZ_DATA_TOKENIZER_IMPL_H
#define QZ_DATA_TOKENIZER_IMPL_H

#include "base/file.h"
#include "base/json.h"
#include "base/map.h"
#include "data/data.h"

enum {
    QZ_TOKENIZER_MAX_ID = 1 << 22, /* ids index tables, so an absurd id would be an absurd allocation */
    QZ_TOKENIZER_MAX_STEPS = 16,   /* components of one pipeline */
    QZ_WHERE_SIZE = 256,           /* "pre_tokenizer.pretokenizers[1]" for messages */
};

/* ---- growing text (tokenizer_text.c) ---- */

typedef struct qz_text {
    char *data;
    size_t size, room;
    const char *folder; /* where a large one is kept, in a file without a name; NULL: always in memory */
    qz_paged *paged;    /* that file; NULL: `data` is in memory */
} qz_text;

QZ_NODISCARD qz_status qz_text_add(qz_text *b, const char *data, size_t size);
QZ_NODISCARD qz_status qz_text_add_char(qz_text *b, uint32_t c);
void qz_text_free(qz_text *b);

/* UTF-8 of valid text: the character at `s` and its length; the length of the last character before `end`. */
uint32_t qz_utf8_get(const char *s, size_t *length);
size_t qz_utf8_last(const char *start, const char *end);
size_t qz_utf8_put(char out[4], uint32_t c);
/* White_Space; letters, marks, digits and joiners (\w of Rust's regex); General_Category N; punctuation. Characters
 * newer than utf8proc's Unicode belong to none. */
bool qz_char_is_space(uint32_t c);
bool qz_char_is_word(uint32_t c);
bool qz_char_is_number(uint32_t c);
bool qz_char_is_punctuation(uint32_t c);
/* GPT-2's visible alphabet for bytes; -1 when the character is not in it. */
uint32_t qz_byte_to_char(uint8_t byte);
int qz_char_to_byte(uint32_t c);

/* ---- reading a component (tokenizer_json.c): every message names the component's place ---- */

QZ_NODISCARD qz_status qz_part_type(const char **out, const qz_json_node *part, const char *where);
/* QZ_UNSUPPORTED when `part` has a member that is not in `known` (names separated by spaces). */
QZ_NODISCARD qz_status qz_part_known(const qz_json_node *part, const char *where, const char *known);
QZ_NODISCARD qz_status qz_part_unknown(const char *where, const char *type, const char *known);
/* Members; an absent or null one gives `otherwise`. */
QZ_NODISCARD qz_status qz_part_bool(bool *out, const qz_json_node *part, const char *where, const char *key,
                                    bool otherwise);
QZ_NODISCARD qz_status qz_part_string(const char **out, const qz_json_node *part, const char *where, const char *key,
                                      const char *otherwise);
/* A required string, copied into `arena`. */
QZ_NODISCARD qz_status qz_part_copy(const char **out, const qz_json_node *part, const char *where, const char *key,
                                    qz_arena *arena);
QZ_NODISCARD qz_status qz_part_int(int64_t *out, const qz_json_node *part, const char *where, const char *key,
                                   int64_t low, int64_t high);
/* The array `key` of a Sequence. */
QZ_NODISCARD qz_status qz_part_array(const qz_json_node **out, const qz_json_node *part, const char *where,
                                     const char *key);

/* ---- patterns (tokenizer_regex.c) ---- */

typedef struct qz_pattern qz_pattern;
typedef struct qz_matcher qz_matcher; /* what one thread needs for matching */

/* {"String": ...} or {"Regex": ...}. */
QZ_NODISCARD qz_status qz_pattern_read(qz_pattern **out, const qz_json_node *node, const char *where);
QZ_NODISCARD qz_status qz_pattern_new(qz_pattern **out, const char *regex, bool literal, const char *where);
void qz_pattern_free(qz_pattern *p);
QZ_NODISCARD qz_status qz_matcher_new(qz_matcher **out);
void qz_matcher_free(qz_matcher *m);

/* Goes through the matches of `text` from left to right. */
typedef struct qz_matches {
    const qz_pattern *pattern;
    qz_matcher *matcher;
    const char *text;
    size_t size;
    size_t next, last_end; /* where to search; the end of the last match, SIZE_MAX before the first */
} qz_matches;
void qz_matches_begin(qz_matches *it, const qz_pattern *p, qz_matcher *m, const char *text, size_t size);
QZ_NODISCARD qz_status qz_matches_next(qz_matches *it, bool *found, size_t *start, size_t *end);

/* The Oniguruma pattern (Ruby syntax) written for PCRE2 (tokenizer_onig.c). */
QZ_NODISCARD qz_status qz_onig_translate(qz_text *out, const char *regex, const char *where);

/* ---- normalizers ---- */

typedef enum qz_normal_kind {
    QZ_NORMAL_NFC,
    QZ_NORMAL_NFD,
    QZ_NORMAL_NFKC,
    QZ_NORMAL_NFKD,
    QZ_NORMAL_LOWERCASE,
    QZ_NORMAL_STRIP,
    QZ_NORMAL_PREPEND,
    QZ_NORMAL_REPLACE,
    QZ_NORMAL_BYTES,
} qz_normal_kind;

typedef struct qz_normal {
    qz_normal_kind kind;
    bool left, right;    /* strip */
    const char *content; /* prepend, replace */
    qz_pattern *pattern; /* replace */
} qz_normal;

typedef struct qz_normals {
    qz_normal step[QZ_TOKENIZER_MAX_STEPS];
    int count;
} qz_normals;

QZ_NODISCARD qz_status qz_normals_read(qz_normals *out, const qz_json_node *node, const char *where, qz_arena *arena);
void qz_normals_free(qz_normals *n);
/* `a` holds the text and afterwards the result; `b` is scratch. `first` is cleared when the first character that was
 * there is gone, because the text then no longer begins where the document does. */
QZ_NODISCARD qz_status qz_normals_apply(const qz_normals *n, qz_text *a, qz_text *b, bool *first, qz_matcher *m);
/* NFC, NFD, NFKC or NFKD (tokenizer_unicode.c). */
QZ_NODISCARD qz_status qz_unicode_normalize(qz_text *out, const qz_text *in, bool compose, bool compatible);
/* Every occurrence of the pattern by `content`, from `text` to `out`. */
QZ_NODISCARD qz_status qz_text_replace(qz_text *out, const qz_pattern *p, const char *content, const char *text,
                                       size_t size, qz_matcher *m);

/* ---- pre-tokenizers ---- */

typedef enum qz_split_kind {
    QZ_SPLIT_PATTERN,
    QZ_SPLIT_SPACE, /* at characters of a class */
    QZ_SPLIT_NUMBER,
    QZ_SPLIT_PUNCTUATION,
    QZ_SPLIT_CHAR,
    QZ_SPLIT_METASPACE,
    QZ_SPLIT_PREFIX_SPACE, /* ByteLevel's first step */
    QZ_SPLIT_BYTES,        /* ByteLevel's last step: no split, bytes become their visible characters */
} qz_split_kind;

typedef enum qz_behavior {
    QZ_BEHAVIOR_REMOVED,
    QZ_BEHAVIOR_ISOLATED,
    QZ_BEHAVIOR_CONTIGUOUS,
    QZ_BEHAVIOR_WITH_PREVIOUS,
    QZ_BEHAVIOR_WITH_NEXT,
} qz_behavior;

typedef enum qz_prepend { QZ_PREPEND_NEVER, QZ_PREPEND_FIRST, QZ_PREPEND_ALWAYS } qz_prepend;

typedef struct qz_split {
    qz_split_kind kind;
    qz_behavior behavior;
    bool invert;
    bool cut;            /* metaspace: split before the replacement */
    qz_prepend prepend;  /* metaspace */
    const char *content; /* metaspace's replacement, char's delimiter */
    qz_pattern *pattern;
} qz_split;

typedef struct qz_splits {
    qz_split step[QZ_TOKENIZER_MAX_STEPS];
    int count;
    bool bytes; /* the last step is QZ_SPLIT_BYTES; it is done where words become ids, and only for new words */
} qz_splits;

QZ_NODISCARD qz_status qz_splits_read(qz_splits *out, const qz_json_node *node, const char *where, qz_arena *arena);
void qz_splits_free(qz_splits *s);

/* ---- added tokens ---- */

typedef struct qz_added {
    const char *content;
    size_t size;
    int32_t id;
    bool single_word, lstrip, rstrip, normalized, special;
} qz_added;

/* Tokens by first byte, longest first: matching is leftmost-longest. */
typedef struct qz_added_set {
    const qz_added **token; /* (count) sorted by first byte, then by length, longest first */
    const char **pattern;   /* (count) what to look for: the content, or its normalized form */
    size_t *pattern_size;   /* (count) */
    size_t count;
    uint32_t first[257]; /* token[first[b] .. first[b + 1]) begin with byte b */
} qz_added_set;

QZ_NODISCARD qz_status qz_added_read(qz_tokenizer *t, const qz_json_node *list);

/* One piece of a text: an added token, or what lies between. */
typedef struct qz_added_piece {
    size_t start, end;
    const qz_added *token; /* NULL: ordinary text */
} qz_added_piece;
typedef struct qz_added_scan {
    const qz_added_set *set;
    const char *text;
    size_t size;
    size_t search, done; /* where to look for the next token; the end of what was given out */
    qz_added_piece held; /* a token that waits until the text before it is given out */
    bool holds;
} qz_added_scan;
bool qz_added_next(qz_added_scan *scan, qz_added_piece *out);

/* ---- the model ---- */

typedef struct qz_token {
    const char *text; /* NULL: no token has this id */
    uint32_t size;
    bool special; /* skipped by decoding when asked */
} qz_token;

typedef struct qz_merges {
    uint64_t *key;   /* (slots) left << 32 | right; UINT64_MAX: empty */
    uint64_t *value; /* (slots) rank << 32 | id of the merged token */
    uint64_t mask;   /* slots - 1 */
} qz_merges;

typedef struct qz_model_bpe {
    qz_strmap *vocab;
    int64_t vocab_count;
    qz_merges merges;
    bool ignore_merges, byte_fallback, fuse_unk;
    int32_t unk;            /* -1: none */
    int32_t byte_id[256];   /* of "<0x0A>"; -1: absent */
    bool cut_at_mark;       /* no merge joins something with a following U+2581 word */
    int32_t char_id[0x180]; /* of one-character tokens up to U+017F; -1: absent */
} qz_model_bpe;

QZ_NODISCARD qz_status qz_model_read(qz_tokenizer *t, const qz_json_node *model);
void qz_model_free(qz_model_bpe *m);
/* false when the two are never merged. */
bool qz_merges_find(const qz_merges *m, int32_t left, int32_t right, uint32_t *rank, int32_t *id);

/* ---- template, decoder ---- */

typedef struct qz_template {
    const int32_t *before, *after; /* what the post-processor puts around the text */
    size_t before_count, after_count;
} qz_template;

QZ_NODISCARD qz_status qz_template_read(qz_tokenizer *t, const qz_json_node *node);

typedef enum qz_decode_kind {
    QZ_DECODE_BYTES,
    QZ_DECODE_FALLBACK,
    QZ_DECODE_FUSE,
    QZ_DECODE_REPLACE,
    QZ_DECODE_STRIP,
    QZ_DECODE_METASPACE,
} qz_decode_kind;

typedef struct qz_decode {
    qz_decode_kind kind;
    qz_pattern *pattern; /* replace */
    const char *content; /* replace, strip, metaspace */
    int64_t start, stop; /* strip */
    bool drop_first;     /* metaspace */
} qz_decode;

typedef struct qz_decodes {
    qz_decode step[QZ_TOKENIZER_MAX_STEPS];
    int count;
    bool present; /* without a decoder tokens are joined by spaces */
} qz_decodes;

QZ_NODISCARD qz_status qz_decodes_read(qz_decodes *out, const qz_json_node *node, const char *where, qz_arena *arena);
void qz_decodes_free(qz_decodes *d);

/* ---- the whole ---- */

struct qz_tokenizer {
    qz_arena *arena;
    qz_model_bpe model;
    qz_token *token; /* (size) */
    int64_t size;    /* largest id + 1 */
    int64_t token_room;
    qz_added *added; /* (added_count) */
    size_t added_count;
    qz_added_set raw, normalized; /* looked for before and after normalization */
    qz_normals normals;
    qz_splits splits;
    qz_template template;
    qz_decodes decodes;
};

/* Puts a token into the table by id, growing it. */
QZ_NODISCARD qz_status qz_tokenizer_put(qz_tokenizer *t, int32_t id, const char *text, size_t size, bool special);

/* ---- one encoding ---- */

typedef struct qz_word_cache qz_word_cache;

/* Takes ids as they come, in text order. */
typedef struct qz_ids_taker {
    void *self;
    qz_status (*take)(void *self, const int32_t *ids, size_t count);
    qz_status (*passed)(void *self, uint64_t done, uint64_t all); /* of the text's bytes; NULL: nobody asks */
    const char *folder; /* where long text that is written anew on the way is kept; NULL: in memory */
} qz_ids_taker;

typedef struct qz_encoder {
    const qz_tokenizer *t;
    qz_matcher *matcher;
    int32_t *ids;
    size_t count, room;
    size_t limit; /* stop when this many ids are there, those that were handed on included */
    size_t handed;
    bool full;
    const qz_ids_taker *taker; /* NULL: all ids stay here */
    /* How far it is: at / of of what the bytes from .. to of the text became; of 0: nothing is being cut. */
    double from, to, at, of;
    size_t size; /* of the text */
    qz_word_cache *cache;
    qz_text scratch[QZ_TOKENIZER_MAX_STEPS]; /* one per step */
    qz_text normal, normal_other;
    qz_text word;         /* a word in visible bytes */
    void *symbols, *heap; /* of tokenizer_bpe.c */
    size_t symbols_room, heap_room;
} qz_encoder;

/* Like qz_tokenizer_encode without special tokens, stopping after the word that reaches `limit` ids: the ids are a
 * prefix of those of the whole text. */
QZ_NODISCARD qz_status qz_tokenizer_encode_some(const qz_tokenizer *t, const char *text, size_t size, size_t limit,
                                                qz_ids *out, qz_arena *arena);
/* For many texts, one after the other: words that were seen need not be merged again. `text_size`: about what is to
 * come, for the number of words that are kept. After a run the ids are e->ids[0 .. e->count). */
QZ_NODISCARD qz_status qz_encoder_open(qz_encoder *e, const qz_tokenizer *t, size_t text_size);
QZ_NODISCARD qz_status qz_encoder_run(qz_encoder *e, const char *text, size_t size, size_t limit);
void qz_encoder_close(qz_encoder *e);
/* The same ids in blocks: with a folder, what is in memory does not grow with the text. */
QZ_NODISCARD qz_status qz_tokenizer_encode_to(const qz_tokenizer *t, const char *text, size_t size, size_t limit,
                                              const qz_ids_taker *taker);
/* Between two words: a full block goes to the taker. */
QZ_NODISCARD qz_status qz_encoder_hand_on(qz_encoder *e);
QZ_NODISCARD qz_status qz_encoder_put(qz_encoder *e, int32_t id);
QZ_NODISCARD qz_status qz_encoder_split(qz_encoder *e, int step, const char *text, size_t size, bool first);
QZ_NODISCARD qz_status qz_encoder_word(qz_encoder *e, const char *text, size_t size);
QZ_NODISCARD qz_status qz_word_cache_new(qz_word_cache **out, size_t text_size);
void qz_word_cache_free(qz_word_cache *c);
/* Puts the word's ids when it is there. */
QZ_NODISCARD qz_status qz_word_cache_get(qz_encoder *e, const char *text, size_t size, bool *found);
/* Keeps the ids from e->ids[first_id] on as those of the word. */
void qz_word_cache_put(qz_encoder *e, const char *text, size_t size, size_t first_id);

#endif
