// Package configs is the configuration of the gateway: what can be set, the
// defaults, and where values come from. In rising order these are a YAML file,
// the environment, and the command line's flags. Every problem is reported at
// once, with its place and what to do about it, and without any secret.
//
// The package opens no connection and knows nothing of the parts that it
// configures; main hands each of them its values.
package configs

import (
	"fmt"
	"net/netip"
	"os"
	"strings"
	"time"
)

// A Config is everything that can be set. The names in YAML are those of the
// fields method; gateway.example.yaml says what they mean. In a limit, 0 means
// no limit.
type Config struct {
	Listen         string         // address of the public listener
	PublicURL      string         // how browsers reach it; URLs given to them start with this
	TrustedProxies []netip.Prefix // whose X-Forwarded-For is believed
	Stream         string         // the stream's name in every Redis key and metric
	Node           string         // this process among the nodes
	StaleLimit     time.Duration  // without Redis for longer: ask the peers whose fault it is

	Admin    Admin
	Upstream Upstream
	Redis    Redis
	Auth     Auth
	CORS     CORS
	Log      Log
	State    OrderState
	Leader   Leader
	Drain    Drain
	Limits   Limits
}

// Admin is the listener for health, metrics and the dashboard.
type Admin struct {
	Listen string
	Token  Secret // required unless Listen is a loopback address
	Pprof  bool
}

// Upstream is Pepay.
type Upstream struct {
	APIURL      string // base, without path
	WSURL       string // base, without path; Load derives it from APIURL when empty
	APIKey      Secret
	Auth        string // "token": mint ws_tokens for the stream; "key": send the key as a header
	Types       []string
	Environment string        // "devnet" or "mainnet" when the key's must be that; else empty
	Backfill    time.Duration // how far back a cold start reads
}

// Redis is where the log lives.
type Redis struct {
	URL RedisURL
}

// Auth is who may mint tokens, and the keys of these tokens.
type Auth struct {
	APIKeys     []APIKey
	APIKey      Secret // one key with all permissions, for small set-ups
	TokenSecret Secret // signs tokens: HS256, at least 32 bytes
	VerifyKeys  []VerifyKey
}

// An APIKey is a key of one of the merchant's servers, given as itself or, so
// that the file holds no secret, as its hash.
type APIKey struct {
	Name             string
	Hash             string // "sha256:" and 64 hex digits, or these alone
	Key              Secret // instead of Hash
	Permissions      []string
	CustomerRequired bool
}

// A VerifyKey verifies tokens that it did not sign here: those of the merchant's
// own backend, or of the token secret before or after the present one.
type VerifyKey struct {
	KID string // may be empty for HS256: then the one derived from the secret
	Alg string // HS256 or EdDSA
	Key Secret // the secret; or the public key, as PEM or base64
}

// CORS says which pages may read.
type CORS struct {
	Origins []string // exact
}

// Log bounds the record of events, and says how much the process tells.
type Log struct {
	RetentionEvents int
	Level           string // debug, info, warn or error
}

// OrderState bounds what is kept of orders beyond the log.
type OrderState struct {
	MaxOrders int
}

// Leader is the lease on the upstream connection.
type Leader struct {
	Lease time.Duration
}

// Drain is how the process ends.
type Drain struct {
	Delay    time.Duration // not ready, but still serving
	Duration time.Duration // over which streams are closed
}

// Limits bound what clients take from one node. 0 means no limit.
type Limits struct {
	Connections            int
	ConnectionsPerIP       int
	ConnectionsPerToken    int
	ConnectionsPerCustomer int
	HandshakesPerIP        int // per second
}

// Default returns the values that hold when nothing is set. It lacks what has
// no default, so it is not valid.
func Default() Config {
	return Config{
		Listen:     ":8080",
		Stream:     "commerce",
		Node:       defaultNode(),
		StaleLimit: 90 * time.Second,
		Admin:      Admin{Listen: "127.0.0.1:9090"},
		Upstream: Upstream{
			APIURL:   "https://api-beta.pepay.io",
			Auth:     "token",
			Types:    []string{"commerce.order.*", "invoice.*", "invoice_payment.*"},
			Backfill: 24 * time.Hour,
		},
		Log:    Log{RetentionEvents: 100_000, Level: "info"},
		State:  OrderState{MaxOrders: 100_000},
		Leader: Leader{Lease: 5 * time.Second},
		Drain:  Drain{Delay: 5 * time.Second, Duration: 20 * time.Second},
		Limits: Limits{
			Connections:            20_000,
			ConnectionsPerIP:       200, // an office or a mobile carrier's gateway, not one person
			ConnectionsPerToken:    20,
			ConnectionsPerCustomer: 50,
			HandshakesPerIP:        20,
		},
	}
}

// defaultNode names the process after its host and pid.
func defaultNode() string {
	host, err := os.Hostname()
	if err != nil || host == "" {
		host = "node"
	}
	host = strings.Map(func(r rune) rune {
		if strings.ContainsRune(nameBytes, r) {
			return r
		}
		return '-'
	}, host)
	return fmt.Sprintf("%.48s-%d", host, os.Getpid())
}

// A field is one value that can be set. The pointer's type says how it is
// written: see assign.
type field struct {
	key   string // path in the file; GATEWAY_ and upper case in the environment
	value any    // pointer into the Config
}

// fields is the one list of what can be set, in the order of Print.
func (c *Config) fields() []field {
	return []field{
		{"listen", &c.Listen},
		{"public_url", &c.PublicURL},
		{"trusted_proxies", &c.TrustedProxies},
		{"stream", &c.Stream},
		{"node", &c.Node},
		{"stale_limit", &c.StaleLimit},
		{"admin.listen", &c.Admin.Listen},
		{"admin.token", &c.Admin.Token},
		{"admin.pprof", &c.Admin.Pprof},
		{"upstream.api_url", &c.Upstream.APIURL},
		{"upstream.ws_url", &c.Upstream.WSURL},
		{"upstream.api_key", &c.Upstream.APIKey},
		{"upstream.auth", &c.Upstream.Auth},
		{"upstream.types", &c.Upstream.Types},
		{"upstream.environment", &c.Upstream.Environment},
		{"upstream.backfill", &c.Upstream.Backfill},
		{"redis.url", &c.Redis.URL},
		{"auth.api_keys", &c.Auth.APIKeys},
		{"auth.api_key", &c.Auth.APIKey},
		{"auth.token_secret", &c.Auth.TokenSecret},
		{"auth.verify_keys", &c.Auth.VerifyKeys},
		{"cors.origins", &c.CORS.Origins},
		{"log.retention_events", &c.Log.RetentionEvents},
		{"log.level", &c.Log.Level},
		{"state.max_orders", &c.State.MaxOrders},
		{"leader.lease", &c.Leader.Lease},
		{"drain.delay", &c.Drain.Delay},
		{"drain.duration", &c.Drain.Duration},
		{"limits.connections", &c.Limits.Connections},
		{"limits.connections_per_ip", &c.Limits.ConnectionsPerIP},
		{"limits.connections_per_token", &c.Limits.ConnectionsPerToken},
		{"limits.connections_per_customer", &c.Limits.ConnectionsPerCustomer},
		{"limits.handshakes_per_ip", &c.Limits.HandshakesPerIP},
	}
}

func (k *APIKey) fields(prefix string) []field {
	return []field{
		{prefix + "name", &k.Name},
		{prefix + "hash", &k.Hash},
		{prefix + "key", &k.Key},
		{prefix + "permissions", &k.Permissions},
		{prefix + "customer_required", &k.CustomerRequired},
	}
}

func (k *VerifyKey) fields(prefix string) []field {
	return []field{
		{prefix + "kid", &k.KID},
		{prefix + "alg", &k.Alg},
		{prefix + "key", &k.Key},
	}
}

// secret says whether the field must not be shown, and may come from a file
// named by a variable that ends in _FILE.
func (f field) secret() bool {
	switch f.value.(type) {
	case *Secret, *RedisURL, *[]APIKey, *[]VerifyKey:
		return true
	}
	return false
}

// variable is the field's name in the environment.
func (f field) variable() string {
	return envPrefix + strings.ToUpper(strings.ReplaceAll(f.key, ".", "_"))
}
