package bench

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
)

func TestConfigIsChecked(t *testing.T) {
	self := Config{Self: true}
	running := Config{URL: "http://127.0.0.1:1", Devnet: "http://127.0.0.1:2", APIKey: "k", PID: 1}
	with := func(c Config, edit func(*Config)) Config {
		edit(&c)
		return c
	}
	for name, tt := range map[string]struct {
		cfg  Config
		want string // of the error; "" for none
	}{
		"self":         {self, ""},
		"running":      {running, ""},
		"both":         {with(running, func(c *Config) { c.Self = true }), "--self"},
		"neither":      {Config{}, "--self"},
		"workload":     {with(self, func(c *Config) { c.Workloads = []string{"idel"} }), "idel"},
		"transport":    {with(self, func(c *Config) { c.Transport = "tcp" }), "tcp"},
		"no devnet":    {with(running, func(c *Config) { c.Devnet = "" }), "--devnet"},
		"no meter":     {with(running, func(c *Config) { c.PID = 0 }), "--pid"},
		"other host":   {with(running, func(c *Config) { c.URL = "http://192.0.2.1:80" }), "--remote"},
		"admin":        {with(running, func(c *Config) { c.Admin = "127.0.0.1:9090" }), "http://"},
		"a name":       {with(running, func(c *Config) { c.Devnet = "http://pepay.example" }), "--remote"},
		"said so":      {with(running, func(c *Config) { c.URL, c.Remote = "http://192.0.2.1", true }), ""},
		"no URL":       {with(running, func(c *Config) { c.URL = "ftp://127.0.0.1" }), "http://"},
		"nchan":        {with(running, func(c *Config) { c.Nchan = true }), "--nchan"},
		"curve":        {with(running, func(c *Config) { c.Workloads = []string{Growth} }), "--self"},
		"negative":     {with(self, func(c *Config) { c.Seconds = -1 }), "negative"},
		"nothing else": {with(self, func(c *Config) { c.Workloads = Names() }), ""},
	} {
		err := tt.cfg.check()
		if tt.want == "" && err != nil || tt.want != "" && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: check() = %v, want %q", name, err, tt.want)
		}
	}
}

// A fake is a gateway and its devnet in one, which can be made to misbehave.
type fake struct {
	t     testing.TB
	spoil func(n int) (times int, to string) // how often, and to whom, event n goes; "" for its customer. The first is a try

	mu      sync.Mutex
	events  int
	streams map[string][]net.Conn // by customer
}

// startFake returns the fake's URL.
func startFake(t testing.TB, spoil func(n int) (int, string)) string {
	f := &fake{t: t, spoil: spoil, streams: map[string][]net.Conn{}}
	mux := http.NewServeMux()
	mux.HandleFunc("POST /api/v1/ws/token", f.mint)
	mux.HandleFunc("GET /ws/commerce/events", f.stream)
	mux.HandleFunc("POST /_devnet/emit", f.emit)
	srv := httptest.NewServer(mux)
	t.Cleanup(func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		for _, conns := range f.streams {
			for _, c := range conns {
				_ = c.Close()
			}
		}
		srv.CloseClientConnections()
		srv.Close()
	})
	return srv.URL
}

// mint hands out the customer's name, which is good enough here.
func (f *fake) mint(w http.ResponseWriter, r *http.Request) {
	var claims struct {
		Customer string `json:"customer_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&claims); err != nil {
		f.t.Errorf("mint: %v", err)
	}
	fmt.Fprintf(w, `{"data":{"token":%q}}`, claims.Customer)
}

func (f *fake) stream(w http.ResponseWriter, r *http.Request) {
	_, customer, _ := strings.Cut(r.Header.Get("Sec-WebSocket-Protocol"), "bearer.")
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		f.t.Errorf("hijack: %v", err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	_, _ = conn.Write(floorAnswer(WS))
	_, _ = conn.Write(serverFrame([]byte(`{"object":"ws_control","type":"replay_complete","cursor":"cur_1"}`)))
	f.streams[customer] = append(f.streams[customer], conn)
}

func (f *fake) emit(_ http.ResponseWriter, r *http.Request) {
	var in struct {
		Frame    string `json:"frame"`
		Customer string `json:"customer_id"`
	}
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		f.t.Errorf("emit: %v", err)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.events++
	times, to := f.spoil(f.events)
	if to == "" {
		to = in.Customer
	}
	for range times {
		for customer, conns := range f.streams {
			if strings.HasSuffix(customer, to) {
				for _, c := range conns {
					_, _ = c.Write(serverFrame([]byte(in.Frame)))
				}
			}
		}
	}
}

func TestRunEndsWellOnlyIfEveryEventCameOnce(t *testing.T) {
	for name, tt := range map[string]struct {
		spoil func(n int) (int, string)
		want  string // in the report
		err   error
	}{
		"honest":  {func(int) (int, string) { return 1, "" }, `"lost":0,"duplicates":0,"disorder":0,"foreign":0`, nil},
		"losing":  {func(n int) (int, string) { return min(n%100, 1), "" }, `"lost":4`, ErrUnclean},
		"twice":   {func(n int) (int, string) { return 1 + n/451, "" }, `"duplicates":1`, ErrUnclean},
		"crossed": {func(n int) (int, string) { return 1, []string{"", "_7"}[n/451] }, `"foreign":1`, ErrUnclean},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := startFake(t, tt.spoil)
			var out bytes.Buffer
			err := Run(t.Context(), Config{
				URL: url, Devnet: url, APIKey: "k", PID: os.Getpid(), Quick: true, Workloads: []string{"selective"}, Program: os.Args[0],
			}, &out)
			if !errors.Is(err, tt.err) || tt.err == nil && err != nil {
				t.Fatalf("Run = %v, want %v", err, tt.err)
			}
			if !strings.Contains(out.String(), tt.want) {
				t.Errorf("no %s in\n%s", tt.want, out.String())
			}
		})
	}
}

// Before anything is measured, what was named is tried.
func TestRunSaysWhichFlagIsWrong(t *testing.T) {
	works := func(int) (int, string) { return 1, "" }
	gone := "http://127.0.0.1:1" // nobody listens there
	for name, tt := range map[string]struct {
		spoil func(int) (int, string)
		edit  func(*Config)
		want  string
	}{
		"another devnet": {func(int) (int, string) { return 0, "" }, func(*Config) {}, "is it the upstream of this gateway?"},
		"no gateway":     {works, func(c *Config) { c.URL = gone }, "--url"},
		"no devnet":      {works, func(c *Config) { c.Devnet = gone }, "--devnet"},
		"no process":     {works, func(c *Config) { c.PID = 1 << 30 }, "--pid"},
		"no Redis":       {works, func(c *Config) { c.RedisPID = 1 << 30 }, "--redis-pid"},
		"no metrics":     {works, func(c *Config) { c.PID, c.Admin = 0, gone }, "--admin"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := startFake(t, tt.spoil)
			cfg := Config{URL: url, Devnet: url, APIKey: "k", PID: os.Getpid(), Quick: true, Workloads: []string{"idle"}}
			tt.edit(&cfg)
			var out bytes.Buffer
			err := Run(t.Context(), cfg, &out)
			if err == nil || errors.Is(err, ErrUnclean) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Run = %v, want %q", err, tt.want)
			}
			if out.Len() > 0 {
				t.Errorf("something was measured:\n%s", out.String())
			}
		})
	}
}

func TestRunSaysWhyAClientIsRefused(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.Error(w, "RATE_LIMITED", http.StatusTooManyRequests)
	}))
	defer srv.Close()
	err := Run(context.Background(), Config{
		URL: srv.URL, Devnet: srv.URL, APIKey: "k", PID: os.Getpid(), Quick: true, Workloads: []string{"churn"},
	}, &bytes.Buffer{})
	if err == nil || errors.Is(err, ErrUnclean) || !strings.Contains(err.Error(), "RATE_LIMITED") {
		t.Errorf("Run = %v, want the server's reason", err)
	}
}
