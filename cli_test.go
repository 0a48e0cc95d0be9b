package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

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
	for _, args := range [][]string{{"--help"}, {"dev", "--help"}, {"serve", "--help"}, {"token", "mint", "--help"}, {"config", "check", "--help"}} {
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
	if code, _, _ := command(t, nil, "", "swerve"); code == 0 {
		t.Error("an unknown command exits 0")
	}
	if code, out, _ := command(t, nil, "", "version"); code != 0 || !strings.HasPrefix(out, "pepay-gateway ") {
		t.Errorf("version: exit %d: %q", code, out)
	}
}

func TestTakenAddressSaysWhatToDo(t *testing.T) {
	addr := freeAddr(t)
	first := startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", freeAddr(t)})
	eventually(t, 20*time.Second, "dev answers", func() bool { return getStatus("http://"+addr+"/") == 200 })
	code, _, errs := command(t, nil, "", "dev", "--listen", addr)
	if code != exitUsage || !strings.Contains(errs, "--listen") {
		t.Errorf("exit %d: %s", code, errs)
	}
	if got := first.terminate(15 * time.Second); got != 0 {
		t.Errorf("dev exits %d on SIGTERM, want 0", got)
	}
}

// Every curl that dev prints, and every one in the README, works as it stands.
func TestPrintedCurlsWork(t *testing.T) {
	addr, adminAddr := freeAddr(t), freeAddr(t)
	p := startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", adminAddr, "--rate", "2"})
	eventually(t, 20*time.Second, "dev is ready", func() bool { return getStatus("http://"+adminAddr+"/readyz") == 200 })
	eventually(t, 20*time.Second, "there are events", func() bool {
		status, body := get(t, "http://"+addr+"/api/v1/events", devKey)
		return status == 200 && strings.Contains(body, "evt_")
	})
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	text := strings.ReplaceAll(string(readme), "\\\n", " ")
	text = strings.NewReplacer("127.0.0.1:8080", addr, "127.0.0.1:9090", adminAddr).Replace(text)
	lines := regexp.MustCompile(`(?m)curl -.*$`).FindAllString(p.output()+text, -1)
	if len(lines) < 9 {
		t.Fatalf("found %d curls, want at least 9: %q", len(lines), lines)
	}
	for _, line := range lines {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		cmd := exec.CommandContext(ctx, "sh", "-c", "timeout 2 "+line)
		if strings.Contains(line, `"$(`) {
			cmd = exec.CommandContext(ctx, "sh", "-c", strings.Replace(line, "curl -sN", "timeout 2 curl -sN", 1))
		}
		out, err := cmd.Output()
		cancel()
		if status := cmd.ProcessState.ExitCode(); status != 0 && status != 124 { // 124: a stream, cut by timeout
			t.Errorf("%s: %v", line, err)
		}
		if !regexp.MustCompile(`"success":true|"type":"hello"|"order_id"|"nodes"|pepay_gateway_live`).Match(out) {
			t.Errorf("%s:\n%s", line, out)
		}
	}
}

// A plain EventSource keeps the URL it was given. It must come back for as long
// as the session lasts, long after the short token has expired.
func TestSSEURLOutlivesTheToken(t *testing.T) {
	w := startWorld(t)
	g, p := w.nodes[0], w.pepay
	m := g.mint(map[string]any{"customer_id": "cust_1", "ttl_seconds": 1, "session_seconds": 600})
	s := openSSE(t, m.SSEURL, "")
	s.waitControl("replay_complete")
	lifecycle(p, "cust_1")
	s.waitIDs(len(w.owned("cust_1")))
	had := len(s.ids())
	s.close()
	eventually(t, 10*time.Second, "the token has expired", func() bool {
		status, _ := get(t, g.url+"/api/v1/events", m.Token)
		return status == 401
	})
	lifecycle(p, "cust_1")
	truth := w.owned("cust_1")
	cursor := s.cursor()
	for range 3 {
		again := openSSE(t, m.SSEURL, cursor)
		if hello := again.waitControl("hello"); hello["resumed"] != true {
			t.Errorf("hello = %v, want resumed", hello)
		}
		if got, want := again.waitIDs(len(truth)-had), truth[had:]; strings.Join(got, " ") != strings.Join(want, " ") {
			t.Errorf("got %v, want %v", got, want)
		}
		again.close()
	}
	if _, status := dialSSE(t, withQuery(m.SSEURL, "token", m.Token), ""); status != 401 {
		t.Errorf("the expired token opens SSE: status %d, want 401", status)
	}
}
