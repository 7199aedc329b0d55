#include "cmd/version.h"

/* The Makefile passes both to this file alone, so a commit rebuilds nothing else. */
const char beacon_version[] = BEACON_VERSION;
const char beacon_revision[] = BEACON_REVISION;
#ifdef __clang__
const char beacon_compiler[] = "clang " __clang_version__;
#else
const char beacon_compiler[] = "gcc " __VERSION__;
#endif
