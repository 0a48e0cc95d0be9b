package redisbus

import (
	"crypto/sha1"
	"embed"
	"encoding/hex"
	"fmt"
)

//go:embed scripts/*.lua
var scriptFiles embed.FS

// A script is one Lua file behind a prelude, or behind its settings.
type script struct {
	name, text, sha string
}

var (
	prelude = source("prelude")

	scriptAcquire  = newScript("acquire", prelude)
	scriptRenew    = newScript("renew", prelude)
	scriptRelease  = newScript("release", prelude)
	scriptRead     = newScript("read", prelude)
	scriptSnapshot = newScript("snapshot", prelude)
	scriptLinks    = newScript("links", prelude)
	scriptRecent   = newScript("recent", prelude)
	scriptBeat     = newScript("beat", "")
)

// newAppendScript returns the append script of b, which remembers seen ids. Its
// settings are constants: an argument is paid for with every call.
func newAppendScript(b *Bus, seen int) script {
	return newScript("append", fmt.Sprintf(
		"local LOG_MAX, SEEN_MAX, STATE_MAX, STATE_TTL_MS, PUBLISH, CHANNEL = %d, %d, %d, %d, %s, %s\n",
		b.cfg.RetentionEvents, seen, b.cfg.MaxOrders, stateMaxAge.Milliseconds(),
		luaString(b.publishCommand()), luaString(b.channel)))
}

// luaString returns s as a Lua literal.
func luaString(s string) string {
	b := []byte{'\''}
	for i := range len(s) {
		b = fmt.Appendf(b, `\%03d`, s[i])
	}
	return string(append(b, '\''))
}

func newScript(name, head string) script {
	text := head + source(name)
	sum := sha1.Sum([]byte(text)) // Redis names scripts by SHA-1
	return script{name: name, text: text, sha: hex.EncodeToString(sum[:])}
}

func source(name string) string {
	b, err := scriptFiles.ReadFile("scripts/" + name + ".lua")
	if err != nil {
		panic(err) // embedded at build time
	}
	return string(b)
}
