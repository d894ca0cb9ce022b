#!/bin/sh
# Installs what the tests use beside Python and is missing: Debian's PostgreSQL server, nginx,
# Chromium and faketime. Tests that need one that cannot be installed skip and say so.
set -eu

missing=""
ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || missing="$missing postgresql"
PATH="$PATH:/usr/sbin" command -v nginx >/dev/null 2>&1 || missing="$missing nginx-light"
command -v chromium >/dev/null 2>&1 || missing="$missing chromium"
command -v faketime >/dev/null 2>&1 || missing="$missing faketime"

if [ -z "$missing" ]; then
    echo "PostgreSQL, nginx, Chromium and faketime are there"
    exit 0
fi

if [ "$(id -u)" -eq 0 ]; then
    as_root=""
elif command -v sudo >/dev/null 2>&1 && sudo -n true 2>/dev/null; then
    as_root="sudo -n"
else
    echo "missing, and there is no right to install it (its tests will be skipped):$missing"
    exit 0
fi

if ! command -v apt-get >/dev/null 2>&1; then
    echo "missing, and this is not Debian (its tests will be skipped):$missing"
    exit 0
fi

export DEBIAN_FRONTEND=noninteractive
# Another apt-get may be at work: wait for its lock instead of failing.
apt="$as_root apt-get -qq -o DPkg::Lock::Timeout=300"
$apt update || echo "apt-get update failed; trying with what is known"
for package in $missing; do
    if $apt install -y --no-install-recommends "$package" >/dev/null; then
        echo "$package installed"
    else
        echo "$package could not be installed: its tests will be skipped"
    fi
done
