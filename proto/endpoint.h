/*
 * endpoint.h - the parts of "tcp://HOST:PORT", and whom an address reaches.
 *
 * Hosts are without brackets, and an IPv4 address is written as one even where a socket that takes
 * both kinds says [::ffff:1.2.3.4]. Nothing here asks a name server. Threads: any.
 */
#ifndef MGPT_PROTO_ENDPOINT_H
#define MGPT_PROTO_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>

enum { ENDPOINT_HOST_BYTES = 256, ENDPOINT_BYTES = 288 };

/* Of "tcp://HOST:PORT" or "HOST:PORT"; the port may be '*'. false: neither; then host is empty. */
bool endpoint_host(char host[ENDPOINT_HOST_BYTES], const char *endpoint);

/* What stands behind the last colon: a view into endpoint; "" when there is none. */
const char *endpoint_port(const char *endpoint);

/* "tcp://HOST:PORT", with brackets where the host has colons. */
void endpoint_format(char endpoint[ENDPOINT_BYTES], const char *host, const char *port);

/* '*', 0.0.0.0, ::, so that nobody can connect to it: every address of a machine. */
bool endpoint_is_wildcard(const char *host);

/* 127.x.x.x, ::1, localhost: reaches this machine from this machine alone. */
bool endpoint_is_loopback(const char *host);

#endif
