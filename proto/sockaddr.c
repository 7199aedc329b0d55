#include "proto/sockaddr.h"

socklen_t name_of_endpoint(union name *ret, const struct endpoint *e, int family, uint32_t scope)
{
    if (family == AF_INET) {
        ret->v4 = (struct sockaddr_in){.sin_family = AF_INET, .sin_port = htons(e->port)};
        memcpy(&ret->v4.sin_addr, e->ip + 12, 4);
        return sizeof ret->v4;
    }
    ret->v6 = (struct sockaddr_in6){
        .sin6_family = AF_INET6, .sin6_port = htons(e->port), .sin6_scope_id = scope};
    memcpy(&ret->v6.sin6_addr, e->ip, 16);
    return sizeof ret->v6;
}

struct endpoint endpoint_of_name(const union name *name, uint32_t *ret_scope)
{
    bool v4 = name->any.sa_family == AF_INET;
    if (ret_scope)
        *ret_scope = v4 ? 0 : name->v6.sin6_scope_id;
    if (v4)
        return endpoint_of((const uint8_t *)&name->v4.sin_addr, 4, ntohs(name->v4.sin_port));
    return endpoint_of((const uint8_t *)&name->v6.sin6_addr, 16, ntohs(name->v6.sin6_port));
}
