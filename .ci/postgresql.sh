#!/bin/sh
# Installs Debian's PostgreSQL server if it is missing. The tests start a private cluster of
# their own from its programs; without them they skip PostgreSQL and say so.
set -eu

if ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1; then
    echo "PostgreSQL is there: $(ls -d /usr/lib/postgresql/* | tail -n 1)"
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "PostgreSQL is missing and there is no right to install it: its tests will be skipped"
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "PostgreSQL is missing and this is not Debian: its tests will be skipped"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# Another apt-get may be at work: wait for its lock instead of failing.
apt="$as_root apt-get -qq -o DPkg::Lock::Timeout=300"
if $apt update && $apt install -y --no-install-recommends postgresql; then
    echo "PostgreSQL installed"
else
    echo "PostgreSQL could not be installed: its tests will be skipped"
fi
