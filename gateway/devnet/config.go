package devnet

import "time"

// DefaultAPIKey is the commerce key a devnet accepts unless told otherwise.
const DefaultAPIKey = "ck_devnet_demo"

// A Config says how a devnet behaves. The zero value is a usable devnet. Where
// Pepay's documentation is silent, what the devnet does is a field here, so
// that a fact learned later changes a default and not the code.
type Config struct {
	APIKey      string // the one commerce key; default DefaultAPIKey
	MerchantID  int    // default 4217
	Environment string // "devnet" (default) or "mainnet", where simulate is forbidden
	APIVersion  string // of the envelope; default "2025-12-16"
	WSURL       string // ws:// base named by mint; default the listener's address

	Retention    int // newest events a stream can replay; default 100,000, about 200 MB once they are there
	Recorded     int // newest events REST and the record keep; default, and at least, Retention
	SnapshotSize int // events sent when since is too old; default 50
	MaxOrders    int // orders kept, the oldest are forgotten; default 50,000
	QueueFrames  int // frames waiting for one stream, which is cut when they are more; default 16,384

	InvoiceTTL  time.Duration // unpaid invoices expire after it; default 30 minutes
	TokenTTL    time.Duration // of a ws_token that asks for none; default 60 s
	TokenTTLMax time.Duration // the longest that may be asked for; default 1 h
	ClockOffset time.Duration // how far this devnet's clock is ahead of the machine's

	Seed         uint64        // of order ids; 0 draws one. Runs of a shop repeat by the shop's own seed
	PingInterval time.Duration // protocol pings sent to streams; 0 sends none

	SingleUseTokens    bool // a ws_token opens one stream only
	CloseExpiredTokens bool // a stream ends with ws_error TOKEN_EXPIRED when its token expires
	InclusiveSince     bool // replay repeats the event named by since
	ReplayControls     bool // frame every replay with replay.started and replay.completed
	EndingBeforeNewest bool // an ending_before page holds the newest events, not those next to the cursor
}

func (c Config) withDefaults() Config {
	orString(&c.APIKey, DefaultAPIKey)
	orInt(&c.MerchantID, 4217)
	orString(&c.Environment, "devnet")
	orString(&c.APIVersion, "2025-12-16")
	orInt(&c.Retention, 100_000)
	c.Recorded = max(c.Recorded, c.Retention)
	orInt(&c.SnapshotSize, 50)
	orInt(&c.MaxOrders, 50_000)
	orInt(&c.QueueFrames, 16_384)
	orDuration(&c.InvoiceTTL, 30*time.Minute)
	orDuration(&c.TokenTTL, time.Minute)
	orDuration(&c.TokenTTLMax, time.Hour)
	return c
}

func orString(v *string, def string) {
	if *v == "" {
		*v = def
	}
}

func orInt(v *int, def int) {
	if *v <= 0 {
		*v = def
	}
}

func orDuration(v *time.Duration, def time.Duration) {
	if *v <= 0 {
		*v = def
	}
}
