/*
 * units.h - what a model can be cut into: the embedding, the two halves of each layer, final norm
 * with the head.
 *
 * In order: unit 0 is the embedding; of layer k, counted from 0, unit 1 + 2k is the attention part
 * (input norm, q, k, v and their norms, keys and values, o) and unit 2 + 2k the feed-forward part
 * (post norm, gate, up, down); the last unit is final norm and head. Between any two of them flows
 * the residual stream alone. Pure.
 */
#ifndef MGPT_MODEL_UNITS_H
#define MGPT_MODEL_UNITS_H

#include "model/config.h"

enum unit_kind { UNIT_EMBEDDING, UNIT_ATTENTION, UNIT_FEED_FORWARD, UNIT_HEAD };

enum { UNITS_MAX = 2 * CONFIG_LAYERS_MAX + 2, UNITS_TEXT_BYTES = 64 };

int units_count(int n_layers);

/* unit: 0 to units_count() - 1 */
enum unit_kind units_kind(int unit, int n_layers);

/* The layer of an attention or feed-forward part. */
int units_layer(int unit);

/* Layers first to first + n - 1 of the model. */
struct unit_layers {
    int first, n;
};

/* The layers whose part of this kind is one of the units first_unit to last_unit. */
struct unit_layers units_layers(enum unit_kind kind, int first_unit, int last_unit, int n_layers);

/* Units as text: "embed,0-3", "4-7,head"; a half layer has a letter, "a" the attention part, "f"
 * the feed-forward part: "embed,0-8a", "8f-17,head", "8a". */
void units_format(char text[UNITS_TEXT_BYTES], int first_unit, int last_unit, int n_layers);

#endif
