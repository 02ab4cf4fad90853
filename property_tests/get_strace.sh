#!/bin/sh
# Unpacks Debian's strace into a virtual environment, for a machine that has none: get_strace.sh VENV. Needs no root if
# the package lists are there. Says what is missing and leaves the verdict to the tests that need it.
set -u
venv=$(cd "$1" && pwd)
command -v strace >/dev/null && exit 0
[ -x "$venv/bin/strace" ] && exit 0
mkdir -p "$venv/strace" && cd "$venv/strace" || exit 1
fetch() { apt-get download -q strace libunwind8 >fetch.log 2>&1; }
if fetch || { apt-get update -q >update.log 2>&1 && fetch; }; then
    for package in *.deb; do dpkg-deb -x "$package" . || exit 1; done
    libraries=$(dirname "$(find "$PWD" -name 'libunwind.so.8' | head -n 1)")
    printf '#!/bin/sh\nLD_LIBRARY_PATH="%s" exec "%s" "$@"\n' "$libraries" "$PWD/usr/bin/strace" >"$venv/bin/strace"
    chmod +x "$venv/bin/strace"
    "$venv/bin/strace" --version >/dev/null && exit 0
    rm "$venv/bin/strace"
fi
echo "strace is not here and could not be fetched: tests that record system calls will fail and say so" >&2
