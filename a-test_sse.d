test_sse.o: tests/test_sse.c wss/sse.c wss/sse.h wss/conn.h wss/edge.h \
 proto/http.h proto/wire.h server/config.h proto/endpoint.h \
 server/limit.h wss/tls.h wss/gate.h wss/outqueue.h wss/stream.h
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
