package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const webDir = "../../web"

// The pages, in a real Chromium and a real Firefox against a real `pepay-gateway
// dev`. What a page does is checked in web/test; screenshots go to SCREENSHOTS
// when it is set.
func TestPagesInBrowsers(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: make setup installs what the tests need")
	}
	for _, name := range []string{"axe-core", "playwright-core", "puppeteer-core", "uplot"} {
		if _, err := os.Stat(filepath.Join(webDir, "node_modules", name)); err != nil {
			t.Fatalf("web/node_modules lacks %s: make setup installs what the tests need", name)
		}
	}
	addr, adminAddr := freeAddr(t), freeAddr(t)
	startSelf(t, []string{"dev", "--listen", addr, "--admin-listen", adminAddr, "--rate", "0"})
	eventually(t, 20*time.Second, "dev is live", func() bool {
		return getStatus("http://"+adminAddr+"/readyz") == 200
	})
	cmd := exec.Command("npm", "test", "--silent")
	cmd.Dir = webDir
	cmd.Env = append(os.Environ(), "STOREFRONT_URL=http://"+addr+"/", "OPS_URL=http://"+adminAddr+"/ops/")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("npm test: %v\n%s", err, out)
	}
}
