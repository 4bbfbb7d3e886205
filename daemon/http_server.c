/*
 * http_server.c - listens, collects bodies, finds the handler.
 */
#include "daemon/http_server.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/log.h"
#include "daemon/http_internal.h"

enum {
    THREAD_STACK_BYTES = 1 << 20,
    MEMORY_PER_CONNECTION_BYTES = 64 << 10,
    DRAIN_LOOK_MS = 10,
    LISTEN_BACKLOG = 512
};

static const struct route {
    const char *method, *path; /* a path that ends with / takes all that begin with it */
    http_handler handler;
    bool open; /* to clients without the key */
} routes[] = {
    {"POST", "/v1/images/generations", http_images_generations, false},
    {"GET", "/v1/files/", http_file, true},
    {"GET", "/v1/models", http_models, false},
    {"GET", "/v1/models/", http_models, false},
    {"GET", "/health", http_health, true},
    {"GET", "/health/live", http_health_live, true},
    {"GET", "/health/ready", http_health_ready, true},
    {"GET", "/version", http_version, false},
    {"GET", "/metrics", http_metrics, false},
};

/* ---- a request's life ---- */

static bool is_plain_id(const char *id)
{
    size_t length = strlen(id);
    for (size_t i = 0; i < length; i++)
        if (id[i] <= 0x20 || id[i] >= 0x7f)
            return false;
    return length > 0 && length < HTTP_ID_BYTES;
}

static void name_request(struct http_request *request)
{
    const char *given =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "X-Request-Id");
    uint64_t random[2] = {0};
    if (given && is_plain_id(given)) {
        strcpy(request->id, given);
        return;
    }
    if (getrandom(random, sizeof(random), 0) != sizeof(random))
        random[0] = (uint64_t)clock_monotonic_ns();
    snprintf(request->id, sizeof(request->id), "req_%016llx%016llx", (unsigned long long)random[0],
             (unsigned long long)random[1]);
}

/* The watched connection, NULL when there was no memory for it. */
static struct http_watched *watched(struct MHD_Connection *connection)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT);
    return info ? info->socket_context : NULL;
}

/* Called before the socket is closed, so the watch never holds a number that is another's. */
static void on_connection(void *context, struct MHD_Connection *connection, void **socket_context,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http_server *server = context;
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    if (code == MHD_CONNECTION_NOTIFY_CLOSED)
        http_watch_end(server->watch, *socket_context);
    else if (info)
        *socket_context = http_watch_begin(server->watch, info->connect_fd, clock_monotonic_ms());
}

static struct http_request *begin_request(struct http_server *server,
                                          struct MHD_Connection *connection, const char *method,
                                          const char *path)
{
    struct http_request *request = calloc(1, sizeof(*request));
    if (!request)
        return NULL;
    request->server = server;
    request->connection = connection;
    request->method = strcmp(method, "HEAD") == 0 ? "GET" : method;
    request->path = path;
    name_request(request);
    __atomic_add_fetch(&server->n_open, 1, __ATOMIC_RELAXED);
    return request;
}

static void end_request(void *context, struct MHD_Connection *connection, void **own,
                        enum MHD_RequestTerminationCode reason)
{
    struct http_server *server = context;
    struct http_request *request = *own;
    (void)reason;
    http_watch_waiting(server->watch, watched(connection), clock_monotonic_ms());
    if (!request)
        return;
    __atomic_sub_fetch(&server->n_open, 1, __ATOMIC_RELAXED);
    free(request->body);
    free(request);
    *own = NULL;
}

static void collect(struct http_request *request, const char *bytes, size_t n_bytes)
{
    request->seen_bytes += n_bytes;
    if (request->seen_bytes > HTTP_BODY_BYTES_MAX)
        request->too_large = true;
    if (request->too_large || request->no_memory)
        return;
    size_t needed = request->body_bytes + n_bytes + 1;
    if (needed > request->body_capacity) {
        char *more = realloc(request->body, 2 * needed);
        request->no_memory = more == NULL;
        if (!more)
            return;
        request->body = more;
        request->body_capacity = 2 * needed;
    }
    memcpy(request->body + request->body_bytes, bytes, n_bytes);
    request->body_bytes += n_bytes;
    request->body[request->body_bytes] = 0;
}

int http_client_fd(struct http_request *request)
{
    const union MHD_ConnectionInfo *info =
        MHD_get_connection_info(request->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
    return info ? info->connect_fd : -1;
}

void http_pause_timeout(struct http_request *request)
{
    MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT, 0u);
}

void http_resume_timeout(struct http_request *request)
{
    MHD_set_connection_option(request->connection, MHD_CONNECTION_OPTION_TIMEOUT,
                              (unsigned)HTTP_IDLE_WAIT_S);
}

/* ---- routes ---- */

static bool matches(const struct route *route, const char *path)
{
    size_t length = strlen(route->path);
    if (route->path[length - 1] == '/')
        return strncmp(route->path, path, length) == 0 && path[length] &&
               !strchr(path + length, '/');
    return strcmp(route->path, path) == 0;
}

static bool may_pass(const struct http_request *request, const struct route *route)
{
    const struct http_key *key = request->server->options.key;
    return !key || (route && route->open) ||
           http_key_fits(key, MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND,
                                                          "Authorization"));
}

static enum MHD_Result refuse_without_key(struct http_request *request)
{
    struct http_refusal refusal = {401, "invalid_request_error", "invalid_api_key", .field = NULL};
    return http_reply_error(request, &refusal,
                            "the header 'Authorization: Bearer KEY' is missing, or another key is "
                            "expected");
}

static enum MHD_Result route_request(struct http_request *request)
{
    const struct route *other_method = NULL;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!matches(&routes[i], request->path))
            continue;
        if (!may_pass(request, &routes[i]))
            return refuse_without_key(request);
        if (strcmp(routes[i].method, request->method) == 0)
            return routes[i].handler(request);
        other_method = &routes[i];
    }
    char text[ERROR_TEXT_BYTES];
    if (other_method) {
        struct http_refusal refusal = {405, "invalid_request_error", "method_not_allowed",
                                       .allow = other_method->method};
        snprintf(text, sizeof(text), "%.20s is not offered at %s, expected %s", request->method,
                 other_method->path, other_method->method);
        return http_reply_error(request, &refusal, text);
    }
    if (!may_pass(request, NULL))
        return refuse_without_key(request);
    struct http_refusal refusal = {404, "invalid_request_error", "not_found", .field = NULL};
    snprintf(text, sizeof(text), "nothing is at '%.100s'", request->path);
    return http_reply_error(request, &refusal, text);
}

static enum MHD_Result answer(struct http_request *request)
{
    struct http_refusal refusal = {413, "invalid_request_error", "body_too_large", .field = NULL};
    char text[128];
    if (request->no_memory) {
        refusal = http_refusal_of(request->server, STATUS_NOMEM);
        return http_reply_error(request, &refusal, "no memory for the body");
    }
    if (!request->too_large)
        return route_request(request);
    snprintf(text, sizeof(text), "the body has more than %d bytes", HTTP_BODY_BYTES_MAX);
    return http_reply_error(request, &refusal, text);
}

/* How the body is to come, from the headers. */
struct framing {
    int n_lengths, n_encodings;
    unsigned long long length;
    bool is_chunked, expects;
};

static enum MHD_Result take_header(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    struct framing *framing = context;
    (void)kind;
    if (strcasecmp(name, "Content-Length") == 0) {
        framing->n_lengths++;
        framing->length = strtoull(value ? value : "", NULL, 10);
    } else if (strcasecmp(name, "Transfer-Encoding") == 0) {
        framing->n_encodings++;
        framing->is_chunked = value && strcasecmp(value, "chunked") == 0;
    } else if (strcasecmp(name, "Expect") == 0) {
        framing->expects = true;
    }
    return MHD_YES;
}

/*
 * Before the body comes. Two lengths, or a length and chunks, are read by each proxy in its own
 * way, and so let one client put words into another's mouth. A body far too large is not waited
 * for.
 */
static enum MHD_Result check_framing(struct http_request *request)
{
    struct framing framing = {0};
    struct http_refusal refusal = {400, "invalid_request_error", "invalid_header", .field = NULL};
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, take_header, &framing);
    size_t limit = framing.expects ? HTTP_BODY_BYTES_MAX : HTTP_DISCARD_BYTES_MAX;
    if (framing.n_lengths + framing.n_encodings > 1)
        return http_reply_error(request, &refusal,
                                "more than one 'Content-Length' or 'Transfer-Encoding', expected "
                                "one of them once");
    if (framing.n_encodings == 1 && !framing.is_chunked)
        return http_reply_error(request, &refusal,
                                "'Transfer-Encoding' is not 'chunked', the only one known here");
    request->too_large = framing.length > limit;
    return request->too_large ? answer(request) : MHD_YES;
}

/* libmicrohttpd calls this once for the headers, once for each piece of the body, once at its end.
 */
static enum MHD_Result on_request(void *context, struct MHD_Connection *connection,
                                  const char *path, const char *method, const char *version,
                                  const char *bytes, size_t *n_bytes, void **own)
{
    struct http_request *request = *own;
    (void)version;
    if (!request) {
        *own = request = begin_request(context, connection, method, path);
        return request ? check_framing(request) : MHD_NO;
    }
    if (*n_bytes > 0) {
        collect(request, bytes, *n_bytes);
        *n_bytes = 0;
        return request->seen_bytes > HTTP_DISCARD_BYTES_MAX ? MHD_NO : MHD_YES;
    }
    http_watch_answering(request->server->watch, watched(connection));
    return answer(request);
}

/* ---- the server's life ---- */

/* Splits "HOST:PORT" or "[IPV6]:PORT". */
static enum status split_address(char host[256], char port[8], const char *address,
                                 struct error *err)
{
    const char *colon = strrchr(address, ':');
    size_t length = colon ? (size_t)(colon - address) : 0;
    if (length >= 2 && address[0] == '[' && address[length - 1] == ']') {
        address++;
        length -= 2;
    }
    if (!colon || length == 0 || length >= 256 || strlen(colon + 1) >= 6 || !colon[1] ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1) || atoi(colon + 1) > 65535)
        return error_set(err, STATUS_INVALID, "'%s' is no HOST:PORT", address);
    memcpy(host, address, length);
    host[length] = 0;
    strcpy(port, colon + 1);
    return STATUS_OK;
}

static enum status open_socket(int *fd, const char *address, struct error *err)
{
    char host[256], port[8];
    enum status st = split_address(host, port, address, err);
    if (st != STATUS_OK)
        return st;
    struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_PASSIVE}, *found;
    int reason = getaddrinfo(host, port, &hints, &found);
    if (reason != 0)
        return error_set(err, STATUS_INVALID, "cannot resolve '%s': %s", address,
                         gai_strerror(reason));
    int yes = 1;
    *fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd >= 0)
        setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (*fd < 0 || bind(*fd, found->ai_addr, found->ai_addrlen) != 0 ||
        listen(*fd, LISTEN_BACKLOG) != 0) {
        st = error_set_errno(err, STATUS_IO, errno, "cannot listen on '%s'", address);
    }
    freeaddrinfo(found);
    return st;
}

/* Fills server->url; whether only this machine reaches it. */
static bool write_url(struct http_server *server, int fd)
{
    struct sockaddr_storage bound;
    socklen_t length = sizeof(bound);
    char host[INET6_ADDRSTRLEN] = "";
    if (getsockname(fd, (struct sockaddr *)&bound, &length) != 0)
        return false;
    if (bound.ss_family == AF_INET6) {
        const struct sockaddr_in6 *own = (const struct sockaddr_in6 *)(const void *)&bound;
        inet_ntop(AF_INET6, &own->sin6_addr, host, sizeof(host));
        snprintf(server->url, sizeof(server->url), "http://[%s]:%d", host, ntohs(own->sin6_port));
        return IN6_IS_ADDR_LOOPBACK(&own->sin6_addr);
    }
    const struct sockaddr_in *own = (const struct sockaddr_in *)(const void *)&bound;
    inet_ntop(AF_INET, &own->sin_addr, host, sizeof(host));
    snprintf(server->url, sizeof(server->url), "http://%s:%d", host, ntohs(own->sin_port));
    return ntohl(own->sin_addr.s_addr) >> 24 == IN_LOOPBACKNET;
}

static void log_library(void *context, const char *format, va_list args)
{
    char text[256];
    (void)context;
    vsnprintf(text, sizeof(text), format, args);
    log_debug("http", "libmicrohttpd says text=\"%s\"", text);
}

static enum status start_library(struct http_server *server, int fd, struct error *err)
{
    unsigned flags = MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
                     MHD_USE_POLL | MHD_USE_ITC | MHD_USE_ERROR_LOG;
    server->daemon = MHD_start_daemon(
        flags, 0, NULL, NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, log_library, NULL,
        MHD_OPTION_LISTEN_SOCKET, fd, MHD_OPTION_NOTIFY_COMPLETED, end_request, server,
        MHD_OPTION_NOTIFY_CONNECTION, on_connection, server, MHD_OPTION_CONNECTION_LIMIT,
        (unsigned)HTTP_CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)HTTP_IDLE_WAIT_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)MEMORY_PER_CONNECTION_BYTES,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)THREAD_STACK_BYTES, MHD_OPTION_END);
    return server->daemon ? STATUS_OK : error_set(err, STATUS_IO, "cannot start the HTTP server");
}

enum status http_server_start(struct http_server **out, const struct http_options *options,
                              struct error *err)
{
    int fd = -1;
    *out = NULL;
    struct http_server *server = calloc(1, sizeof(*server));
    if (!server)
        return error_set(err, STATUS_NOMEM, "cannot allocate the HTTP server");
    server->options = *options;
    if (server->options.stall_limit_s == 0)
        server->options.stall_limit_s = HTTP_STALL_LIMIT_S;
    if (server->options.request_wait_s == 0)
        server->options.request_wait_s = HTTP_REQUEST_WAIT_S;
    server->started_s = clock_unix_s();
    enum status st = file_store_create(&server->files, err);
    if (st == STATUS_OK)
        st = http_watch_create(&server->watch, server->options.request_wait_s * 1000, err);
    if (st == STATUS_OK)
        st = http_watch_start(server->watch, err);
    if (st == STATUS_OK)
        st = open_socket(&fd, options->address, err);
    if (st == STATUS_OK && !write_url(server, fd) && !options->key)
        st = error_set(err, STATUS_INVALID,
                       "--http %s can be reached from other machines: --api-key FILE is needed",
                       options->address);
    if (st == STATUS_OK)
        st = start_library(server, fd, err);
    if (st != STATUS_OK) {
        if (fd >= 0)
            close(fd);
        http_server_stop(server);
        return st;
    }
    *out = server;
    return STATUS_OK;
}

const char *http_server_url(const struct http_server *server)
{
    return server->url;
}

void http_server_quiesce(struct http_server *server)
{
    MHD_socket fd = MHD_quiesce_daemon(server->daemon);
    if (fd != MHD_INVALID_SOCKET)
        close(fd);
}

void http_server_stop(struct http_server *server)
{
    if (!server)
        return;
    int64_t deadline_ms = clock_monotonic_ms() + HTTP_DRAIN_WAIT_MS;
    while (__atomic_load_n(&server->n_open, __ATOMIC_RELAXED) > 0 &&
           clock_monotonic_ms() < deadline_ms)
        poll(NULL, 0, DRAIN_LOOK_MS);
    if (server->daemon)
        MHD_stop_daemon(server->daemon);
    http_watch_destroy(server->watch);
    file_store_destroy(server->files);
    free(server);
}
