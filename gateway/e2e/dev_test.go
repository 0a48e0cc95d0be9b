package e2e

import (
	"context"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// devKey is the API key of a gateway started by dev.
const devKey = "gwk_dev_local_only_0000000000"

func TestTakenAddressSaysWhatToDo(t *testing.T) {
	t.Parallel()
	addr := freeAddr(t)
	first := startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", freeAddr(t)})
	eventually(t, 20*time.Second, "dev answers", func() bool { return getStatus("http://"+addr+"/") == 200 })
	second := startSelf(t, []string{"dev", "--listen", addr})
	<-second.done
	if code := second.cmd.ProcessState.ExitCode(); code != 2 || !strings.Contains(second.output(), "--listen") {
		t.Errorf("exit %d: %s", code, second.output())
	}
	if got := first.terminate(15 * time.Second); got != 0 {
		t.Errorf("dev exits %d on SIGTERM, want 0", got)
	}
}

// Every curl that dev prints, and every one in the README, works as it stands.
func TestPrintedCurlsWork(t *testing.T) {
	t.Parallel()
	addr, adminAddr := freeAddr(t), freeAddr(t)
	p := startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", adminAddr, "--rate", "2"})
	eventually(t, 20*time.Second, "dev is ready", func() bool { return getStatus("http://"+adminAddr+"/readyz") == 200 })
	eventually(t, 20*time.Second, "there are events", func() bool {
		status, body := get(t, "http://"+addr+"/api/v1/events", devKey)
		return status == 200 && strings.Contains(body, "evt_")
	})
	readme, err := os.ReadFile("../../README.md")
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

// What a button of the shop does: the gateway drains, closes and listens again,
// while Redis and the local Pepay stay as they are.
func TestDevRestartsItsGatewayAlone(t *testing.T) {
	t.Parallel()
	storefront, ops := startDev(t)
	ready := strings.TrimSuffix(ops, "ops/") + "readyz"
	var placed struct {
		ID string `json:"order_id"`
	}
	if got := postJSON(t, storefront+"demo/orders", "", map[string]string{"customer_id": "cust_1"}, &placed); got != 201 {
		t.Fatalf("placing an order: status %d, want 201", got)
	}
	told := func(types ...string) func() bool {
		return func() bool {
			_, body := get(t, storefront+"api/v1/events?order_id="+placed.ID, devKey)
			return !slices.ContainsFunc(types, func(typ string) bool { return !strings.Contains(body, typ) })
		}
	}
	eventually(t, 20*time.Second, "the order is in the log", told("commerce.order.created"))
	if got := postJSON(t, storefront+"demo/faults/restart", "", map[string]string{}, nil); got != 202 {
		t.Fatalf("restart: status %d, want 202", got)
	}
	eventually(t, 20*time.Second, "the gateway drains", func() bool { return getStatus(ready) != 200 })
	eventually(t, 20*time.Second, "it is ready again", func() bool { return getStatus(ready) == 200 })
	if !told("commerce.order.created")() {
		t.Error("the log has lost the order of before the restart")
	}
	move := storefront + "demo/orders/" + placed.ID + "/simulate"
	if got := postJSON(t, move, "", map[string]string{"transitionTo": "payment_confirmed"}, nil); got != 200 {
		t.Errorf("moving the order of before: status %d, want 200", got)
	}
	eventually(t, 20*time.Second, "its payment is in the log", told("commerce.order.created", "invoice_payment.created"))
}
