package configs

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/goccy/go-yaml"
	"github.com/google/go-cmp/cmp"
)

const (
	tokenSecret = "c0ffee00c0ffee00c0ffee00c0ffee00-token"
	apiKey      = "c0ffee00c0ffee00-api"
	marker      = "c0ffee00" // in every secret of these tests
)

// required returns the environment that makes the defaults valid, changed by
// further variables; "NAME=" removes one.
func required(changes ...string) []string {
	vars := map[string]string{}
	for _, e := range append([]string{
		"HOME=/nowhere",
		"GATEWAY_PUBLIC_URL=https://events.shop.com",
		"GATEWAY_UPSTREAM_API_KEY=ck_c0ffee00",
		"GATEWAY_REDIS_URL=redis://gw:c0ffee00@localhost:6379/0",
		"GATEWAY_AUTH_TOKEN_SECRET=" + tokenSecret,
		"GATEWAY_AUTH_API_KEY=" + apiKey,
	}, changes...) {
		name, value, _ := strings.Cut(e, "=")
		vars[name] = value
	}
	var environ []string
	for name, value := range vars {
		environ = append(environ, name+"="+value)
	}
	return environ
}

// write puts a file into a directory of its own and returns its path.
func write(t testing.TB, name, text string) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, name)
}

func TestDefaultsNeedOnlyWhatIsRequired(t *testing.T) {
	c, err := Load("", required(), nil)
	if err != nil {
		t.Fatalf("Load = %v, want nil", err)
	}
	if c.Upstream.WSURL != "wss://api-beta.pepay.io" {
		t.Errorf("ws_url = %q, want the one of api_url", c.Upstream.WSURL)
	}
	if c.Redis.URL.Reveal() != "redis://gw:c0ffee00@localhost:6379/0" || c.Auth.TokenSecret.Reveal() != tokenSecret {
		t.Error("a secret is not what was set")
	}
	if err := c.Validate(); err != nil {
		t.Errorf("Validate of what Load returned = %v, want nil", err)
	}
}

func TestMissingIsReportedAtOnce(t *testing.T) {
	_, err := Load("", nil, nil)
	want := `public_url: is required: how browsers reach the gateway, for example https://events.shop.com; set it in the file or as GATEWAY_PUBLIC_URL
upstream.api_key: is required: the commerce API key from Pepay, ck_…; set GATEWAY_UPSTREAM_API_KEY or GATEWAY_UPSTREAM_API_KEY_FILE
redis.url: is required: redis://host:6379/0, redis+sentinel://host:26379,host2:26379/mymaster or redis+cluster://host:7000,host:7001, with rediss for TLS; set GATEWAY_REDIS_URL or GATEWAY_REDIS_URL_FILE
auth.token_secret: is required: at least 32 random bytes, for example from: openssl rand -hex 32; set GATEWAY_AUTH_TOKEN_SECRET or GATEWAY_AUTH_TOKEN_SECRET_FILE
auth.api_key: is required: nobody could mint a token without it or auth.api_keys; a random key, for example from: openssl rand -hex 32; set GATEWAY_AUTH_API_KEY or GATEWAY_AUTH_API_KEY_FILE`
	if diff := cmp.Diff(want, fmt.Sprint(err)); diff != "" {
		t.Errorf("problems (-want +got):\n%s", diff)
	}
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 5 {
		t.Errorf("errors.As = %v, want 5 Problems", problems)
	}
}

func TestBadFiles(t *testing.T) {
	for name, tt := range map[string]struct{ file, want string }{
		"unknown key":            {"lisen: \":80\"\n", `FILE:1: unknown key "lisen"; the nearest valid key is "listen"`},
		"unknown key in section": {"\nlog:\n  levle: info\n", `FILE:3: unknown key "log.levle"; the nearest valid key is "log.level"`},
		"key in no section":      {"retention_events: 5\n", `FILE:1: unknown key "retention_events"; the nearest valid key is "log.retention_events"`},
		"unknown section":        {"upstram:\n  api_key: x\n", `FILE:1: unknown key "upstram"; the nearest valid key is "stream"`},
		"value joined to key":    {"auth: {token_secret=c0ffee00}\n", `FILE:1: unknown key "auth.token_secret…"; the nearest valid key is "auth.token_secret"`},
		"duplicate": {
			"listen: \":80\"\nlog:\n  level: info\n  level: warn\nlisten: \":81\"\n",
			"FILE:4: \"log.level\" is here for the second time, after line 3; keep one\nFILE:5: \"listen\" is here for the second time, after line 1; keep one",
		},
		"several": {"listen: 80\nlog:\n  retention_events: many\nadmin:\n  pprof: yes\nleader: {lease: 5}\n", `FILE:3: log.retention_events: "many" is not a whole number
FILE:5: admin.pprof: "yes" is neither true nor false
FILE:6: leader.lease: "5" is not a duration; write a number and its unit, such as 90s, 5m or 24h
FILE:1: listen: "80" is not an address; write host:port, such as 127.0.0.1:8080, or ":8080" for every interface`},
		"section as value":   {"log: info\n", `FILE:1: log is a section; write its keys below it, indented`},
		"value as section":   {"listen: {a: b}\n", `FILE:1: listen: must be one value, not a list or a section`},
		"value as list":      {"upstream:\n  types: invoice.*\n", `FILE:2: upstream.types: must be a list, such as [a, b]`},
		"secret as list":     {"upstream:\n  api_key: [c0ffee00]\n", `FILE:2: upstream.api_key: must be one value, not a list or a section`},
		"list in list":       {"cors:\n  origins: [https://a.com, [b]]\n", `FILE:2: cors.origins[1]: must be one value`},
		"anchor":             {"listen: &a \":80\"\n", `FILE:1: listen: anchors, aliases and tags are not supported; write the value itself`},
		"merge key":          {"log:\n  <<: {level: info}\n", `FILE:2: unknown key "log.…"; the nearest valid key is "listen"`},
		"tab":                {"log:\n\tlevel: info\n", `FILE:2: this is not YAML: found character '	' that cannot start any token`},
		"open quote":         {"a: 1\nauth:\n  token_secret: 'c0ffee00\n", `FILE:3: this is not YAML: could not find end character of single-quoted text`},
		"list":               {"- a\n", `FILE:1: the file must consist of keys and values, such as listen: ":8080"`},
		"deep":               {"listen: " + strings.Repeat("[", 33) + "\n", `FILE:1: this is not YAML: more than 32 open brackets`},
		"two documents":      {"listen: \":80\"\n---\nlisten: \":81\"\n", `FILE:1: there is more than one document; keep one, without --- between its parts`},
		"out of range":       {"leader: {lease: 500ms}\nlimits: {connections: -1}\n", "FILE:1: leader.lease: 500ms is out of range; it must be 1s to 1m0s\nFILE:2: limits.connections: -1 is out of range; it must be 0 to 10000000"},
		"choices":            {"log: {level: loud}\nupstream: {auth: basic, environment: test}\n", "FILE:2: upstream.auth: \"basic\" is not one of: token, key\nFILE:2: upstream.environment: \"test\" is not one of: devnet, mainnet\nFILE:1: log.level: \"loud\" is not one of: debug, info, warn, error"},
		"stream":             {"stream: \"a{b}\"\n", `FILE:1: stream: "a{b}" is no name; use 1 to 64 of the bytes A-Z a-z 0-9 . _ -`},
		"public_url":         {"public_url: ftp://c0ffee00@x\n", ``}, // the environment wins
		"api_url with path":  {"upstream:\n  api_url: https://api.pepay.io/api/v1\n", "FILE:2: upstream.api_url: must not contain a path; write for example https://api-beta.pepay.io"},
		"api_url, password":  {"upstream:\n  api_url: https://u:c0ffee00@x.io\n", "FILE:2: upstream.api_url: must not contain a user or password"},
		"api_url, no scheme": {"upstream:\n  api_url: api.pepay.io\n", "FILE:2: upstream.api_url: must be a URL that starts with https:// or http://; write for example https://api-beta.pepay.io"},
		"admin in the open":  {"admin:\n  listen: :9090\n", "admin.token: is required: admin.listen is not a loopback address, so others can reach it; 32 random bytes, for example from: openssl rand -hex 32; set GATEWAY_ADMIN_TOKEN or GATEWAY_ADMIN_TOKEN_FILE"},
		"example secret":     {"admin:\n  token: changeme-changeme\n", "FILE:2: admin.token: is an example, not a secret; use random bytes, for example from: openssl rand -hex 32"},
		"short secret":       {"admin:\n  token: c0ffee00\n", "FILE:2: admin.token: has 8 bytes and needs at least 16, for example from: openssl rand -hex 32"},
		"printed secret":     {"admin:\n  token: \"[redacted]\"\n", "FILE:2: admin.token: is an example, not a secret; use random bytes, for example from: openssl rand -hex 32"},
		"proxies":            {"trusted_proxies:\n  - 10.0.0.0/8\n  - 0.0.0.0/0\n  - proxy\n", "FILE:4: trusted_proxies[2]: \"proxy\" is not an address range; write for example 10.0.0.0/8\nFILE:3: trusted_proxies[1]: 0.0.0.0/0 would let every client choose its address; name the proxies' own range"},
		"types":              {"upstream:\n  types: [invoice.*, \"*\", \"a.*.b\"]\n", "FILE:2: upstream.types[1]: \"*\" is not a type; write for example invoice.updated or invoice.*\nFILE:2: upstream.types[2]: \"a.*.b\" is not a type; write for example invoice.updated or invoice.*"},
		"no types":           {"upstream:\n  types: []\n", "FILE:2: upstream.types: is empty, so no event would arrive; leave it out for the usual types"},
		"api keys": {`auth:
  api_keys:
    - permissions: [mint]
      key: c0ffee00c0ffee00-a
    - name: a
      hash: c0ffee00
      permissions: [mint, admin]
    - name: a
      key: short
      customer_required: 1
    - nam: b
  verify_keys:
    - alg: none
    - kid: shop
      alg: HS256
      key: c0ffee00
    - alg: EdDSA
      key: c0ffee00
`, `FILE:10: auth.api_keys[2].customer_required: "1" is neither true nor false
FILE:11: unknown key "auth.api_keys[3].nam"; the nearest valid key is "auth.api_keys[3].name"
FILE:3: auth.api_keys[0].name: is required, for example shop-backend
FILE:6: auth.api_keys[1].hash: must be sha256: and 64 hex digits, for example from: printf %s "$KEY" | sha256sum
FILE:7: auth.api_keys[1].permissions[1]: "admin" is not one of: mint, ops, events
FILE:8: auth.api_keys[2].name: "a" is the name of another key; names must differ
FILE:9: auth.api_keys[2].key: has 5 bytes and needs at least 16, for example from: openssl rand -hex 32
FILE:8: auth.api_keys[2].permissions: is required, for example [mint, events]
FILE:11: auth.api_keys[3].name: is required, for example shop-backend
FILE:11: auth.api_keys[3].hash: is required: sha256: and the 64 hex digits of the key's SHA-256; or instead key, the key itself
FILE:11: auth.api_keys[3].permissions: is required, for example [mint, events]
FILE:13: auth.verify_keys[0].alg: "none" is not one of: HS256, EdDSA
FILE:16: auth.verify_keys[1].key: has 8 bytes and needs at least 32, for example from: openssl rand -hex 32
FILE:17: auth.verify_keys[2].kid: is required for an EdDSA key; its tokens carry it`},
		"api keys no list":    {"auth:\n  api_keys: {name: a}\n", "FILE:2: auth.api_keys: must be a list of at most 1000 entries, each with its keys"},
		"api keys of strings": {"auth:\n  api_keys:\n    - c0ffee00\n", "FILE:3: auth.api_keys: entry 1 must consist of keys and values, such as name: shop"},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, "gateway.yaml", tt.file)
			_, err := Load(path, required(), nil)
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), path, "FILE")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
			if strings.Contains(got, marker) {
				t.Errorf("problems = %q, want no secret", got)
			}
		})
	}
}

func TestFileThatCannotBeRead(t *testing.T) {
	_, err := Load(filepath.Join(t.TempDir(), "gone.yaml"), []string{"GATEWAY_LISEN=x"}, nil)
	var problems Problems
	if !errors.As(err, &problems) || len(problems) != 2 || !strings.Contains(problems[0].What, "no such file") {
		t.Errorf("Load = %v, want the file and the variable, not what is missing", err)
	}
	big := write(t, "big.yaml", strings.Repeat("#", maxFileBytes+1))
	if _, err := Load(big, required(), nil); err == nil || !strings.Contains(err.Error(), "has more than 32768 bytes") {
		t.Errorf("Load of a huge file = %v, want its limit", err)
	}
}

func TestOrigins(t *testing.T) {
	for origin, want := range map[string]string{
		"https://shop.com":          "",
		"http://localhost:5173":     "",
		"capacitor://localhost":     "",
		"https://[::1]:8443":        "",
		"https://shop.com/":         "has a path",
		"https://shop.com/x":        "has a path",
		"https://shop.com?x":        "is more than an origin",
		"https://u@shop.com":        "is more than an origin",
		"https://shop.com:443":      "own port",
		"http://shop.com:80":        "own port",
		"https://shop.com:":         "own port",
		"https://Shop.com":          "has capitals",
		"https://büro.de":           "is not ASCII",
		"*":                         "wildcard",
		"https://*.shop.com":        "wildcard",
		"null":                      "sandboxed",
		"shop.com":                  "is not an origin",
		"":                          "is not an origin",
		"https://":                  "is not an origin",
		"https://shop.com evil.com": "is not an origin",
	} {
		got := originProblem(origin)
		if want == "" && got != "" || !strings.Contains(got, want) {
			t.Errorf("originProblem(%q) = %q, want %q", origin, got, want)
		}
	}
}

func TestRedisURLs(t *testing.T) {
	for url, good := range map[string]bool{
		"redis://localhost":                               true,
		"rediss://u:p@h:6379/0?ca_file=/etc/ca.pem":       true,
		"redis+sentinel://:p@h:26379,h2:26379/mymaster/0": true,
		"rediss+sentinel://h:26379/mymaster":              true,
		"redis+cluster://h:7000,h:7001":                   true,
		"rediss+cluster://u:p%40x@h:7000":                 true,
		"localhost:6379":                                  false,
		"http://localhost":                                false,
		"redis://":                                        false,
		"redis:///0":                                      false,
		"redis://u:c0ffee00@":                             false,
		"redis://u:changeme@h":                            false,
		"valkey://h":                                      false,
	} {
		_, err := Load("", required("GATEWAY_REDIS_URL="+url), nil)
		if (err == nil) != good {
			t.Errorf("Load with %q = %v, want good: %v", url, err, good)
		}
		if err != nil && strings.Contains(err.Error(), marker) {
			t.Errorf("problems = %q, want no secret", err)
		}
	}
}

func TestLaterSourceWins(t *testing.T) {
	path := write(t, "gateway.yaml", `
listen: ":1"
log: {level: warn}
cors: {origins: [https://a.com, https://b.com]}
upstream: {api_url: "https://file.io", api_key: ck_file}
`)
	level := func(c Config) string { return c.Log.Level }
	apiURL := func(c Config) string { return c.Upstream.APIURL + " " + c.Upstream.WSURL }
	origins := func(c Config) string { return strings.Join(c.CORS.Origins, " ") }
	key := func(c Config) string { return c.Upstream.APIKey.Reveal() }
	for name, tt := range map[string]struct {
		path  string
		env   []string
		flags map[string]string
		get   func(Config) string
		want  string
	}{
		"default":               {"", nil, nil, level, "info"},
		"file":                  {path, nil, nil, level, "warn"},
		"environment":           {path, []string{"GATEWAY_LOG_LEVEL=error"}, nil, level, "error"},
		"flag":                  {path, []string{"GATEWAY_LOG_LEVEL=error"}, map[string]string{"log.level": "debug"}, level, "debug"},
		"empty variable":        {path, []string{"GATEWAY_LOG_LEVEL="}, nil, level, "warn"},
		"list":                  {path, []string{"GATEWAY_CORS_ORIGINS= https://c.com ,,https://d.com"}, nil, origins, "https://c.com https://d.com"},
		"api_url, file":         {path, nil, nil, apiURL, "https://file.io wss://file.io"},
		"api_url, Pepay's name": {path, []string{"PEPAY_API_URL=http://pepay.io:3000"}, nil, apiURL, "http://pepay.io:3000 ws://pepay.io:3000"},
		"api_url, both": {
			path,
			[]string{"PEPAY_API_URL=https://pepay.io", "PEPAY_WS_URL=wss://ws.pepay.io", "GATEWAY_UPSTREAM_API_URL=https://gw.io"},
			nil, apiURL, "https://gw.io wss://ws.pepay.io",
		},
		"key, file":         {path, []string{"GATEWAY_UPSTREAM_API_KEY="}, nil, key, "ck_file"},
		"key, Pepay's name": {path, []string{"GATEWAY_UPSTREAM_API_KEY=", "PEPAY_COMMERCE_API_KEY=ck_pepay"}, nil, key, "ck_pepay"},
		"key, both":         {path, []string{"PEPAY_COMMERCE_API_KEY=ck_pepay"}, nil, key, "ck_c0ffee00"},
	} {
		c, err := Load(tt.path, required(tt.env...), tt.flags)
		if err != nil {
			t.Errorf("%s: Load = %v, want nil", name, err)
		}
		if got := tt.get(c); got != tt.want {
			t.Errorf("%s: got %q, want %q", name, got, tt.want)
		}
	}
}

func TestBadEnvironment(t *testing.T) {
	for name, tt := range map[string]struct {
		env   []string
		flags map[string]string
		want  string
	}{
		"unknown":      {[]string{"GATEWAY_LOG_LEVLE=info"}, nil, "GATEWAY_LOG_LEVLE: unknown variable; the nearest valid one is GATEWAY_LOG_LEVEL"},
		"not a secret": {[]string{"GATEWAY_LISTEN_FILE=/x"}, nil, "GATEWAY_LISTEN_FILE: unknown variable; the nearest valid one is GATEWAY_LISTEN"},
		"value":        {[]string{"GATEWAY_LIMITS_CONNECTIONS=lots"}, nil, `GATEWAY_LIMITS_CONNECTIONS: limits.connections: "lots" is not a whole number`},
		"Pepay's name": {[]string{"PEPAY_API_URL=x"}, nil, "PEPAY_API_URL: upstream.api_url: must be a URL that starts with https:// or http://; write for example https://api-beta.pepay.io"},
		"keys":         {[]string{"GATEWAY_AUTH_API_KEYS=[{name: 'c0ffee00"}, nil, "GATEWAY_AUTH_API_KEYS: auth.api_keys: this is not YAML: could not find end character of single-quoted text; write a list such as [{name: shop, …}]"},
		"unknown flag": {nil, map[string]string{"log.leve": "info"}, `flag log.leve: unknown key "log.leve"; the nearest valid key is "log.level"`},
		"secret flag": {
			nil,
			map[string]string{"auth.api_key": "c0ffee00"},
			"flag auth.api_key: a secret on the command line is seen by everybody on the machine; use GATEWAY_AUTH_API_KEY or GATEWAY_AUTH_API_KEY_FILE",
		},
		"flag": {nil, map[string]string{"stale_limit": "1"}, `flag stale_limit: stale_limit: "1" is not a duration; write a number and its unit, such as 90s, 5m or 24h`},
		"Kubernetes": {[]string{
			"GATEWAY_SERVICE_HOST=10.0.0.1", "GATEWAY_SERVICE_PORT_HTTP=80", "GATEWAY_PORT=tcp://10.0.0.1:80",
			"GATEWAY_PORT_80_TCP=tcp://10.0.0.1:80", "GATEWAY_PORT_80_TCP_ADDR=10.0.0.1", "GATEWAY_ADMIN_SERVICE_PORT=9090",
		}, nil, ""},
		"no Kubernetes": {[]string{"GATEWAY_PORT=80"}, nil, "GATEWAY_PORT: unknown variable; the nearest valid one is GATEWAY_NODE"},
	} {
		_, err := Load("", required(tt.env...), tt.flags)
		got := ""
		if err != nil {
			got = err.Error()
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", name, diff)
		}
	}
}

func TestKeyListsFromTheEnvironment(t *testing.T) {
	c, err := Load("", required("GATEWAY_AUTH_API_KEYS=[{name: shop, key: c0ffee00c0ffee00, permissions: [mint], customer_required: true}]",
		"GATEWAY_AUTH_VERIFY_KEYS=[{kid: s, alg: EdDSA, key: abc}]", "GATEWAY_TRUSTED_PROXIES=10.1.2.3/8,::1"), nil)
	if err != nil {
		t.Fatal(err)
	}
	want := []APIKey{{Name: "shop", Key: "c0ffee00c0ffee00", Permissions: []string{"mint"}, CustomerRequired: true}}
	if !slices.EqualFunc(c.Auth.APIKeys, want, func(a, b APIKey) bool {
		return a.Name == b.Name && a.Key == b.Key && slices.Equal(a.Permissions, b.Permissions) && a.CustomerRequired == b.CustomerRequired
	}) {
		t.Errorf("api_keys = %+v, want %+v", c.Auth.APIKeys, want)
	}
	if len(c.Auth.VerifyKeys) != 1 || c.Auth.VerifyKeys[0] != (VerifyKey{"s", "EdDSA", "abc"}) {
		t.Errorf("verify_keys = %+v, want the one set", c.Auth.VerifyKeys)
	}
	proxies := []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("::1/128")}
	if !slices.Equal(c.TrustedProxies, proxies) {
		t.Errorf("trusted_proxies = %v, want %v", c.TrustedProxies, proxies)
	}
}

func TestSecretFromFile(t *testing.T) {
	path := write(t, "secret", "\n  "+tokenSecret+"\n")
	c, err := Load("", required("GATEWAY_AUTH_TOKEN_SECRET=", "GATEWAY_AUTH_TOKEN_SECRET_FILE="+path), nil)
	if err != nil || c.Auth.TokenSecret.Reveal() != tokenSecret {
		t.Errorf("Load = %v, secret as in the file: %v, want it trimmed", err, c.Auth.TokenSecret.Reveal() == tokenSecret)
	}
	for name, tt := range map[string]struct {
		env  []string
		want string
	}{
		"both": {
			[]string{"GATEWAY_AUTH_TOKEN_SECRET_FILE=" + path},
			"GATEWAY_AUTH_TOKEN_SECRET: is set, and so is GATEWAY_AUTH_TOKEN_SECRET_FILE; keep one",
		},
		"gone": {
			[]string{"GATEWAY_AUTH_TOKEN_SECRET=", "GATEWAY_AUTH_TOKEN_SECRET_FILE=" + tokenSecret},
			"GATEWAY_AUTH_TOKEN_SECRET_FILE: the file that it names cannot be read: no such file or directory",
		},
		"empty": {
			[]string{"GATEWAY_REDIS_URL=", "GATEWAY_REDIS_URL_FILE=" + write(t, "secret", " \n")},
			"GATEWAY_REDIS_URL_FILE: the file that it names is empty",
		},
		"short": {
			[]string{"GATEWAY_AUTH_API_KEY=", "GATEWAY_AUTH_API_KEY_FILE=" + write(t, "secret", "c0ffee00")},
			"GATEWAY_AUTH_API_KEY_FILE: auth.api_key: has 8 bytes and needs at least 16, for example from: openssl rand -hex 32",
		},
	} {
		_, err := Load("", required(tt.env...), nil)
		if diff := cmp.Diff(tt.want, fmt.Sprint(err)); diff != "" {
			t.Errorf("%s: problems (-want +got):\n%s", name, diff)
		}
	}
}

func TestSet(t *testing.T) {
	c := Default()
	if err := c.Set("leader.lease", "7s"); err != nil || c.Leader.Lease != 7*time.Second {
		t.Errorf("Set = %v, lease = %v, want 7s", err, c.Leader.Lease)
	}
	if err := c.Set("leader.leas", "7s"); err == nil {
		t.Error("Set of an unknown key = nil, want an error")
	}
	if err := c.Set("leader.lease", "soon"); err == nil {
		t.Error("Set of a bad value = nil, want an error")
	}
}

func TestExampleFile(t *testing.T) {
	text, err := os.ReadFile("gateway.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Load("gateway.example.yaml", required(), nil); err != nil {
		t.Errorf("Load = %v, want nil", err)
	}
	c := Default()
	fields := slices.Concat(c.fields(), (&APIKey{}).fields(""), (&VerifyKey{}).fields(""))
	for _, f := range fields {
		name := lastPart(f.key)
		line := regexp.MustCompile(`(?m)^[ #-]*` + name + `:(?: +"?([^\s"]+))?`).FindSubmatch(text)
		if line == nil {
			t.Errorf("the example does not name %s", f.key)
			continue
		}
		switch f.value.(type) {
		case *int, *time.Duration:
			want := flow(f.value)
			if err := c.Set(f.key, string(line[1])); err != nil || flow(f.value) != want {
				t.Errorf("the example says %s: %s, want the default %s", f.key, line[1], want)
			}
		}
	}
}

// TestExampleFileWithoutComments makes sure that what is commented out works
// when it is not any more.
func TestExampleFileWithoutComments(t *testing.T) {
	text, err := os.ReadFile("gateway.example.yaml")
	if err != nil {
		t.Fatal(err)
	}
	option := regexp.MustCompile(`(?m)^( *)# ( *(?:- )?[a-z_]+:(?: [^:]*|  *\[.*|  *".*| https?://\S+| wss?://.*| sha256:.*|))$`)
	loose := option.ReplaceAll(text, []byte("$1$2"))
	loose = regexp.MustCompile(`(?m)^.*: set GATEWAY_.*$`).ReplaceAll(loose, nil)
	c, err := Load(write(t, "gateway.yaml", string(loose)), required(), nil)
	if err != nil {
		t.Fatalf("Load = %v, want nil, of:\n%s", err, loose)
	}
	if len(c.Auth.APIKeys) != 1 || len(c.Auth.VerifyKeys) != 1 || c.Limits != Default().Limits || c.Node != "gateway-1" {
		t.Errorf("some options were not taken up: %+v", c)
	}
}

func secretConfig(t testing.TB) Config {
	t.Helper()
	c, err := Load("", required("GATEWAY_ADMIN_TOKEN=c0ffee00c0ffee00",
		"GATEWAY_AUTH_API_KEYS=[{name: shop, key: c0ffee00c0ffee00, permissions: [mint]}]",
		"GATEWAY_AUTH_VERIFY_KEYS=[{kid: s, alg: HS256, key: c0ffee00c0ffee00c0ffee00c0ffee00}]"), nil)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestSecretsAreNeverShown(t *testing.T) {
	c := secretConfig(t)
	var out bytes.Buffer
	if err := c.Print(&out); err != nil {
		t.Fatal(err)
	}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d", "%t"} {
		fmt.Fprintf(&out, verb+"\n", c)
		fmt.Fprintf(&out, verb+verb+"\n", c.Auth.APIKey, c.Redis.URL)
	}
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		slog.New(h).Info("x", "config", c, "key", c.Auth.APIKey, "url", c.Redis.URL, "keys", c.Auth.APIKeys)
	}
	raw, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	if raw, err = yaml.Marshal(c); err != nil {
		t.Fatal(err)
	}
	out.Write(raw)
	fmt.Fprint(&out, c.Auth.APIKey.String(), c.Auth.APIKey.GoString(), c.Redis.URL.GoString())
	for _, shown := range []string{marker, fmt.Sprintf("%x", marker), fmt.Sprintf("%X", marker)} {
		if i := strings.Index(out.String(), shown); i >= 0 {
			t.Errorf("a secret is shown: …%s…", out.String()[max(0, i-80):i])
		}
	}
	if !strings.Contains(out.String(), "redis://gw:[redacted]@localhost:6379/0") {
		t.Error("the Redis URL is not shown without its password")
	}
}

func TestRedisURLHidesItsPassword(t *testing.T) {
	for url, want := range map[string]string{
		"redis://localhost:6379/0":                 "redis://localhost:6379/0",
		"redis://u:p@h:1/0":                        "redis://u:[redacted]@h:1/0",
		"redis://:p@h":                             "redis://:[redacted]@h",
		"redis://p@h":                              "redis://[redacted]@h",
		"redis://u:p@ss/w:rd@h:1":                  "redis://u:[redacted]@h:1",
		"redis://u:p@h?ca_file=/ca.pem":            "redis://u:[redacted]@h?ca_file=/ca.pem",
		"redis://u:p?p@h":                          "[redacted]",
		"redis://h?password=p":                     "[redacted]",
		"redis://h?ca_file=/ca.pem&password=p":     "[redacted]",
		"p":                                        "[redacted]",
		"redis+sentinel://u:p@h:1,h2:1/mymaster/0": "redis+sentinel://u:[redacted]@h:1,h2:1/mymaster/0",
	} {
		if got := RedisURL(url).String(); got != want {
			t.Errorf("String of %q = %q, want %q", url, got, want)
		}
	}
}

func TestPrintLoadsAgain(t *testing.T) {
	c := secretConfig(t)
	c.Auth.APIKeys[0].Key, c.Auth.APIKeys[0].Hash = "", strings.Repeat("ab", 32)
	c.Auth.VerifyKeys = nil
	c.TrustedProxies = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	c.CORS.Origins = []string{"https://shop.com"}
	var first, second bytes.Buffer
	if err := c.Print(&first); err != nil {
		t.Fatal(err)
	}
	again, err := Load(write(t, "gateway.yaml", first.String()), required("GATEWAY_ADMIN_TOKEN=c0ffee00c0ffee00"), nil)
	if err != nil {
		t.Fatalf("Load of what Print wrote = %v, want nil", err)
	}
	if err := again.Print(&second); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first.String(), second.String()); diff != "" {
		t.Errorf("printed twice (-first +second):\n%s", diff)
	}
}

func TestKeysAndVariablesAreUnambiguous(t *testing.T) {
	c := Default()
	names := map[string]string{}
	for _, f := range c.fields() {
		for _, name := range []string{f.variable(), f.variable() + fileSuffix} {
			if other, taken := names[name]; taken {
				t.Errorf("%s stands for %s and %s", name, other, f.key)
			}
			names[name] = f.key
		}
		if serviceLink.MatchString(f.variable() + "=x") {
			t.Errorf("%s looks like one of Kubernetes' own", f.variable())
		}
	}
	if len(slices.Collect(maps.Keys(names))) != 2*len(c.fields()) {
		t.Error("some variable is missing")
	}
}

// FuzzConfig: whatever a file or a variable says, nothing panics, and the
// secrets that are in the environment do not show up among the problems.
func FuzzConfig(f *testing.F) {
	example, err := os.ReadFile("gateway.example.yaml")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(string(example), "")
	f.Add("listen: \":80\"\nlog: {level: warn}\n", "redis://u:p@h")
	f.Add("auth:\n  api_keys:\n    - name: a\n      hash: b\n", "[{name: a}]")
	f.Add("a: &x [*x]\n<<: *x\n? b\n: !!c d\n", "a,b")
	f.Add("x: |\n  y\n---\n", "%")
	f.Add("- {a: [b, {c: d}]}\n", "5s")
	path := filepath.Join(f.TempDir(), "gateway.yaml")
	f.Fuzz(func(t *testing.T, file, value string) {
		if err := os.WriteFile(path, []byte(file), 0o600); err != nil {
			t.Fatal(err)
		}
		environ := required()
		c := Default()
		for _, f := range c.fields() {
			if !strings.Contains(strings.Join(environ, "\n"), f.variable()+"=") {
				environ = append(environ, f.variable()+"="+value)
			}
		}
		c, err := Load(path, environ, nil)
		if err != nil && strings.Contains(err.Error(), tokenSecret) && !strings.Contains(file+value, tokenSecret) {
			t.Errorf("Load = %v, want no secret", err)
		}
		if err == nil {
			if err := c.Print(&bytes.Buffer{}); err != nil {
				t.Error(err)
			}
		}
	})
}
