#!/bin/sh
# Installs the Debian packages named as arguments that are missing. Root, or sudo, only when needed.
# Services that such a package would start stay off: the tests start their own.
set -eu
missing=
for package in "$@"; do
    status=$(dpkg-query -W -f='${Status}' "$package" 2>/dev/null || true)
    [ "$status" = "install ok installed" ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
echo "deps: installing$missing"
root=
if [ "$(id -u)" -ne 0 ]; then
    command -v sudo >/dev/null || {
        echo "deps: not root and no sudo; as root run: apt-get install --no-install-recommends$missing" >&2
        exit 77
    }
    root=sudo
fi
policy=/usr/sbin/policy-rc.d
if [ ! -e $policy ]; then
    printf '#!/bin/sh\nexit 101\n' | $root tee $policy >/dev/null
    $root chmod 755 $policy
    trap '$root rm -f $policy' EXIT
fi
$root apt-get update -q
# shellcheck disable=SC2086 # a list
DEBIAN_FRONTEND=noninteractive $root apt-get install -qy --no-install-recommends $missing
