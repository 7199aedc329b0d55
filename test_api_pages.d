test_api_pages.o: tests/test_api_pages.c tests/api_rig.h wss/sse.c \
  wss/sse.h wss/conn.h wss/edge.h proto/http.h proto/wire.h \
  server/config.h proto/endpoint.h server/limit.h wss/tls.h wss/gate.h \
  wss/outqueue.h wss/stream.h wss/api_pages.c proto/json.h \
  wss/api_pages.h wss/api.h wss/admin.h server/server.h proto/msg.h \
  server/handoff.h server/mailbox.h server/route.h proto/siphash.h \
  server/stats.h server/talkers.h wss/probe.h wss/bridge.h \
  server/session.h wss/events.h wss/keys.h wss/totals.h wss/api_events.c \
  wss/api.c wss/page.h tests/rig.h

tests/api_rig.h:

wss/sse.c:

wss/sse.h:

wss/conn.h:

wss/edge.h:

proto/http.h:

proto/wire.h:

server/config.h:

proto/endpoint.h:

server/limit.h:

wss/tls.h:

wss/gate.h:

wss/outqueue.h:

wss/stream.h:

wss/api_pages.c:

proto/json.h:

wss/api_pages.h:

wss/api.h:

wss/admin.h:

server/server.h:

proto/msg.h:

server/handoff.h:

server/mailbox.h:

server/route.h:

proto/siphash.h:

server/stats.h:

server/talkers.h:

wss/probe.h:

wss/bridge.h:

server/session.h:

wss/events.h:

wss/keys.h:

wss/totals.h:

wss/api_events.c:

wss/api.c:

wss/page.h:

tests/rig.h:
