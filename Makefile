# make run     set up, build, start `beacon --dev`
# make check   set up, then every test
# make         build the programs into build/
# Others: quick units scenarios sim asan tsan fuzz bench tidy flood format install clean
VERSION  := 0.1.0
REVISION := $(shell git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)

B       ?= build
Q       := $(if $V,,@)# V=1 shows the commands
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))
PREFIX  ?= /usr/local
BUILD_PACKAGES := gcc libc6-dev pkg-config liburing-dev libsodium-dev libjansson-dev libssl-dev libwslay-dev libmsgpack-dev curl
TEST_PACKAGES  := git clang clang-format libclang-rt-14-dev libcmocka-dev coturn stun-client prometheus \
                  python3 python3-websockets iproute2 nftables mandoc node-ws openssl \
                  chromium sslscan slowhttptest

PACKAGES := liburing libsodium jansson openssl msgpack
CFLAGS  ?= -O2 -g
WARN    := -Wall -Wextra -Wpedantic -Werror -Wshadow -Wconversion -Wstrict-prototypes \
           -Wmissing-prototypes -Wvla -Wundef -Wcast-qual -Wwrite-strings -Wpointer-arith -Wformat=2
HARDEN  := -fstack-protector-strong -fstack-clash-protection -fcf-protection=full \
           -U_FORTIFY_SOURCE -D_FORTIFY_SOURCE=3
FLAGS    = -std=c11 -D_GNU_SOURCE -I. -MMD -MP -fPIE -fvisibility=hidden -ffile-prefix-map=$(CURDIR)=. \
           $(WARN) $(if $(SAN),-fsanitize=$(SAN) -fno-omit-frame-pointer -fno-sanitize-recover=all,$(HARDEN)) \
           $(PACKAGE_FLAGS)
LINK     = -pie -Wl,-z,relro,-z,now,-z,noexecstack,-z,separate-code \
           $(if $(SAN),-fsanitize=$(SAN))
# Asked once, and only by a goal that builds.
PACKAGE_FLAGS = $(eval PACKAGE_FLAGS := $$(shell pkg-config --cflags $(PACKAGES)))$(PACKAGE_FLAGS)
LIBS     = $(eval LIBS := $$(shell pkg-config --libs $(PACKAGES)) -lwslay -lresolv -pthread)$(LIBS)

MAINS    := cmd/beacon.c cmd/beaconctl.c
CORE     := $(filter-out $(MAINS),$(wildcard proto/*.c server/*.c gossip/*.c shard/*.c wss/*.c cmd/*.c))
TESTS    := $(patsubst tests/%.c,$B/tests/%,$(wildcard tests/test_*.c))
FUZZERS  := $(patsubst tests/%.c,$B/%,$(wildcard tests/fuzz_*.c))
SIM      := $(patsubst %.c,$B/%.o,$(wildcard tests/sim/*.c gossip/*.c proto/*.c))
BENCHES  := $(patsubst bench/%.c,$B/bench/%,$(wildcard bench/bench_*.c))
BENCHLIB := $(filter-out $(wildcard bench/bench_*.c),$(wildcard bench/*.c))
PROGRAMS := $(patsubst cmd/%.c,$B/%,$(MAINS))
MANUALS  := $B/beacon.8 $B/beacon.conf.5 $B/beaconctl.1

all: $(PROGRAMS) $(MANUALS) $B/beacon.bash

# --- the two commands of the README ---

run: deps
	$(MAKE) all
	$B/beacon --dev

check: deps-test
	sh tests/check.sh

deps:
	@sh deploy/deps.sh $(BUILD_PACKAGES)
deps-test:
	@sh deploy/deps.sh $(BUILD_PACKAGES) $(TEST_PACKAGES)

# --- building ---

$B/%.o: %.c
	@mkdir -p $(@D)
	@echo "CC   $@"
	$Q$(CC) $(FLAGS) $(CFLAGS) $(CPPFLAGS) -c -o $@ $<

$B/wss/page.o: wss/status.html # embedded
$B/cmd/version.o: FLAGS += -DBEACON_VERSION='"$(VERSION)"' -DBEACON_REVISION='"$(REVISION)"'

$B/core.a: $(CORE:%.c=$B/%.o)
$B/fuzzed.a: $(patsubst %.c,$B/%.o,$(wildcard proto/*.c server/*.c gossip/*.c wss/*.c))
$B/core.a $B/fuzzed.a:
	@rm -f $@
	$Qar rcs $@ $^

$(PROGRAMS): $B/%: $B/cmd/%.o $B/core.a
	@echo "LINK $@"
	$Q$(CC) $(LINK) $(LDFLAGS) -o $@ $^ $(LIBS)

$B/options.mdoc: $B/beacon
	@$B/beacon --print-man >$@
$(MANUALS): $B/%: cmd/%.in $B/options.mdoc
	@sed -e '/@OPTIONS@/{r $B/options.mdoc' -e 'd}' -e 's/@VERSION@/$(VERSION)/' $< >$@

$B/beacon.bash: $B/beacon
	@$B/beacon --print-completion >$@

install: all
	install -D -m 755 $B/beacon $(DESTDIR)$(PREFIX)/bin/beacon
	install -D -m 755 $B/beaconctl $(DESTDIR)$(PREFIX)/bin/beaconctl
	install -D -m 644 $B/beacon.8 $(DESTDIR)$(PREFIX)/share/man/man8/beacon.8
	install -D -m 644 $B/beacon.conf.5 $(DESTDIR)$(PREFIX)/share/man/man5/beacon.conf.5
	install -D -m 644 $B/beaconctl.1 $(DESTDIR)$(PREFIX)/share/man/man1/beaconctl.1
	install -D -m 644 deploy/beaconctl.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/beaconctl
	install -D -m 644 $B/beacon.bash $(DESTDIR)$(PREFIX)/share/bash-completion/completions/beacon
	install -D -m 644 deploy/beacon.conf $(DESTDIR)$(PREFIX)/share/doc/beacon/beacon.conf
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|@PREFIX@|$(PREFIX)|' deploy/beacon.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/beacon.service

# --- tests ---

$B/tests/test_%: tests/test_%.c $B/core.a
	@mkdir -p $(@D)
	@echo "TEST $@"
	$Q$(CC) $(FLAGS) $(CFLAGS) $(LINK) -o $@ $< $B/core.a -lcmocka $(LIBS)

tests: $(TESTS)
units: $(TESTS)
	B=$B sh tests/units.sh
scenarios: all
	B=$B python3 tests/scenarios.py
quick: units scenarios

asan:
	$(MAKE) quick B=build/asan SAN=address,undefined
tsan:
	$(MAKE) quick B=build/tsan SAN=thread

# Many beacons in one process and a virtual clock: `make sim` is a fixed budget, `make sim SEED=n` one
# seed again.
$B/tests/sim-beacons: $(SIM)
	@echo "LINK $@"
	$Q$(CC) $(LINK) $(LDFLAGS) -o $@ $^ $(LIBS)
simulator: $B/tests/sim-beacons
sim: simulator
	$B/tests/sim-beacons $(if $(SEED),--seed $(SEED)) $(SIM_ARGS)

# What reads outside bytes, instrumented once in a tree of its own; each fuzzer links to it.
FUZZ_SECONDS ?= 20
$B/fuzz_%: tests/fuzz_%.c $B/fuzzed.a
	@echo "FUZZ $@"
	$Q$(CC) $(FLAGS) $(CFLAGS) $(LINK) -fsanitize=fuzzer -o $@ $< $B/fuzzed.a $(LIBS)
fuzzers-here: $(FUZZERS)
fuzzers:
	$(MAKE) fuzzers-here B=$B/fuzz CC=clang SAN=address,undefined,fuzzer-no-link CFLAGS='-O1 -g'
fuzz: fuzzers
	B=$B FUZZ_SECONDS=$(FUZZ_SECONDS) sh tests/fuzz.sh

tidy:
	sh tests/tidy.sh
format:
	clang-format -i $$(git ls-files '*.c' '*.h')

# --- measuring ---

$B/bench/%: bench/%.c $(BENCHLIB:%.c=$B/%.o) $B/core.a
	@mkdir -p $(@D)
	@echo "LINK $@"
	$Q$(CC) $(FLAGS) $(CFLAGS) $(LINK) -o $@ $^ $(LIBS) -lm
benches: $(BENCHES)
bench: all benches
	B=$B python3 bench/bench.py $(BENCH_ARGS)
flood: all benches
	B=$B FLOOD_COUNT=$(or $(FLOOD_COUNT),10000000) python3 bench/flood.py

clean:
	rm -rf $B

.PHONY: all run check deps deps-test install tests units scenarios sim simulator quick asan tsan fuzzers fuzzers-here fuzz tidy \
        format benches bench flood clean
.SECONDARY:
-include $(patsubst %.c,$B/%.d,$(CORE) $(MAINS)) $(TESTS:%=%.d) $(SIM:.o=.d)
