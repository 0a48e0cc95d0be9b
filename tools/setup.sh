#!/bin/sh
# Installs what the tests need and this machine lacks: redis-server, Chromium and
# its headless shell, Firefox, Node, the proxies and languages of docs/browser.md.
# On Debian and its kin through apt; elsewhere it says what to install.
set -eu
cd "$(dirname "$0")/.."

missing=""
command -v redis-server >/dev/null 2>&1 || missing="$missing redis-server"
command -v node >/dev/null 2>&1 || missing="$missing nodejs"
command -v npm >/dev/null 2>&1 || missing="$missing npm"
command -v curl >/dev/null 2>&1 || missing="$missing curl"
command -v nginx >/dev/null 2>&1 || [ -x /usr/sbin/nginx ] || missing="$missing nginx-light"
command -v haproxy >/dev/null 2>&1 || [ -x /usr/sbin/haproxy ] || missing="$missing haproxy"
command -v caddy >/dev/null 2>&1 || missing="$missing caddy"
command -v python3 >/dev/null 2>&1 || missing="$missing python3"
command -v php >/dev/null 2>&1 || missing="$missing php-cli"
if [ -z "${CHROMIUM:-}" ] && ! command -v chromium >/dev/null 2>&1; then
	missing="$missing chromium"
fi
if [ -z "${CHROMIUM_HEADLESS_SHELL:-}" ] && ! command -v chromium-headless-shell >/dev/null 2>&1; then
	missing="$missing chromium-headless-shell"
fi
if [ -z "${FIREFOX:-}" ] && ! command -v firefox-esr >/dev/null 2>&1; then
	missing="$missing firefox-esr"
fi

if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null 2>&1; then
		echo "The tests need:$missing. Install them (node 20 or newer) and run this again." >&2
		echo "A Chromium under another path goes into the variable CHROMIUM, its headless shell into CHROMIUM_HEADLESS_SHELL, a Firefox into FIREFOX." >&2
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

# npm writes this file when it has installed everything.
installed=web/node_modules/.package-lock.json
if [ ! -e "$installed" ] || [ web/package-lock.json -nt "$installed" ]; then
	(cd web && npm ci --no-audit --no-fund --silent)
	touch "$installed"
fi
