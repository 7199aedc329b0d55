test_metrics.o: tests/test_metrics.c wss/bridge.h server/server.h \
 proto/msg.h proto/endpoint.h proto/wire.h server/config.h server/limit.h \
 server/handoff.h server/mailbox.h server/route.h proto/siphash.h \
 server/stats.h server/talkers.h server/session.h wss/conn.h wss/edge.h \
 proto/http.h wss/tls.h wss/gate.h wss/outqueue.h wss/stream.h \
 wss/events.h wss/keys.h wss/metrics.h wss/admin.h wss/probe.h
wss/bridge.h:
server/server.h:
proto/msg.h:
proto/endpoint.h:
proto/wire.h:
server/config.h:
server/limit.h:
server/handoff.h:
server/mailbox.h:
server/route.h:
proto/siphash.h:
server/stats.h:
server/talkers.h:
server/session.h:
wss/conn.h:
wss/edge.h:
proto/http.h:
wss/tls.h:
wss/gate.h:
wss/outqueue.h:
wss/stream.h:
wss/events.h:
wss/keys.h:
wss/metrics.h:
wss/admin.h:
wss/probe.h:
