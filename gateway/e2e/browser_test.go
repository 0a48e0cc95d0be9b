package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

const webDir = "../../web"

// In real browsers against a real `pepay-gateway dev`. Both wait more than they
// work, so that they go side by side; nothing else goes beside them.
func TestBrowsers(t *testing.T) {
	t.Run("pages", pagesInBrowsers)
	t.Run("client", clientInChromium)
}

// The pages, in Chromium and Firefox. What a page does is checked in web/test;
// screenshots go to SCREENSHOTS when it is set.
func pagesInBrowsers(t *testing.T) {
	t.Parallel()
	storefront, ops := startDev(t)
	runNode(t, []string{"npm", "test", "--silent"}, "STOREFRONT_URL="+storefront, "OPS_URL="+ops)
}

// The client and the element in Chromium. It counts streams at the gateway, so
// it has one of its own, and a second for what takes a minute and the element. How
// long a dev takes from its start to an order on the screen is logged.
func clientInChromium(t *testing.T) {
	t.Parallel()
	storefront, ops := startDev(t)
	sessions, _ := startDev(t)
	out := runNode(t, []string{"npm", "run", "--silent", "test:live"},
		"STOREFRONT_URL="+storefront, "OPS_URL="+ops, "SESSIONS_URL="+sessions, "PROGRAM="+program)
	painted := regexp.MustCompile(`first painted order state \d+ ms after dev started.*`).FindString(out)
	if painted == "" {
		t.Error("the time to the first painted order state is not printed")
	}
	t.Log(painted)
}

// startDev starts a dev whose shop does nothing by itself.
func startDev(t *testing.T) (storefront, ops string) {
	t.Helper()
	addr, adminAddr := freeAddr(t), freeAddr(t)
	startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", adminAddr, "--rate", "0"})
	eventually(t, 20*time.Second, "dev is live", func() bool {
		return getStatus("http://"+adminAddr+"/readyz") == 200
	})
	return "http://" + addr + "/", "http://" + adminAddr + "/ops/"
}

// runNode runs tests written for node, in web, and returns what they printed.
func runNode(t *testing.T, command []string, env ...string) string {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: make setup installs what the tests need")
	}
	for _, name := range []string{"axe-core", "playwright-core", "puppeteer-core", "react", "uplot", "vue"} {
		if _, err := os.Stat(filepath.Join(webDir, "node_modules", name)); err != nil {
			t.Fatalf("web/node_modules lacks %s: make setup installs what the tests need", name)
		}
	}
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = webDir
	cmd.Env = append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", command, err, out)
	}
	return string(out)
}
