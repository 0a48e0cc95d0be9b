package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const testSecret = "MARKER-0123456789abcdef0123456789abcdef"

// command runs the program in this process and returns what it printed and how
// it would have exited.
func command(t testing.TB, environ []string, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	var out, errs bytes.Buffer
	err := run(t.Context(), args, environ, strings.NewReader(stdin), &out, &errs)
	code = exitCode(err, &errs)
	return code, out.String(), errs.String()
}

var goodEnv = []string{
	"GATEWAY_PUBLIC_URL=https://events.shop.test", "GATEWAY_REDIS_URL=redis://:MARKERpw@127.0.0.1:1/0",
	"GATEWAY_UPSTREAM_API_KEY=ck_MARKER", "GATEWAY_AUTH_API_KEY=gwk_MARKER_0123456789", "GATEWAY_AUTH_TOKEN_SECRET=" + testSecret,
}

func TestHelpTeaches(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"dev", "--help"}, {"serve", "--help"}, {"token", "mint", "--help"}, {"config", "check", "--help"}, {"bench", "--help"}} {
		code, out, _ := command(t, nil, "", args...)
		if code != 0 || !strings.Contains(out, "Usage:") || len(out) < 200 {
			t.Errorf("%v: exit %d, %q", args, code, out)
		}
	}
}

func TestBadConfigurationIsReportedAtOnce(t *testing.T) {
	file := filepath.Join(t.TempDir(), "gateway.yaml")
	text := "lisen: :8080\nupstream:\n  auth: magic\nleader:\n  lease: 5 parsecs\ncors:\n  origins: ['*']\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"config", "check", "-c", file}, {"serve", "-c", file}} {
		code, _, errs := command(t, []string{"GATEWAY_REDDIS_URL=x"}, "", args...)
		if code != exitUsage {
			t.Errorf("%v: exit %d, want %d", args, code, exitUsage)
		}
		for _, want := range []string{
			file + ":1", "listen", file + ":3", "magic", file + ":5", "parsecs", "cors.origins", "GATEWAY_REDDIS_URL",
			"GATEWAY_REDIS_URL", "public_url", "auth.token_secret", "upstream.api_key",
		} {
			if !strings.Contains(errs, want) {
				t.Errorf("%v: no %q in\n%s", args, want, errs)
			}
		}
	}
}

func TestConfigPrintHidesSecrets(t *testing.T) {
	code, out, errs := command(t, goodEnv, "", "config", "print")
	if code != 0 || !strings.Contains(out, "https://events.shop.test") {
		t.Errorf("exit %d: %s%s", code, out, errs)
	}
	if strings.Contains(out+errs, "MARKER") {
		t.Errorf("a secret is printed:\n%s", out)
	}
	if code, out, errs := command(t, goodEnv, "", "config", "check"); code != 0 || !strings.Contains(out, "good") {
		t.Errorf("check: exit %d: %s%s", code, out, errs)
	}
}

func TestBadRedisURLIsAConfigurationError(t *testing.T) {
	env := append([]string{}, goodEnv...)
	env[1] = "GATEWAY_REDIS_URL=redis+sentinel://:MARKERpw@127.0.0.1:1"
	code, _, errs := command(t, env, "", "config", "check")
	if code != exitUsage || !strings.Contains(errs, "redis.url") || strings.Contains(errs, "MARKER") {
		t.Errorf("exit %d: %s", code, errs)
	}
}

func TestTokenMintAndCheck(t *testing.T) {
	code, token, errs := command(t, goodEnv, "", "token", "mint", "--customer", "cust_1", "--order", "o1")
	if code != 0 {
		t.Fatalf("mint: exit %d: %s", code, errs)
	}
	code, out, errs := command(t, goodEnv, token, "token", "check")
	if code != 0 || !strings.Contains(out, `"customer_id": "cust_1"`) || !strings.Contains(out, `"o1"`) {
		t.Errorf("check: exit %d: %s%s", code, out, errs)
	}
	code, out, errs = command(t, goodEnv, "", "token", "check", "x"+token)
	if code != exitFailure || strings.Contains(out+errs, strings.TrimSpace(token)) {
		t.Errorf("check of a bad token: exit %d: %s%s", code, out, errs)
	}
	if code, _, errs := command(t, goodEnv, "", "token", "mint"); code != exitUsage {
		t.Errorf("mint of nothing: exit %d: %s", code, errs)
	}
	if code, _, errs := command(t, nil, "", "token", "mint", "--customer", "c"); code != exitUsage || !strings.Contains(errs, "token_secret") {
		t.Errorf("mint without a secret: exit %d: %s", code, errs)
	}
}

func TestUnknownFlagsAndCommandsExit2(t *testing.T) {
	if code, _, errs := command(t, nil, "", "serve", "--prot", "1"); code != exitUsage || !strings.Contains(errs, "--help") {
		t.Errorf("exit %d: %s", code, errs)
	}
	for _, args := range [][]string{{"bench"}, {"bench", "--self", "idel"}, {"bench", "--self", "--connections", "-1"}} {
		if code, _, errs := command(t, nil, "", args...); code != exitUsage || !strings.Contains(errs, "--help") {
			t.Errorf("%v: exit %d: %s", args, code, errs)
		}
	}
	for _, args := range [][]string{{"swerve"}, {"serve", "extra"}, {"config"}, {"config", "chek", "-c", "x.yaml"}, {"config", "chek"}, {"token"}, {"token", "mnit"}} {
		if code, out, errs := command(t, nil, "", args...); code != exitUsage || !strings.Contains(errs, "--help") {
			t.Errorf("%v: exit %d: %s%s", args, code, out, errs)
		}
	}
	if code, out, _ := command(t, nil, ""); code != 0 || !strings.Contains(out, "pepay-gateway dev") {
		t.Errorf("nothing: exit %d: %q, want help", code, out)
	}
	if code, out, _ := command(t, nil, "", "version"); code != 0 || !strings.HasPrefix(out, "pepay-gateway ") {
		t.Errorf("version: exit %d: %q", code, out)
	}
}

func TestLogHasDurationsAsPeopleWriteThem(t *testing.T) {
	var log strings.Builder
	environment{stderr: &log}.logger("info").Info("draining", "delay", 2*time.Second)
	if !strings.Contains(log.String(), `"delay":"2s"`) {
		t.Errorf("log = %s, want a delay of 2s", log.String())
	}
}
