#!/bin/sh
# Installs what the tests need and this machine lacks: redis-server, Chromium
# and Node. On Debian and its kin through apt; elsewhere it says what to install.
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null 2>&1; then
	missing="$missing chromium"
fi

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "The tests need:$missing. Install them (node 20 or newer) and run this again." >&2
		echo "A Chromium under another name or path goes into the variable CHROMIUM." >&2
		exit 1
	fi
	sudo=""
	[ "$(id -u)" = 0 ] || sudo=sudo
	echo "installing:$missing"
	for try in 1 2 3; do
		if $sudo apt-get update -qq && $sudo env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -qq --no-install-recommends $missing >/dev/null; then
			break
		fi
		[ "$try" != 3 ] || exit 1
		sleep 5 # another apt may hold the lock
	done
fi

if [ web/package-lock.json -nt web/node_modules/.package-lock.json ]; then
	(cd web && npm ci --no-audit --no-fund --silent)
fi
