test_admin.o: tests/test_admin.c proto/stun.h proto/endpoint.h \
  proto/wire.h wss/admin.h server/server.h proto/msg.h server/config.h \
  server/limit.h server/handoff.h server/mailbox.h server/route.h \
  proto/siphash.h server/stats.h server/talkers.h wss/edge.h \
  proto/http.h wss/tls.h wss/probe.h

proto/stun.h:

proto/endpoint.h:

proto/wire.h:

wss/admin.h:

server/server.h:

proto/msg.h:

server/config.h:

server/limit.h:

server/handoff.h:

server/mailbox.h:

server/route.h:

proto/siphash.h:

server/stats.h:

server/talkers.h:

wss/edge.h:

proto/http.h:

wss/tls.h:

wss/probe.h:
