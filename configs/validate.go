package configs

import (
	"encoding/hex"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	nameBytes     = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	maxNameBytes  = 64
	minTokenBytes = 16 // of keys and tokens that are compared
	minHS256Bytes = 32 // the hash's own length, as RFC 7518 demands
)

// validate reports every value that is missing or makes no sense.
func (l *loader) validate() {
	c := l.config
	l.address("listen", c.Listen)
	l.publicURL(c.PublicURL)
	l.trustedProxies(c.TrustedProxies)
	l.name("stream", c.Stream)
	l.name("node", c.Node)
	l.within("stale_limit", c.StaleLimit, time.Second, 24*time.Hour)
	l.admin(c.Admin)
	l.upstream(c.Upstream)
	l.redis(c.Redis.URL)
	l.auth(c.Auth)
	l.origins(c.CORS.Origins)
	l.oneOf("log.level", c.Log.Level, "debug", "info", "warn", "error")
	l.count("log.retention_events", c.Log.RetentionEvents, 1, 10_000_000)
	l.count("state.max_orders", c.State.MaxOrders, 1, 10_000_000)
	l.within("leader.lease", c.Leader.Lease, time.Second, time.Minute)
	l.within("drain.delay", c.Drain.Delay, 0, 10*time.Minute)
	l.within("drain.duration", c.Drain.Duration, 0, time.Hour)
	l.limits(c.Limits)
}

func (l *loader) limits(m Limits) {
	const most = 10_000_000
	l.count("limits.connections", m.Connections, 0, most)
	l.count("limits.connections_per_ip", m.ConnectionsPerIP, 0, most)
	l.count("limits.connections_per_token", m.ConnectionsPerToken, 0, most)
	l.count("limits.connections_per_customer", m.ConnectionsPerCustomer, 0, most)
	l.count("limits.handshakes_per_ip", m.HandshakesPerIP, 0, most)
}

func (l *loader) count(key string, n, least, most int) {
	if n < least || n > most {
		l.bad(key, "%d is out of range; it must be %d to %d", n, least, most)
	}
}

func (l *loader) within(key string, d, least, most time.Duration) {
	if d < least || d > most {
		l.bad(key, "%v is out of range; it must be %v to %v", d, least, most)
	}
}

func (l *loader) oneOf(key, value string, choices ...string) {
	if !slices.Contains(choices, value) {
		l.bad(key, "%s is not one of: %s", quote(value), strings.Join(choices, ", "))
	}
}

func (l *loader) name(key, value string) {
	if value == "" || len(value) > maxNameBytes || !onlyNameBytes(value) {
		l.bad(key, "%s is no name; use 1 to %d of the bytes A-Z a-z 0-9 . _ -", quote(value), maxNameBytes)
	}
}

func onlyNameBytes(s string) bool {
	return strings.IndexFunc(s, func(r rune) bool { return !strings.ContainsRune(nameBytes, r) }) < 0
}

// address checks host:port and returns the host. Port 0 lets the system choose.
func (l *loader) address(key, value string) string {
	host, port, err := net.SplitHostPort(value)
	n, portErr := strconv.ParseUint(port, 10, 16)
	if err != nil || portErr != nil || n == 0 && port != "0" {
		l.bad(key, `%s is not an address; write host:port, such as 127.0.0.1:8080, or ":8080" for every interface`, quote(value))
	}
	return host
}

// url checks an absolute URL. It never shows it, because it may hold a password.
func (l *loader) url(key, value, example string, path bool, schemes ...string) {
	u, err := url.Parse(value)
	switch {
	case err != nil || u.Hostname() == "" || !slices.Contains(schemes, u.Scheme):
		l.bad(key, "must be a URL that starts with %s://; write for example %s", strings.Join(schemes, ":// or "), example)
	case u.User != nil:
		l.bad(key, "must not contain a user or password")
	case u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(value, "?#"):
		l.bad(key, "must not contain ? or #")
	case !path && strings.Trim(u.Path, "/") != "":
		l.bad(key, "must not contain a path; write for example %s", example)
	}
}

func (l *loader) publicURL(value string) {
	const example = "https://events.shop.com"
	if value == "" {
		l.missing("public_url", "how browsers reach the gateway, for example "+example)
		return
	}
	l.url("public_url", value, example, true, "https", "http")
}

// missing reports a required key that has no value.
func (l *loader) missing(key, example string) {
	f := field{key: key}
	l.bad(key, "is required: %s; set it in the file or as %s", example, f.variable())
}

func (l *loader) missingSecret(key, example string) {
	f := field{key: key}
	l.bad(key, "is required: %s; set %s or %s", example, f.variable(), f.variable()+fileSuffix)
}

func (l *loader) trustedProxies(prefixes []netip.Prefix) {
	for i, p := range prefixes {
		if p.Bits() <= 0 {
			l.bad(element("trusted_proxies", i), "%v would let every client choose its address; name the proxies' own range", p)
		}
	}
}

func (l *loader) admin(a Admin) {
	host := l.address("admin.listen", a.Listen)
	addr, err := netip.ParseAddr(host)
	loopback := host == "localhost" || err == nil && addr.Unmap().IsLoopback()
	switch {
	case a.Token != "":
		l.secret("admin.token", a.Token, minTokenBytes)
	case !loopback && !l.failed["admin.listen"]:
		l.missingSecret("admin.token", "admin.listen is not a loopback address, so others can reach it; 32 random bytes, for example from: openssl rand -hex 32")
	}
}

func (l *loader) upstream(u Upstream) {
	const example = "https://api-beta.pepay.io"
	l.url("upstream.api_url", u.APIURL, example, false, "https", "http")
	if !l.failed["upstream.api_url"] || l.whence("upstream.ws_url") != "" { // else it is derived
		l.url("upstream.ws_url", u.WSURL, "wss://api-beta.pepay.io", false, "wss", "ws")
	}
	if u.APIKey == "" {
		l.missingSecret("upstream.api_key", "the commerce API key from Pepay, ck_…")
	} else {
		l.secret("upstream.api_key", u.APIKey, 1)
	}
	l.oneOf("upstream.auth", u.Auth, "token", "key")
	if u.Environment != "" {
		l.oneOf("upstream.environment", u.Environment, "devnet", "mainnet")
	}
	l.within("upstream.backfill", u.Backfill, 0, 30*24*time.Hour)
	if len(u.Types) == 0 {
		l.bad("upstream.types", "is empty, so no event would arrive; leave it out for the usual types")
	}
	for i, t := range u.Types {
		name := strings.TrimSuffix(t, ".*")
		if name == "" || len(t) > 128 || !onlyNameBytes(name) {
			l.bad(element("upstream.types", i), "%s is not a type; write for example invoice.updated or invoice.*", quote(t))
		}
	}
}

func (l *loader) redis(u RedisURL) {
	const forms = "redis://host:6379/0, redis+sentinel://host:26379,host2:26379/mymaster or redis+cluster://host:7000,host:7001, with rediss for TLS"
	if u == "" {
		l.missingSecret("redis.url", forms)
		return
	}
	scheme, rest, ok := strings.Cut(u.Reveal(), "://")
	known := slices.Contains([]string{
		"redis", "rediss", "redis+sentinel", "rediss+sentinel", "redis+cluster", "rediss+cluster",
	}, scheme)
	hosts := rest[strings.LastIndexByte(rest, '@')+1:]
	switch {
	case !ok || !known || strings.Trim(hosts, "/?,:") == "" || strings.IndexAny(hosts, "/?") == 0:
		l.bad("redis.url", "must have one of the forms %s", forms)
	case looksLikeExample(u.password()):
		l.bad("redis.url", "its password is an example; use your own")
	}
}

func (l *loader) auth(a Auth) {
	if a.TokenSecret == "" {
		l.missingSecret("auth.token_secret", "at least 32 random bytes, for example from: openssl rand -hex 32")
	} else {
		l.secret("auth.token_secret", a.TokenSecret, minHS256Bytes)
	}
	if a.APIKey != "" {
		l.secret("auth.api_key", a.APIKey, minTokenBytes)
	}
	if a.APIKey == "" && len(a.APIKeys) == 0 && len(a.VerifyKeys) == 0 && !l.failed["auth.api_keys"] && !l.failed["auth.verify_keys"] {
		l.missingSecret("auth.api_key", "nobody could mint a token without it or auth.api_keys; a random key, for example from: openssl rand -hex 32")
	}
	names := make(map[string]bool)
	for i := range a.APIKeys {
		l.apiKey(element("auth.api_keys", i), a.APIKeys[i], names)
	}
	kids := make(map[string]bool)
	for i := range a.VerifyKeys {
		l.verifyKey(element("auth.verify_keys", i), a.VerifyKeys[i], kids)
	}
}

func (l *loader) apiKey(key string, k APIKey, names map[string]bool) {
	switch {
	case k.Name == "":
		l.bad(key+".name", "is required, for example shop-backend")
	case names[k.Name]:
		l.bad(key+".name", "%s is the name of another key; names must differ", quote(k.Name))
	default:
		l.name(key+".name", k.Name)
	}
	names[k.Name] = true

	switch {
	case l.failed[key+".hash"]:
	case k.Hash == "" && k.Key == "":
		l.bad(key+".hash", "is required: sha256: and the 64 hex digits of the key's SHA-256; or instead key, the key itself")
	case k.Hash != "" && k.Key != "":
		l.bad(key+".key", "is here and so is hash; keep one")
	case k.Hash != "":
		raw, err := hex.DecodeString(strings.TrimPrefix(k.Hash, "sha256:"))
		if err != nil || len(raw) != 32 {
			l.bad(key+".hash", "must be sha256: and 64 hex digits, for example from: printf %%s \"$KEY\" | sha256sum")
		}
	default:
		l.secret(key+".key", k.Key, minTokenBytes)
	}

	if len(k.Permissions) == 0 {
		l.bad(key+".permissions", "is required, for example [mint, events]")
	}
	for i, p := range k.Permissions {
		l.oneOf(element(key+".permissions", i), p, "mint", "ops", "events")
	}
}

func (l *loader) verifyKey(key string, k VerifyKey, kids map[string]bool) {
	if k.KID != "" {
		l.name(key+".kid", k.KID)
		if kids[k.KID] {
			l.bad(key+".kid", "%s is the kid of another key; kids must differ", quote(k.KID))
		}
		kids[k.KID] = true
	}
	switch {
	case k.Alg != "HS256" && k.Alg != "EdDSA":
		l.oneOf(key+".alg", k.Alg, "HS256", "EdDSA")
	case k.Key == "":
		l.bad(key+".key", "is required: the HS256 secret, or the EdDSA public key as PEM or base64")
	case k.Alg == "HS256":
		l.secret(key+".key", k.Key, minHS256Bytes)
	case k.KID == "":
		l.bad(key+".kid", "is required for an EdDSA key; its tokens carry it")
	}
}

// secret reports one that is too short to be one, or that everybody knows.
func (l *loader) secret(key string, s Secret, least int) {
	switch {
	case looksLikeExample(s.Reveal()):
		l.bad(key, "is an example, not a secret; use random bytes, for example from: openssl rand -hex 32")
	case len(s) < least:
		l.bad(key, "has %d bytes and needs at least %d, for example from: openssl rand -hex 32", len(s), least)
	}
}

// looksLikeExample finds what documentation puts in the place of a secret. The
// words are long enough not to turn up in random text.
func looksLikeExample(s string) bool {
	s = strings.ToLower(s)
	for _, word := range []string{
		"changeme", "change-me", "change_me", "change this", "example", "placeholder", "replace-me", "replace_me", "replaceme",
		"your-", "your_", "xxxxxx", "secret-goes-here", redacted,
	} {
		if strings.Contains(s, word) {
			return true
		}
	}
	return strings.HasPrefix(s, "<") && strings.HasSuffix(s, ">")
}

// origins checks that each is written exactly as browsers send it, because it
// is compared as it is.
func (l *loader) origins(origins []string) {
	for i, o := range origins {
		if what := originProblem(o); what != "" {
			l.bad(element("cors.origins", i), "%s %s", quote(o), what)
		}
	}
}

func originProblem(origin string) string {
	const example = "; write scheme://host[:port], such as https://shop.com"
	u, err := url.Parse(origin)
	switch {
	case origin == "null":
		return "is what any sandboxed page sends; name a real origin"
	case strings.Contains(origin, "*"):
		return "has a wildcard; name each origin"
	case err != nil || u.Scheme == "" || u.Hostname() == "":
		return "is not an origin" + example
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || strings.ContainsAny(origin, "?#"):
		return "is more than an origin" + example
	case u.Path != "":
		return "has a path, if only a slash at the end" + example
	case origin != strings.ToLower(origin):
		return "has capitals; browsers send it in lower case"
	case strings.IndexFunc(origin, func(r rune) bool { return r <= ' ' || r > '~' }) >= 0:
		return "is not ASCII; write the xn-- form that browsers send"
	case u.Scheme == "https" && u.Port() == "443", u.Scheme == "http" && u.Port() == "80", strings.HasSuffix(origin, ":"):
		return "has the scheme's own port, which browsers leave out"
	}
	return ""
}
