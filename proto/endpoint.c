/*
 * endpoint.c - texts alone.
 */
#include "proto/endpoint.h"

#include <stdio.h>
#include <string.h>

static const char tcp[] = "tcp://";
static const char mapped[] = "::ffff:";

bool endpoint_host(char host[ENDPOINT_HOST_BYTES], const char *endpoint)
{
    host[0] = 0;
    if (strncmp(endpoint, tcp, sizeof(tcp) - 1) == 0)
        endpoint += sizeof(tcp) - 1;
    const char *colon = strrchr(endpoint, ':');
    const char *end = colon;
    if (!colon || strchr(endpoint, '/') || strchr(endpoint, ';'))
        return false;
    if (*endpoint == '[') {
        endpoint++;
        end = colon - 1;
        if (end < endpoint || *end != ']')
            return false;
    }
    if (strncmp(endpoint, mapped, sizeof(mapped) - 1) == 0 && memchr(endpoint, '.', end - endpoint))
        endpoint += sizeof(mapped) - 1;
    size_t length = (size_t)(end - endpoint);
    if (length == 0 || length >= ENDPOINT_HOST_BYTES)
        return false;
    memcpy(host, endpoint, length);
    host[length] = 0;
    return true;
}

const char *endpoint_port(const char *endpoint)
{
    const char *colon = strrchr(endpoint, ':');
    return colon ? colon + 1 : "";
}

void endpoint_format(char endpoint[ENDPOINT_BYTES], const char *host, const char *port)
{
    bool is_v6 = strchr(host, ':') != NULL;
    snprintf(endpoint, ENDPOINT_BYTES, is_v6 ? "%s[%s]:%s" : "%s%s:%s", tcp, host, port);
}

bool endpoint_is_wildcard(const char *host)
{
    return strcmp(host, "*") == 0 || strcmp(host, "0.0.0.0") == 0 || strcmp(host, "::") == 0;
}

bool endpoint_is_loopback(const char *host)
{
    return strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 ||
           (strncmp(host, "127.", 4) == 0 && host[strspn(host, "0123456789.")] == 0);
}
