#!/bin/sh
# Packs the built client as npm does, into a directory: npm install takes the file.
set -eu
cd "$(dirname "$0")"
case "$1" in /*) out=$1 ;; *) out=$PWD/../$1 ;; esac
version=$(sed -n 's/^  "version": "\(.*\)",$/\1/p' client/package.json)
mkdir -p "$out"
tree=$(mktemp -d)
trap 'rm -rf "$tree"' EXIT
mkdir "$tree/package"
cp client/package.json dist/* ../LICENSE "$tree/package/"
tar -C "$tree" --sort=name --owner=0 --group=0 --numeric-owner --mtime='@0' -czf "$out/pepay-gateway-$version.tgz" package
echo "$out/pepay-gateway-$version.tgz"
