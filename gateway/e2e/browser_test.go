package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

const webDir = "../../web"

// The pages, in a real Chromium against a real `pepay-gateway dev`. What a page
// does is checked in web/test; screenshots go to SCREENSHOTS when it is set.
func TestPagesInChromium(t *testing.T) {
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatal("node is missing: make setup installs what the tests need")
	}
	if _, err := os.Stat(filepath.Join(webDir, "node_modules", "playwright-core")); err != nil {
		t.Fatal("web/node_modules is missing: make setup installs what the tests need")
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
