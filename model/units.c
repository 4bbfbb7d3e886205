/*
 * units.c - numbers of units to layers and back, and their text.
 */
#include "model/units.h"

#include <stdio.h>
#include <string.h>

int units_count(int n_layers)
{
    return 2 * n_layers + 2;
}

enum unit_kind units_kind(int unit, int n_layers)
{
    if (unit == 0)
        return UNIT_EMBEDDING;
    if (unit > 2 * n_layers)
        return UNIT_HEAD;
    return unit % 2 == 1 ? UNIT_ATTENTION : UNIT_FEED_FORWARD;
}

int units_layer(int unit)
{
    return (unit - 1) / 2;
}

struct unit_layers units_layers(enum unit_kind kind, int first_unit, int last_unit, int n_layers)
{
    struct unit_layers layers = {0, 0};
    for (int unit = first_unit; unit <= last_unit; unit++)
        if (units_kind(unit, n_layers) == kind && layers.n++ == 0)
            layers.first = units_layer(unit);
    return layers;
}

static void append(char text[UNITS_TEXT_BYTES], const char *word)
{
    size_t n = strlen(text);
    snprintf(text + n, UNITS_TEXT_BYTES - n, "%s%s", n ? "," : "", word);
}

/* Units `first` to `last` are parts of layers. A letter stands only where half a layer does. */
static void append_layers(char text[UNITS_TEXT_BYTES], int first, int last)
{
    char word[UNITS_TEXT_BYTES];
    int first_layer = units_layer(first), last_layer = units_layer(last);
    const char *first_half = first % 2 == 0 ? "f" : "", *last_half = last % 2 == 1 ? "a" : "";
    if (first_layer == last_layer)
        snprintf(word, sizeof(word), "%d%s%s", first_layer, first_half, last_half);
    else
        snprintf(word, sizeof(word), "%d%s-%d%s", first_layer, first_half, last_layer, last_half);
    append(text, word);
}

void units_format(char text[UNITS_TEXT_BYTES], int first_unit, int last_unit, int n_layers)
{
    int first = first_unit > 0 ? first_unit : 1;
    int last = last_unit <= 2 * n_layers ? last_unit : 2 * n_layers;
    text[0] = '\0';
    if (first_unit == 0)
        append(text, "embed");
    if (first <= last)
        append_layers(text, first, last);
    if (last_unit > 2 * n_layers)
        append(text, "head");
}
