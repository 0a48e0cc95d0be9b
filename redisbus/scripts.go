package redisbus

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
)

//go:embed scripts/*.lua
var scriptFiles embed.FS

// A script is one Lua file with the prelude in front.
type script struct {
	name, text, sha string
}

var (
	scriptAcquire  = load("acquire", true)
	scriptRenew    = load("renew", true)
	scriptRelease  = load("release", true)
	scriptAppend   = load("append", true)
	scriptRead     = load("read", true)
	scriptSnapshot = load("snapshot", true)
	scriptLinks    = load("links", true)
	scriptRecent   = load("recent", true)
	scriptBeat     = load("beat", false)
)

func load(name string, prelude bool) script {
	read := func(file string) string {
		b, err := scriptFiles.ReadFile("scripts/" + file + ".lua")
		if err != nil {
			panic(err) // embedded at build time
		}
		return string(b)
	}
	text := read(name)
	if prelude {
		text = read("prelude") + text
	}
	sum := sha1.Sum([]byte(text)) // Redis names scripts by SHA-1
	return script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}
