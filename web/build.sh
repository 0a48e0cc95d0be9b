#!/bin/sh
# Bundles the browser client into a directory: dist, or the one named. Go alone
# builds it; node is for its tests.
set -eu
cd "$(dirname "$0")"
out=${1:-dist}
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' client/package.json)
# Members that never leave the bundle, which is smaller when it may rename them.
internal='query|asked|polled|say|complain|frame|closed|wire|heard|retryMS|told|minted|wanted|place|heartbeatMS|lead|follow|adopt|repeat|want|following|leading|wake|tick|suspend|resume|lose|settled|forget|fresh|orderOf|ahead|apply|running|waiting|held|recent|kind|orders|up|connect|stateOf|start|stop|leave|end|all|ping'
mkdir -p "$out"

bundle() { # source, target, and flags
	source=$1 target=$2
	shift 2
	go tool -modfile=../tools/go.mod esbuild "client/src/$source" --bundle --minify --ignore-annotations --target=es2022 --charset=utf8 \
		--legal-comments=none "--mangle-props=^($internal)$" --log-level=warning "--define:VERSION=\"$version\"" "--outfile=$out/$target" "$@"
}

bundle global.ts pepay-gateway.js --format=iife
bundle index.ts pepay-gateway.mjs --format=esm
bundle element.ts element.js --format=iife
bundle testing.ts testing.mjs --format=esm
cp client/*.d.ts "$out/"
