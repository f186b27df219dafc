/* A catalog of plug-ins that do not exist, for tests and fuzzing of recipes/, which knows no real one.
 * "scaling", "shrink" and "careful" need statistics. */
#ifndef QZ_TESTING_FAKE_CATALOG_H
#define QZ_TESTING_FAKE_CATALOG_H

#include "recipes/recipes.h"

static const char *const fake_norms[] = {"mean", "max", NULL};
static const qz_option fake_scaling_options[] = {
    QZ_OPTION_INT("grid", 20, 2, 100, "points of the search"),
    QZ_OPTION_BOOL("weight_means", 1, "also try the weight means"),
    QZ_OPTION_NUMBER("damp", 0.25, 0, 1, "how much to damp"),
    QZ_OPTION_CHOICE("norm", 1, fake_norms, "which norm"),
    QZ_OPTION_END,
};
static const qz_plugin fake_scaling = {"scaling", "moves scales", "Someone 2023, eq. 4", fake_scaling_options};
static const qz_plugin fake_turning = {"turning", "turns vectors", "", NULL};
static const qz_plugin fake_plain = {"plain", "smallest to largest", "", NULL};
static const qz_plugin fake_shrink = {"shrink", "searches a smaller range", "", NULL};
static const qz_plugin fake_nearest = {"nearest", "rounds to nearest", "", NULL};
static const char *const fake_orders[] = {"static", "desc", NULL};
static const qz_option fake_careful_options[] = {
    QZ_OPTION_CHOICE("order", 0, fake_orders, "in which columns are rounded"),
    QZ_OPTION_END,
};
static const qz_plugin fake_careful = {"careful", "rounds with feedback", "", fake_careful_options};
static const qz_option fake_tail_options[] = {
    QZ_OPTION_NUMBER("share", 0.999, 0.5, 1, "what is kept"),
    QZ_OPTION_END,
};
static const qz_plugin fake_extremes = {"extremes", "largest value", "", NULL};
static const qz_plugin fake_tail = {"tail", "leaves a tail out", "", fake_tail_options};
static const qz_plugin fake_box = {"box", "a layout", "", NULL};
static const qz_plugin fake_here = {"here", "this machine", "", NULL};

static const qz_plugin *const fake_transform_rows[] = {&fake_scaling, &fake_turning};
static const qz_plugin *const fake_range_rows[] = {&fake_plain, &fake_shrink};
static const qz_plugin *const fake_solver_rows[] = {&fake_nearest, &fake_careful};
static const qz_plugin *const fake_observer_rows[] = {&fake_extremes, &fake_tail};
static const qz_plugin *const fake_container_rows[] = {&fake_box};
static const qz_plugin *const fake_backend_rows[] = {&fake_here};

static const qz_plugins fake_transforms = {"transform", 2, fake_transform_rows};
static const qz_plugins fake_ranges = {"range", 2, fake_range_rows};
static const qz_plugins fake_solvers = {"solver", 2, fake_solver_rows};
static const qz_plugins fake_observers = {"observer", 2, fake_observer_rows};
static const qz_plugins fake_containers = {"container", 1, fake_container_rows};
static const qz_plugins fake_backends = {"backend", 1, fake_backend_rows};

static inline bool fake_needs_statistics(const qz_plugins *list, int index)
{
    return list == &fake_transforms ? index == 0 : index == 1;
}

static const qz_recipe_catalog fake_catalog = {
    &fake_transforms, &fake_ranges,    &fake_solvers,         &fake_containers,
    &fake_backends,   &fake_observers, fake_needs_statistics,
};

#define FAKE_RECIPE                                                                                                    \
    "{ \"version\": 1, \"model\": \"in\", \"output\": \"out\",\n"                                                      \
    "  \"calibration\": { \"data\": \"a.txt\", \"samples\": 16 },\n"                                                   \
    "  \"transforms\": [ { \"method\": \"scaling\", \"grid\": 40 } ],\n"                                               \
    "  \"weights\": { \"format\": \"int4\", \"group\": 128, \"range\": \"shrink\", \"skip\": [\"lm_head\"] },\n"       \
    "  \"export\": { \"container\": \"box\" },\n"                                                                      \
    "  \"evaluate\": { \"data\": \"b.txt\", \"accept\": { \"perplexity_ratio\": 1.05 } } }\n"

#endif
